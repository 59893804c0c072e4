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

Labels = npt.NDArray[np.int32]
#: Index of the reason "none given"; 0 means "not frozen".
UNGIVEN = 1


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of one tensor.

    Attributes:
        labels: ``[n, k]`` unit ids, 0 is "no unit"; outer factors come first.  ``k == 0``: always alive.
        why: index of the reason why the positions without units are alive (0: none given).
        zero: a removed position's slice is all zeros in the original network once the removed
            parameter slices are set to zero.  Sums over such an axis stay exact.
    """

    labels: Labels
    why: int = 0
    zero: bool = True

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
        return replace(self, zero=False) if self.zero and not self.is_plain else self


def concat(axes: Sequence[Axis]) -> Axis:
    """Axes one after the other: a sum."""
    width = max(axis.labels.shape[1] for axis in axes)
    labels = [np.pad(a.labels, ((0, 0), (0, width - a.labels.shape[1]))) for a in axes]
    why = next((a.why for a in axes if a.why), 0)
    zero = all(a.zero for a in axes if not a.is_plain)
    return Axis(np.concatenate(labels), why, zero)


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
    return Axis(labels, why, all(a.zero for a in axes if not a.is_plain))


class Algebra:
    """The store of units: union-find, refinements and reasons."""

    def __init__(self) -> None:
        self._parent = np.zeros(1024, np.int32)
        self._bound = np.zeros(1024, np.int32)  # row of _conjunctions, 0: free
        self._frozen = np.zeros(1024, np.int32)  # index of the reason, 0: not frozen
        self._count = 1  # unit 0 is "no unit"
        self._conjunctions = np.zeros((1, 1), np.int32)
        self.version = 0  # grows with every change; lets callers cache what they resolved

    def __len__(self) -> int:
        return self._count

    # ---- making axes ----------------------------------------------------------------------------

    def fresh(self, size: int, *, zero: bool = True) -> Axis:
        """An axis of ``size`` new units.  An axis of size 1 can't shrink and has none."""
        if size <= 1:
            return self.plain(size)
        start, self._count = self._count, self._count + size
        while self._count > len(self._parent):
            for name in ("_parent", "_bound", "_frozen"):
                old = getattr(self, name)
                setattr(self, name, np.concatenate([old, np.zeros_like(old)]))
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
        while True:
            above = self._parent[parents]
            if np.array_equal(above, parents):
                break
            parents = above
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
        """Rows in normal form: free units only, without repetitions."""
        labels = self.resolve(axis)
        if not labels.shape[1]:
            return labels
        labels = np.where(self._frozen[labels] > 0, 0, labels)
        for column in range(1, labels.shape[1]):
            again = (labels[:, :column] == labels[:, column : column + 1]).any(axis=1)
            labels[again, column] = 0
        return _compact(labels)

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
        return _compact(np.concatenate(columns, axis=1))

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
        if a.labels is b.labels:
            return
        while True:
            left, right, shared = self._differences(a, b)
            n_left, n_right = (left > 0).sum(axis=1), (right > 0).sum(axis=1)
            if not n_left.any() and not n_right.any():
                return
            self.version += 1
            one_empty = (n_left == 0) != (n_right == 0)
            same = (n_left == n_right) & (n_left > 0)
            if one_empty.any():
                self._absorb(a, b, left, right, shared, one_empty, why)
            elif same.any():
                width = min(left.shape[1], right.shape[1])
                self._union(left[same][:, :width].ravel(), right[same][:, :width].ravel())
            else:
                self._refine(left, right, n_left, n_right)

    def _differences(self, a: Axis, b: Axis) -> tuple[Labels, Labels, npt.NDArray[np.bool_]]:
        """What each row of ``a`` and ``b`` has that the other lacks, and whether they share a unit."""
        left, right = self.live(a).copy(), self.live(b).copy()
        shared = np.zeros(len(left), bool)
        for i in range(left.shape[1]):
            for j in range(right.shape[1]):
                both = (left[:, i] == right[:, j]) & (left[:, i] > 0)
                if both.any():
                    left[both, i] = 0
                    right[both, j] = 0
                    shared |= both
        return _compact(left), _compact(right), shared

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
            labels = axis.labels[rows]
            for column in range(labels.shape[1]):
                reason = self._frozen[self.roots(labels[:, column])]
                found = np.where(found == 0, reason, found).astype(np.int32)
        default = a.why or b.why or why
        return np.repeat(np.where(found == 0, default, found).astype(np.int32), width)

    def _union(self, a: Labels, b: Labels) -> None:
        real = (a > 0) & (b > 0)
        a, b = a[real], b[real]
        while True:
            a, b = self.roots(a), self.roots(b)
            differ = a != b
            if not differ.any():
                return
            a, b = a[differ], b[differ]
            self._parent[np.maximum(a, b)] = np.minimum(a, b)

    def _refine(self, left: Labels, right: Labels, n_left: Labels, n_right: Labels) -> None:
        """``{x} = {y, z}``: x is refined to the conjunction.  Other shapes are merged whole."""
        single_left, single_right = (n_left == 1) & (n_right > 1), (n_right == 1) & (n_left > 1)
        heads = np.concatenate([left[single_left, 0], right[single_right, 0]])
        width = max(left.shape[1], right.shape[1])
        bodies = np.concatenate([_widen(right[single_left], width), _widen(left[single_right], width)])
        if not len(heads):
            anchor = left[:, :1]
            both = np.concatenate([left, right], axis=1)
            rows = (n_left > 0) | (n_right > 0)
            self._union(np.broadcast_to(anchor, both.shape)[rows].ravel(), both[rows].ravel())
            return
        # One refinement per unit, and none whose parts are being refined in the same step.
        heads, first = np.unique(heads, return_index=True)
        bodies = bodies[first]
        inside = np.isin(bodies, heads).any(axis=1)
        if inside.all():
            inside = np.arange(len(heads)) > 0
        heads, bodies = heads[~inside], bodies[~inside]
        have = self._conjunctions.shape[1]
        if width > have:
            self._conjunctions = _widen(self._conjunctions, width)
        start = len(self._conjunctions)
        self._conjunctions = np.concatenate([self._conjunctions, _widen(bodies, max(have, width))])
        self._bound[heads] = np.arange(start, len(self._conjunctions), dtype=np.int32)

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
        reason = axis.why or next(iter(self.reasons(axis) - {0}), 0)
        return [
            Axis(np.stack(c, axis=1) if c else np.zeros((n, 0), np.int32), reason, axis.zero)
            for c, n in zip(columns, sizes, strict=True)
        ]


def _compact(labels: Labels) -> Labels:
    """Units to the left within each row (order kept), empty columns dropped."""
    width = labels.shape[1]
    if not width:
        return labels
    empty = labels == 0
    if width > 1 and (empty[:, :-1] & ~empty[:, 1:]).any():
        order = np.argsort(empty, axis=1, kind="stable")
        labels = np.take_along_axis(labels, order, axis=1)
        empty = labels == 0
    used = ~empty.all(axis=0)
    return labels if used.all() else labels[:, used]


def _widen(labels: Labels, width: int) -> Labels:
    return np.pad(labels, ((0, 0), (0, max(0, width - labels.shape[1]))))
