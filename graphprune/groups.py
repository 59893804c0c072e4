"""Groups: sets of interchangeable units, read off the finished algebra.

Two units belong to one group when they appear in the same places: the same axes of the same tensors, in the
same role (outer or inner factor), frozen for the same reason or not at all.  So every axis holds each of its
groups whole, and keeping one unit of each group keeps every tensor non-empty.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.algebra import Axis
from graphprune.analysis import Analysis, Use

#: Tags of the rules in order of precedence, and the kind they mean.
_KINDS = ("heads", "head_dim", "conv_groups", "norm_groups")
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
        kind: "channels", "heads", "head_dim", "conv_groups" or "norm_groups".
        units: ``[size]`` unit ids, in the order of the first parameter axis.
        members: parameter axes.
        changes: statistics that run over the group's axes; empty for an exact group.
        reason: why the group can't be pruned, None if it can.
    """

    id: str
    kind: str
    units: npt.NDArray[np.int32]
    members: tuple[Member, ...]
    changes: tuple[str, ...]
    reason: str | None

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
    signature = _signatures(analysis)
    members, order = _memberships(analysis)
    kinds, changes = _marks(analysis)
    by_signature: dict[int, list[int]] = {}
    for unit in order:
        by_signature.setdefault(int(signature[unit]), []).append(unit)
    groups, names = [], set()
    weights = {u.key for u in analysis.uses.values() if is_weight(u)}
    for units in by_signature.values():
        first = units[0]
        own = tuple(members[first])
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
                units=np.array(units, np.int32),
                members=own,
                changes=tuple(sorted({str(analysis.facts.reasons[r]) for r in changes.get(first, ())})),
                reason=str(analysis.facts.reasons[why]) if why else None,
            )
        )
    return groups


def is_weight(use: Use) -> bool:
    """Is this constant a parameter, and not a shape or an index?"""
    tensor = use.value.const_value
    integers = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)
    return tensor is not None and tensor.dtype not in integers


def _signatures(analysis: Analysis) -> npt.NDArray[np.uint64]:
    """A hash per unit of all the places (axis, column) where it stands, and of why it is frozen.

    Sums of random 64-bit numbers, one per place (Zobrist): equal sets give equal sums.
    """
    algebra = analysis.algebra
    rng = np.random.default_rng(0)
    total = np.zeros(len(algebra), np.uint64)
    for axis in all_axes(analysis):
        rows = algebra.resolve(axis)
        for column in range(rows.shape[1]):
            units = np.unique(rows[:, column])
            total[units] += rng.integers(1, 2**63, dtype=np.uint64)
    everything = np.arange(len(algebra), dtype=np.int32)
    why = algebra.frozen_for(everything).astype(np.uint64)
    return total + why * np.uint64(0x9E3779B97F4A7C15)


def _memberships(analysis: Analysis) -> tuple[dict[int, list[Member]], list[int]]:
    members: dict[int, list[Member]] = {}
    order: list[int] = []
    for use in analysis.uses.values():
        for d, axis in enumerate(use.axes):
            member = Member(use.value.name or "", d, use.key)
            rows = analysis.algebra.resolve(axis)
            units, first = np.unique(rows.reshape(-1), return_index=True)
            for unit in units[np.argsort(first, kind="stable")].tolist():
                if not unit:
                    continue
                if unit not in members:
                    members[unit] = []
                    order.append(unit)
                members[unit].append(member)
    return members, order


def _marks(analysis: Analysis) -> tuple[dict[int, set[str]], dict[int, set[int]]]:
    kinds: dict[int, set[str]] = {}
    changes: dict[int, set[int]] = {}
    for axis, tag in analysis.facts.tags:
        for unit in np.unique(analysis.algebra.live(axis)).tolist():
            kinds.setdefault(unit, set()).add(tag)
    for axis, reason, _ in analysis.facts.statistics:
        for unit in np.unique(analysis.algebra.live(axis)).tolist():
            changes.setdefault(unit, set()).add(reason)
    return kinds, changes
