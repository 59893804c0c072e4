"""Which nodes are left once some units are removed: what no output needs any more is dead."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.analysis import Analysis
from graphprune.label_rows import widen
from graphprune.shapes.shape_values import subgraphs

Removed = npt.NDArray[np.bool_]
#: An operand: a node and the number of its input.
Edge = tuple[ir.Node, int]


class Deaths:
    """Answers for any set of removed units which operands are dropped and which nodes die.

    Args:
        analysis: of the model.
    """

    def __init__(self, analysis: Analysis) -> None:
        self._graph = analysis.model.ir.graph
        self._edges = list(analysis.lives.drops)
        lives = [analysis.algebra.live(axis) for axis in analysis.lives.drops.values()]
        width = max((rows.shape[1] for rows in lives), default=0)
        self._rows = np.concatenate([np.zeros((0, width), np.int32), *(widen(rows, width) for rows in lives)])
        self._starts = np.cumsum([0, *(len(rows) for rows in lives)])[:-1]
        self._layers = [block for block in analysis.blocks if block.instead is not None]
        self._holders = {node for node in self._graph if subgraphs(node)}
        self._known: dict[tuple[frozenset[Edge], frozenset[ir.Value]], set[ir.Node]] = {}

    def dropped(self, removed: Removed) -> set[Edge]:
        """Operands ``(node, input)`` that are left out."""
        dead = removed[self._rows].any(axis=1)
        if not dead.any():
            return set()
        gone = np.logical_and.reduceat(dead, self._starts)
        return {self._edges[i] for i in np.flatnonzero(gone).tolist()}

    def bypassed(self, removed: Removed) -> dict[ir.Value, ir.Value]:
        """Values of removed layers, and what stands in for them."""
        found = {}
        for block in self._layers:
            if removed[block.unit] and block.instead is not None:
                found[block.value] = block.instead
        return {value: _last(found, value) for value in found}

    def living(self, removed: Removed) -> set[ir.Node] | None:
        """Nodes that an output still needs; None if these are the same as before."""
        dropped, bypassed = self.dropped(removed), self.bypassed(removed)
        if not dropped and not bypassed:
            return None
        key = (frozenset(dropped), frozenset(bypassed))
        if key not in self._known:  # a search asks for many widths, and the same few sets of layers
            self._known[key] = self._walk(dropped, bypassed)
        return self._known[key]

    def _walk(self, dropped: set[Edge], bypassed: dict[ir.Value, ir.Value]) -> set[ir.Node]:
        found: set[ir.Node] = set()
        todo = list(self._graph.outputs)
        while todo:
            value = bypassed.get(todo[-1], todo[-1])
            todo.pop()
            node = value.producer()
            if node is None or node in found or node.graph is not self._graph:
                continue
            found.add(node)
            todo.extend(v for i, v in enumerate(node.inputs) if v is not None and (node, i) not in dropped)
            if node in self._holders:
                found.update(inner for body in subgraphs(node) for inner in body.all_nodes())
                todo.extend(_captured(node))
        return found


def settle(analysis: Analysis, removed: Removed) -> Removed:
    """Gives units back until both ends of every removed layer keep the same positions.

    Args:
        analysis: of the model.
        removed: ``[len(algebra)]`` mask over units; not changed.
    """
    layers = [b for b in analysis.blocks if b.instead is not None and removed[b.unit]]
    removed = removed.copy() if layers else removed
    changed = bool(layers)
    while changed:
        changed = False
        for block in layers:
            assert block.instead is not None
            ends = [analysis.axes[v.name or ""] for v in (block.instead, block.value)]
            for pair in zip(*ends, strict=True):
                rows = [analysis.algebra.live(axis) for axis in pair]
                first, second = (np.asarray(removed[r].any(axis=1), bool) for r in rows)
                for labels, ahead in ((rows[0], first & ~second), (rows[1], second & ~first)):
                    back = labels[ahead]
                    changed |= bool(len(back))
                    removed[back] = False
    return removed


def _last(instead: dict[ir.Value, ir.Value], value: ir.Value) -> ir.Value:
    while value in instead:
        value = instead[value]
    return value


def _captured(node: ir.Node) -> list[ir.Value]:
    """Values that bodies of a node read from outside."""
    found: list[ir.Value] = []
    for attr in node.attributes.values():
        graphs = [attr.as_graph()] if attr.type == ir.AttributeType.GRAPH else []
        graphs += list(attr.as_graphs()) if attr.type == ir.AttributeType.GRAPHS else []
        for graph in graphs:
            for inner in graph.all_nodes():
                found.extend(v for v in inner.inputs if v is not None)
            found.extend(graph.outputs)
    return found
