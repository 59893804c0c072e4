"""Gives each residual branch and each layer of equal shape a unit of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from graphprune.algebra import Algebra, Axis, merge
from graphprune.blocks import Block, Span, SpanFinder, is_stored_weight
from graphprune.storage.constants import is_matrix

if TYPE_CHECKING:
    from graphprune.analysis import Analysis


def find_blocks(analysis: Analysis, sums: Iterable[ir.Node]) -> None:
    """Adds ``blocks`` to a finished analysis, and to ``spans`` the nodes that die with a unit.

    Args:
        analysis: after all rules.
        sums: nodes that add tensors of the result's shape.
    """
    lives, algebra = analysis.lives, analysis.algebra
    holders = {use.node for use in analysis.uses.values() if is_matrix(use.value)}
    stored = [node for node in holders if is_stored_weight(node)]
    holders |= {reader for node in stored for reader, _ in node.outputs[0].uses()}
    weighted = holders & analysis.contractions
    finder = SpanFinder(analysis.model.ir.graph, analysis.trace, weighted)
    for (user, i), life in lives.drops.items():
        units = algebra.live(life)
        if units.shape == (1, 1) and units[0, 0]:
            value = user.inputs[i]
            assert value is not None
            unit = int(units[0, 0])
            analysis.spans[unit] = (*analysis.spans.get(unit, ()), *finder.exclusive(value, user))
    for total in sums:
        span = finder.branch(total)
        names = [value.name or "" for value in total.outputs]
        mortal = any(_can_die(algebra, lives.of[name].axis) for name in names if name in lives.of)
        if span is None or span.user is None or mortal:
            continue  # a sum of parts that can die one by one is no place for another choice
        drop = lives.drops.get(span.user)
        if drop is not None and not _can_die(algebra, drop):
            drop = None
        if drop is None or drop.size > 1:  # else it is known by that unit already
            piece = _add_block(analysis, span)
            lives.drops[span.user] = piece if drop is None else merge([drop, piece])
    inside = {node for nodes in analysis.spans.values() for node in nodes}
    for span in finder.layers():
        if inside.isdisjoint(span.nodes) and _stays_zero(analysis, span):
            _add_block(analysis, span)


def _can_die(algebra: Algebra, life: Axis) -> bool:
    """Are there units without which nothing of it is left?  What an output needs has frozen ones."""
    rows = algebra.live(life)
    return bool(rows.shape[1]) and bool((rows > 0).any(axis=1).all())


def _stays_zero(analysis: Analysis, layer: Span) -> bool:
    """Is the input zero wherever what reads the output counts on zeros?"""
    assert layer.instead is not None
    ends = [analysis.axes.get(v.name or "") for v in (layer.instead, layer.value)]
    if ends[0] is None or ends[1] is None:
        return False
    return all(a.zero or a.is_plain or not b.zero for a, b in zip(ends[0], ends[1], strict=True))


def _add_block(analysis: Analysis, span: Span) -> Axis:
    piece = analysis.algebra.fresh(2).take(np.arange(1))
    unit = int(piece.labels[0, 0])
    analysis.blocks.append(Block(span.nodes, span.value, span.user, span.instead, unit))
    analysis.spans[unit] = span.nodes
    return piece
