"""What the rules alone don't see: axes that nothing computes, and tensors that could lose everything."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from graphprune.algebra import Axis
from graphprune.rules.context import Reason

if TYPE_CHECKING:
    from graphprune.analysis import Analysis


def keep_nonempty(analysis: Analysis) -> None:
    """Freezes one position of each axis that could lose all, though each group keeps a unit.

    Rows that are all pairs of some units can't: one of each is left.  A piece of a product that ends
    inside a factor (``heads x dims`` sliced in the middle of a head) can.
    """
    for axis, count, _ in analysis.facts.minimums:  # lives of tensors that something needs, among others
        rows = analysis.algebra.live(axis)
        if rows.shape[1] > 1 and rows[:, 0].all() and not _is_product(rows):
            first = replace(axis, labels=rows[:count])
            analysis.freeze(first, Reason("without these, nothing might be left of a tensor"))
    for axis in _distinct_axes(analysis):
        rows = analysis.algebra.live(axis)
        if rows.shape[1] < 2 or not rows[:, 0].all():
            continue
        counts = (rows > 0).sum(axis=1)
        if not any(_is_product(rows[counts == k]) for k in np.arange(rows.shape[1]) + 1):
            first = replace(axis, labels=rows[:1])
            analysis.freeze(first, Reason("without this position, nothing might be left of a tensor"))


def _distinct_axes(analysis: Analysis) -> list[Axis]:
    """Axes of all values, one for each set of labels: many an operator passes an axis on as it is."""
    every = [*analysis.axes.values(), analysis.facts.inside]
    return list({id(axis.labels): axis for axes in every for axis in axes if not axis.is_plain}.values())


def freeze_unseen(analysis: Analysis) -> None:
    """A parameter axis that no value has: whatever its rule sums there, nothing can be cut with it."""
    seen = np.zeros(len(analysis.algebra), bool)
    for axis in _distinct_axes(analysis):
        seen[analysis.algebra.live(axis)] = True
    for use in analysis.uses.values():
        for axis in use.axes:
            rows = analysis.algebra.live(axis)
            is_seen = seen[rows]
            if not is_seen.all() and (unseen := np.where(is_seen, 0, rows)).any():
                node = use.node
                reason = Reason("no tensor but this parameter has the axis", node.name or "", node.op_type)
                analysis.freeze(replace(axis, labels=unseen), reason)


def _is_product(rows: npt.NDArray[np.int32]) -> bool:
    """Are these rows all combinations of their columns' units?"""
    if not len(rows):
        return False
    columns = [np.unique(column) for column in rows.T]
    expected = prod(max(int(np.count_nonzero(units)), 1) for units in columns)
    if expected > len(rows):
        return False
    code = np.zeros(len(rows), np.int64)
    for units, column in zip(columns, rows.T, strict=True):
        code = code * len(units) + np.searchsorted(units, column)
    return len(np.unique(code)) == expected
