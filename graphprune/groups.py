"""Groups: sets of interchangeable units, read off the finished algebra.

Two units belong to one group when they appear in the same places: the same axes of the same tensors, in the
same role (outer or inner factor), frozen for the same reason or not at all.  So every axis holds each of its
groups whole, and keeping one unit of each group keeps every tensor non-empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.algebra import Axis
from graphprune.analysis import Analysis, Use

Rows = npt.NDArray[np.int32]
#: Tags of the rules in order of precedence, and the kind they mean.
_KINDS = ("experts", "heads", "head_dim", "conv_groups", "norm_groups")
DEFAULT_KIND = "channels"


@dataclass(frozen=True)
class Member:
    """One axis of one constant that holds a group's units."""

    name: str
    axis: int
    use: str


@dataclass(frozen=True, eq=False)
class Group:
    """Units that can be removed one by one, each everywhere at once.

    Attributes:
        id: name, stable for a model: the first parameter axis that holds it.
        kind: "channels", "heads", "head_dim", "experts", "conv_groups", "norm_groups", or "blocks" (one unit:
            a residual branch, or a layer of equal shape).
        units: ``[size]`` unit ids, in the order of the first parameter axis.
        members: parameter axes.
        changes: statistics that run over the group's axes; empty for an exact group.
        reason: why the group can't be pruned, None if it can.
        least: number of units that have to stay.
    """

    id: str
    kind: str
    units: npt.NDArray[np.int32]
    members: tuple[Member, ...]
    changes: tuple[str, ...]
    reason: str | None
    least: int = 1

    @property
    def size(self) -> int:
        """Number of units."""
        return len(self.units)

    @property
    def exact(self) -> bool:
        """Does removal equal setting the removed slices to zero?"""
        return not self.changes

    @property
    def prunable(self) -> bool:
        """Can units go?"""
        return self.reason is None


def all_axes(analysis: Analysis) -> Iterator[Axis]:
    """Axes of all values and parameters, each set of labels once."""
    seen: set[int] = set()
    for axes in [*(u.axes for u in analysis.uses.values()), *analysis.axes.values()]:
        for axis in axes:
            if not axis.is_plain and id(axis.labels) not in seen:
                seen.add(id(axis.labels))
                yield axis


def find_groups(analysis: Analysis) -> list[Group]:
    """All groups of a model, in the order of its nodes; blocked ones carry their reason."""
    rows = {id(axis.labels): analysis.algebra.resolve(axis) for axis in all_axes(analysis)}
    signature = _signatures(analysis, rows)
    by_signature = _by_signature(analysis, signature, rows)
    is_first = np.zeros(len(analysis.algebra), bool)  # one unit answers for its whole group
    is_first[[units[0] for units in by_signature.values()]] = True
    members = _memberships(analysis, rows, is_first)
    kinds, changes = _marks(analysis, is_first)
    has_nodes = np.zeros(len(analysis.algebra), bool)
    has_nodes[list(analysis.spans)] = True
    groups: list[Group] = []
    names: set[str] = set()
    least = _leasts(analysis, signature)
    weights = {u.key for u in analysis.uses.values() if is_weight(u)}
    for key, units in by_signature.items():
        first = int(units[0])
        own = (*members[first], *_dying(analysis, units[has_nodes[units]].tolist()))
        if not any(member.use in weights for member in own):
            continue  # sizes and positions: no parameter, and nothing to report
        kind = next((k for k in _KINDS if k in kinds.get(first, ())), DEFAULT_KIND)
        base = f"{own[0].name}:{own[0].axis}" + ("" if kind == DEFAULT_KIND else f"/{kind}")
        name, n = base, 1
        while name in names:
            n += 1
            name = f"{base}#{n}"
        names.add(name)
        why = int(analysis.algebra.frozen_for(np.array([first], np.int32))[0])
        groups.append(
            Group(
                id=name,
                kind=kind,
                units=units,
                members=own,
                changes=tuple(sorted({str(analysis.facts.reasons[r]) for r in changes.get(first, ())})),
                reason=str(analysis.facts.reasons[why]) if why else None,
                least=least.get(key, 1),
            )
        )
    groups.extend(_blocks(analysis, names))
    return groups


def _dying(analysis: Analysis, units: Sequence[int]) -> Iterator[Member]:
    """Weights that go whole with one of these units, as axis 0."""
    for unit in units:
        for node in analysis.spans.get(unit, ()):
            for i in range(len(node.inputs)):
                use = analysis.uses.get((node, i))
                if use is not None and use.axes and is_weight(use):
                    yield Member(use.value.name or "", 0, use.key)


def _blocks(analysis: Analysis, names: set[str]) -> Iterator[Group]:
    """A group per residual branch or layer."""
    for block in analysis.blocks:
        first = next(node for node in block.nodes if node in analysis.contractions)
        members = tuple(
            sorted(
                _dying(analysis, [block.unit]),
                key=lambda m: not m.use.startswith(f"{first.outputs[0].name}:"),
            )
        )
        base = f"{members[0].name}/blocks"
        name, n = base, 1
        while name in names:
            n += 1
            name = f"{base}#{n}"
        names.add(name)
        changes = () if block.instead is None else ("its input takes the place of its output",)
        yield Group(name, "blocks", np.array([block.unit], np.int32), members, changes, None, least=0)


def _leasts(analysis: Analysis, signature: npt.NDArray[np.uint64]) -> dict[int, int]:
    """Signature -> units of that group that have to stay, so that every axis keeps what it must.

    Each group keeps one unit, which may be enough for an axis that several groups share.
    """
    least: dict[int, int] = {}
    algebra = analysis.algebra
    for axis, count, _ in analysis.facts.minimums:
        rows = algebra.live(axis)
        if rows.shape[1] == 0 or (rows == 0).all(axis=1).sum() >= count:
            continue
        count -= int((rows == 0).all(axis=1).sum())
        keys, sizes = np.unique(signature[np.unique(rows[rows[:, 0] > 0, 0])], return_counts=True)
        have = sum(least.get(int(k), 1) for k in keys)
        for key, size in sorted(zip(keys.tolist(), sizes.tolist(), strict=True), key=lambda item: -item[1]):
            more = min(max(count - have, 0), size - least.get(key, 1))
            least[key] = least.get(key, 1) + more
            have += more
    return least


def is_weight(use: Use) -> bool:
    """Is this constant a parameter, and not a shape or an index?"""
    tensor = use.value.const_value
    integers = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)
    return tensor is not None and tensor.dtype not in integers


def _signatures(analysis: Analysis, rows: Mapping[int, Rows]) -> npt.NDArray[np.uint64]:
    """A hash per unit of all the places (axis, column) where it stands, and of why it is frozen.

    Sums of random 64-bit numbers, one per place (Zobrist): equal sets give equal sums.
    """
    algebra = analysis.algebra
    rng = np.random.default_rng(0)
    total = np.zeros(len(algebra), np.uint64)
    for labels in rows.values():
        for column in labels.T:  # an index that stands there twice is added to once
            total[column] += rng.integers(1, 2**63, dtype=np.uint64)
    everything = np.arange(len(algebra), dtype=np.int32)
    why = algebra.frozen_for(everything).astype(np.uint64)
    return np.asarray(total + why * np.uint64(0x9E3779B97F4A7C15))


def _by_signature(
    analysis: Analysis, signature: npt.NDArray[np.uint64], rows: Mapping[int, Rows]
) -> dict[int, Rows]:
    """Units of equal signature, in the order in which the parameters' axes hold them."""
    own = {id(axis.labels) for use in analysis.uses.values() for axis in use.axes if not axis.is_plain}
    flat = np.concatenate([np.zeros(0, np.int32), *(rows[key].reshape(-1) for key in rows if key in own)])
    places = np.arange(len(flat))
    first = np.zeros(len(analysis.algebra), np.int64)
    first[flat[::-1]] = places[::-1]  # of several places, the last one written stays
    order = flat[(first[flat] == places) & (flat > 0)]
    keys, start, group = np.unique(signature[order], return_index=True, return_inverse=True)
    pieces = np.split(order[np.argsort(group, kind="stable")], np.cumsum(np.bincount(group))[:-1])
    return {int(keys[i]): pieces[i] for i in np.argsort(start).tolist()}


def _memberships(
    analysis: Analysis, rows: Mapping[int, Rows], is_first: npt.NDArray[np.bool_]
) -> dict[int, list[Member]]:
    """Parameter axes that hold the first unit of a group, by unit."""
    members: dict[int, list[Member]] = {}
    for use in analysis.uses.values():
        for d, axis in enumerate(use.axes):
            if axis.is_plain:
                continue
            member = Member(use.value.name or "", d, use.key)
            for unit in _firsts(rows[id(axis.labels)], is_first):
                members.setdefault(unit, []).append(member)
    return members


def _firsts(rows: Rows, is_first: npt.NDArray[np.bool_]) -> list[int]:
    return list(np.unique(rows[is_first[rows]]).tolist())


def _marks(
    analysis: Analysis, is_first: npt.NDArray[np.bool_]
) -> tuple[dict[int, set[str]], dict[int, set[int]]]:
    """Tags and statistics of the first unit of each group."""
    kinds: dict[int, set[str]] = {}
    changes: dict[int, set[int]] = {}
    for axis, tag in analysis.facts.tags:
        for unit in _firsts(analysis.algebra.live(axis), is_first):
            kinds.setdefault(unit, set()).add(tag)
    for axis, reason, _ in analysis.facts.statistics:
        for unit in _firsts(analysis.algebra.live(axis), is_first):
            changes.setdefault(unit, set()).add(reason)
    return kinds, changes
