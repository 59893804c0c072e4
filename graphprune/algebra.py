"""The axis algebra: which positions of which tensor axes live and die together.

The atom is a **unit**: the smallest thing that can be removed (one channel, one head, one position of
every head).  A tensor axis of size ``n`` is described by its **rows**: for each position the set of units
it depends on, stored as an integer array ``[n, k]`` padded with 0.  A position is alive when *all* its units
are.  This one picture holds everything that a graph does to axes:

* an axis that a parameter makes has one fresh unit per position;
* Concat, Split, Slice, Pad and Gather are numpy indexing on the rows (sums of pieces);
* Reshape that merges ``H`` and ``D`` makes rows ``{h_i, d_j}`` (a product, outer factor first);
* Reshape that splits ``H·D`` must find such a product, and *refines* units that are none:
  ``e_ij := {h_i, d_j}``;
* two axes that must keep the same positions are **equated**: units are merged (union-find) or refined.

Every step only substitutes a unit by a conjunction of units, and an identity between rows stays true under
substitution.  So equations may arrive in any order, and what was derived earlier stays right.

What can't be expressed is frozen, with a reason: a frozen unit is always alive.  There is no ONNX in here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from graphprune.errors import ModelError
from graphprune.label_rows import Labels, compact, differences, widen, without_repetitions

#: Index of the reason "none given"; 0 means "not frozen".
UNGIVEN = 1
#: Larger axes are data, not channels: a label for each position would only fill the memory.
MOST_POSITIONS, MOST_UNITS = 1 << 24, 1 << 27


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of one tensor.

    Attributes:
        labels: ``[n, k]`` unit ids, 0 is "no unit"; outer factors come first.  ``k == 0``: always alive.
        why: index of the reason why the positions without units are alive (0: none given).
        zero: a removed position's slice is all zeros in the original network once the removed
            parameter slices are set to zero.  Sums over such an axis stay exact.
        zero_point: what a removed slice holds instead, where that is known: zero as a quantized tensor
            writes it (a number, or the name of the value that gives it at run time).
    """

    labels: Labels
    why: int = 0
    zero: bool = True
    zero_point: int | str | None = None

    @property
    def size(self) -> int:
        """Number of positions."""
        return int(self.labels.shape[0])

    @property
    def is_plain(self) -> bool:
        """True when no unit was ever attached: the axis can't shrink."""
        return not self.labels.shape[1]

    def take(self, index: npt.NDArray[np.int64]) -> Axis:
        """Positions ``index`` of this axis, in that order (Slice, Split, Gather)."""
        return replace(self, labels=self.labels[index])

    def nonzero(self) -> Axis:
        """The same axis behind a function that does not map 0 to 0."""
        is_known = self.zero or self.zero_point is not None
        return replace(self, zero=False, zero_point=None) if is_known and not self.is_plain else self


def concat(axes: Sequence[Axis]) -> Axis:
    """Axes one after the other: a sum."""
    width = max(axis.labels.shape[1] for axis in axes)
    labels = [widen(a.labels, width) for a in axes]
    why = next((a.why for a in axes if a.why), 0)
    zero = all(a.zero for a in axes if not a.is_plain)
    return Axis(np.concatenate(labels), why, zero, _common_zero_point(axes))


def merge(axes: Sequence[Axis]) -> Axis:
    """Axes flattened into one, the first is the outermost: a product."""
    sizes = [axis.size for axis in axes]
    total = int(np.prod(sizes, dtype=np.int64))
    columns, inner = [], total
    for axis in axes:
        inner //= max(axis.size, 1)
        if axis.labels.shape[1]:
            outer = total // max(axis.size * inner, 1)
            columns.append(np.tile(np.repeat(axis.labels, inner, axis=0), (outer, 1)))
    labels = np.concatenate(columns, axis=1) if columns else np.zeros((total, 0), np.int32)
    why = next((a.why for a in axes if a.why), 0)
    zero = all(a.zero for a in axes if not a.is_plain)
    return Axis(labels, why, zero, _common_zero_point(axes))


def _common_zero_point(axes: Sequence[Axis]) -> int | str | None:
    found = {a.zero_point for a in axes if not a.is_plain}
    return found.pop() if len(found) == 1 else None


class Algebra:
    """The store of units: union-find, refinements and reasons."""

    def __init__(self) -> None:
        self._parent = np.zeros(1024, np.int32)
        self._bound = np.zeros(1024, np.int32)  # row of _conjunctions, 0: free
        self._frozen = np.zeros(1024, np.int32)  # index of the reason, 0: not frozen
        self._changed = np.zeros(1024, bool)  # merged into another, bound or frozen: no plain free unit
        self._count = 1  # unit 0 is "no unit"
        self._conjunctions = np.zeros((1024, 1), np.int32)
        self._n_conjunctions = 1
        self._place = np.zeros(1024, np.int32)  # scratch: see _first_of_each
        self.version = 0  # grows with every change; lets callers cache what they resolved
        self._live: dict[int, tuple[Labels, Labels]] = {}  # by id: the labels (so that it stays one), rows
        self._live_version = 0

    def __len__(self) -> int:
        return self._count

    # ---- making axes ----------------------------------------------------------------------------

    def fresh(self, size: int, *, zero: bool = True) -> Axis:
        """An axis of ``size`` new units.  One of size 1, or of many millions, can't shrink and has none."""
        if size <= 1 or size > MOST_POSITIONS:
            return self.plain(size)
        if self._count + size > MOST_UNITS:
            message = "the model has too many positions that could be removed"
            raise ModelError(message, because=f"they are more than {MOST_UNITS}, and each takes memory")
        start, self._count = self._count, self._count + size
        while self._count > len(self._parent):
            for name in ("_parent", "_bound", "_frozen", "_changed", "_place"):
                old = getattr(self, name)
                longer = np.zeros(2 * len(old), old.dtype)
                longer[: len(old)] = old
                setattr(self, name, longer)
        units = np.arange(start, self._count, dtype=np.int32)
        self._parent[start : self._count] = units
        return Axis(units[:, None], 0, zero)

    @staticmethod
    def plain(size: int, why: int = 0) -> Axis:
        """An axis that can't shrink, for the reason ``why``."""
        return Axis(np.zeros((size, 0), np.int32), why)

    # ---- reading --------------------------------------------------------------------------------

    def roots(self, units: Labels) -> Labels:
        """Representative of each unit's class."""
        parents = self._parent[units]
        above = self._parent[parents]
        if (above == parents).all():
            return parents
        while not (above == parents).all():
            parents, above = above, self._parent[above]
        self._parent[units] = parents
        return parents

    def resolve(self, axis: Axis) -> Labels:
        """Rows in terms of free and frozen units: refinements substituted."""
        labels = axis.labels
        while labels.shape[1]:
            labels = self.roots(labels)
            bound = self._bound[labels]
            if not bound.any():
                break
            labels = self._substitute(labels, bound)
        return labels

    def live(self, axis: Axis) -> Labels:
        """Rows in normal form: free units only, without repetitions.  Not to be written to."""
        labels = axis.labels
        width = labels.shape[1]
        if not width or (width == 1 and not np.count_nonzero(self._changed[labels])):
            return compact(labels)
        if self._live_version != self.version:
            self._live.clear()
            self._live_version = self.version
        found = self._live.get(id(labels))
        if found is None:
            found = self._live[id(labels)] = (labels, self._normal_form(axis))
        return found[1]

    def _normal_form(self, axis: Axis) -> Labels:
        labels = self.resolve(axis)
        labels = np.where(self._frozen[labels] > 0, 0, labels)
        return compact(without_repetitions(labels))

    def _substitute(self, labels: Labels, bound: Labels) -> Labels:
        columns = []
        for column in range(labels.shape[1]):
            is_bound = bound[:, column] > 0
            if not is_bound.any():
                columns.append(labels[:, column : column + 1])
                continue
            wide = self._conjunctions[bound[:, column]]
            wide[~is_bound, 0] = labels[~is_bound, column]
            columns.append(wide)
        return compact(np.concatenate(columns, axis=1))

    def frozen_for(self, units: Labels) -> Labels:
        """Index of the reason why each (resolved) unit is frozen, 0 where it is free."""
        return self._frozen[units]

    def reasons(self, axis: Axis) -> set[int]:
        """Reasons for which positions of this axis can't be removed (empty: all can)."""
        if axis.is_plain:
            return {axis.why}
        labels = self.resolve(axis)
        stuck = labels[~((labels > 0) & (self._frozen[labels] == 0)).any(axis=1)]
        found = {int(r) for r in np.unique(self._frozen[stuck])} - {0}
        if (stuck == 0).all(axis=1).any():
            found.add(axis.why)
        return found

    def alive(self, axis: Axis, removed: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """``[n]`` mask of kept positions, given which units are removed."""
        return np.asarray(~removed[self.live(axis)].any(axis=1))

    # ---- stating facts --------------------------------------------------------------------------

    def freeze(self, axis: Axis, why: int) -> None:
        """No position of ``axis`` may be removed, because of reason ``why``."""
        self._freeze_units(self.live(axis).ravel(), why)

    def _freeze_units(self, units: Labels, why: int | Labels) -> None:
        keep = units > 0
        if keep.any():
            reason = np.broadcast_to(np.asarray(why, np.int32), units.shape)[keep]
            self._frozen[units[keep]] = np.maximum(reason, UNGIVEN)
            self._changed[units[keep]] = True
            self.version += 1

    def equate(self, a: Axis, b: Axis, why: int = 0) -> None:
        """Position ``i`` of ``a`` lives exactly when position ``i`` of ``b`` does.

        Args:
            a: an axis of ``n`` positions.
            b: an axis of ``n`` positions.
            why: reason recorded when one side turns out to be always alive and gives no reason itself.

        Raises:
            ValueError: the sizes differ.
        """
        if a.size != b.size:
            message = f"axes of {a.size} and {b.size} positions can't be equal"
            raise ValueError(message)
        if a.labels is b.labels or self._equate_lists(a, b):
            return
        while True:
            left, right, shared = differences(self.live(a), self.live(b))
            n_left, n_right = (left > 0).sum(axis=1), (right > 0).sum(axis=1)
            if not n_left.any() and not n_right.any():
                return
            one_empty = (n_left == 0) != (n_right == 0)
            same = (n_left == n_right) & (n_left > 0)
            if one_empty.any():
                self._absorb(a, b, left, right, shared, one_empty, why)
            elif same.any():
                width = min(left.shape[1], right.shape[1])
                self._union(left[same][:, :width].ravel(), right[same][:, :width].ravel())
            else:
                self._refine(left, right, n_left, n_right)

    def _equate_lists(self, a: Axis, b: Axis) -> bool:
        """The usual case, every row is one free unit: they are merged in pairs.  False for all others."""
        left, right = self.live(a), self.live(b)
        if left.shape[1] != 1 or right.shape[1] != 1 or not left.all() or not right.all():
            return False
        differ = left != right
        if differ.any():
            self._union(left[differ], right[differ])
        return True

    def _absorb(
        self, a: Axis, b: Axis, left: Labels, right: Labels, shared: npt.NDArray[np.bool_],
        rows: npt.NDArray[np.bool_], why: int,
    ) -> None:  # fmt: skip
        """Rows of which one side has nothing of its own.

        ``{} = {y}``: y is always alive.  ``{x} = {x, y}`` says that x needs y; that is no equality of
        units, so they are merged, which is stricter and right.
        """
        extra = np.concatenate([left, right], axis=1)
        plain = rows & ~shared
        if plain.any():
            self._freeze_units(extra[plain].ravel(), self._plain_reason(a, b, plain, extra.shape[1], why))
        tied = np.flatnonzero(rows & shared)
        common = self.live(a)[tied]
        if common.size:  # all may just have been frozen
            anchor = np.take_along_axis(common, (common > 0).argmax(axis=1)[:, None], axis=1)
            others = np.concatenate([common, extra[tied]], axis=1)
            anchors = np.broadcast_to(anchor, others.shape)
            real = (others > 0) & (anchors > 0)
            self._union(anchors[real], others[real])

    def _plain_reason(self, a: Axis, b: Axis, rows: npt.NDArray[np.bool_], width: int, why: int) -> Labels:
        found = np.zeros(int(rows.sum()), np.int32)
        for axis in (a, b):
            labels = self.resolve(Axis(axis.labels[rows]))
            for column in range(labels.shape[1]):
                reason = self._frozen[labels[:, column]]
                found = np.where(found == 0, reason, found).astype(np.int32)
        default = a.why or b.why or why
        return np.repeat(np.where(found == 0, default, found).astype(np.int32), width)

    def _union(self, a: Labels, b: Labels) -> None:
        real = (a > 0) & (b > 0)
        a, b = a[real], b[real]
        while True:
            a, b = self.roots(a), self.roots(b)
            differ = a != b
            a, b = a[differ], b[differ]
            first, second = np.minimum(a, b), np.maximum(a, b)
            self._parent[second] = first
            self._changed[second] = True
            self.version += 1
            if (self._parent[second] == first).all():  # no unit stands in two pairs: nothing is overwritten
                return

    def _refine(self, left: Labels, right: Labels, n_left: Labels, n_right: Labels) -> None:
        """``{x} = {y, z}``: x is refined to the conjunction.  Other shapes are merged whole."""
        single_left, single_right = (n_left == 1) & (n_right > 1), (n_right == 1) & (n_left > 1)
        heads = np.concatenate([left[single_left, 0], right[single_right, 0]])
        width = max(left.shape[1], right.shape[1])
        bodies = np.concatenate([widen(right[single_left], width), widen(left[single_right], width)])
        if not len(heads):
            anchor = left[:, :1]
            both = np.concatenate([left, right], axis=1)
            rows = (n_left > 0) | (n_right > 0)
            self._union(np.broadcast_to(anchor, both.shape)[rows].ravel(), both[rows].ravel())
            return
        # One refinement per unit, and none whose parts are being refined in the same step.
        first = self._first_of_each(heads)
        heads, bodies = heads[first], bodies[first]
        self._place[heads] = -1
        inside = (self._place[bodies] == -1).any(axis=1)
        self._place[heads] = 0
        if inside.all():
            inside = np.arange(len(heads)) != heads.argmin()
        self._bind(heads[~inside], bodies[~inside])

    def _first_of_each(self, units: Labels) -> npt.NDArray[np.bool_]:
        """Where a unit stands for the first time in a list."""
        places = np.arange(len(units), dtype=np.int32)
        self._place[units[::-1]] = places[::-1]  # of several, the last one written stays
        return np.asarray(self._place[units] == places)

    def _bind(self, heads: Labels, bodies: Labels) -> None:
        """Each of ``heads`` stands for the conjunction in the row of ``bodies`` from now on."""
        table, start = self._conjunctions, self._n_conjunctions
        end, width = start + len(heads), max(table.shape[1], bodies.shape[1])
        if end > len(table) or width > table.shape[1]:
            self._conjunctions = np.zeros((max(len(table), 2 * end), width), np.int32)
            self._conjunctions[:start, : table.shape[1]] = table[:start]
        self._conjunctions[start:end, : bodies.shape[1]] = bodies
        self._n_conjunctions = end
        self._bound[heads] = np.arange(start, end, dtype=np.int32)
        self._changed[heads] = True
        self.version += 1

    def split(self, axis: Axis, sizes: Sequence[int], why: int = 0) -> list[Axis]:
        """``axis`` seen as a product of axes of the given sizes, the first is the outermost.

        Raises:
            ValueError: the sizes don't multiply to the axis' size.
        """
        if int(np.prod(sizes, dtype=np.int64)) != axis.size:
            message = f"an axis of {axis.size} positions is no product of {tuple(sizes)}"
            raise ValueError(message)
        if len(sizes) == 1:
            return [axis]
        labels = self.live(axis)
        columns: list[list[Labels]] = [[] for _ in sizes]
        for column in range(labels.shape[1]):
            block = labels[:, column].reshape(sizes)
            varying = [d for d in range(len(sizes)) if (block != block.take([0], axis=d)).any()]
            if len(varying) == 1:
                d = varying[0]
                columns[d].append(np.moveaxis(block, d, 0).reshape(sizes[d], -1)[:, 0])
            elif not varying:  # one unit under every position: nothing here can go without all going
                self.freeze(Axis(labels[:, column : column + 1]), why)
            else:
                factors = {d: self.fresh(sizes[d]) for d in varying}
                parts = [factors.get(d, self.plain(sizes[d])) for d in range(len(sizes))]
                self.equate(Axis(labels[:, column : column + 1], axis.why), merge(parts), why)
                for d, factor in factors.items():
                    columns[d].append(factor.labels[:, 0])
        reason = axis.why
        left = self.live(axis)  # a part may just have been frozen
        if not reason and not (left.shape[1] and left[:, 0].all()):
            reason = next(iter(self.reasons(axis) - {0}), 0)
        return [
            Axis(np.stack(c, axis=1) if c else np.zeros((n, 0), np.int32), reason, axis.zero, axis.zero_point)
            for c, n in zip(columns, sizes, strict=True)
        ]
