"""Depth: residual branches and layers of equal shape, each removable as a whole.

A **residual branch** is an operand of a sum that hangs on nothing else: its nodes feed this operand only, and
start from a value that the rest of the sum comes from as well.  Without it the sum is what it was with the
branch at zero.  A **layer** is a stretch of a chain with a weight and equal shapes at both ends; without it
its input takes the place of its output.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush

import onnx_ir as ir

from graphprune.lives import ZERO_IF_ANY, ZERO_IF_FIRST
from graphprune.quantization import QUANTIZED, RESULTS
from graphprune.shapes.trace import Trace
from graphprune.storage.constants import is_constant

#: A scale and a shift of weights behind whatever is computed.
_SCALED = {
    "BatchNormalization", "InstanceNormalization", "GroupNormalization", "LayerNormalization",
    "RMSNormalization", "SimplifiedLayerNormalization",
}  # fmt: skip


#: Zero is still zero behind them, or what stands for zero.
_KEEPS_ZERO = frozenset({"QuantizeLinear", "DequantizeLinear"})
#: They make integers that stand for data.
_QUANTIZERS = frozenset({"QuantizeLinear", "DynamicQuantizeLinear"})


@dataclass(frozen=True)
class Span:
    """Nodes that can go together.

    Attributes:
        nodes: in the order of the graph.
        value: what they make for the rest of the graph.
        user: the sum that reads it, and where; None for a layer.
        instead: the value that takes its place; None for a branch, whose sum works without it.
    """

    nodes: tuple[ir.Node, ...]
    value: ir.Value
    user: tuple[ir.Node, int] | None
    instead: ir.Value | None


@dataclass(frozen=True)
class Block(Span):
    """A span with the unit that stands for it."""

    unit: int = 0


class SpanFinder:
    """Finds branches and layers.

    Args:
        graph: main graph.
        trace: shapes.
        weighted: nodes with a weight matrix.
    """

    def __init__(self, graph: ir.Graph, trace: Trace, weighted: set[ir.Node]) -> None:
        self._graph, self._trace, self._weighted = graph, trace, weighted
        self._order = {node: i for i, node in enumerate(graph)}

    def branch(self, total: ir.Node) -> Span | None:
        """The largest residual branch of a sum of tensors of one shape."""
        found = []
        for i, value in enumerate(total.inputs):
            if value is None or value.producer() is None:
                continue
            nodes = self.exclusive(value, total)
            others = [v for j, v in enumerate(total.inputs) if j != i and v is not None]
            if (
                nodes
                and self._is_zero_without_weights(nodes, value)
                and any(node in self._weighted for node in nodes)
                and all(not is_constant(v) for v in others)
                and self._share_source(nodes, others)
            ):
                found.append(Span(tuple(nodes), value, (total, i), None))
        return max(found, key=lambda span: len(span.nodes), default=None)

    def exclusive(self, value: ir.Value, user: ir.Node) -> list[ir.Node]:
        """Nodes that only this operand needs, in order."""
        inside: set[ir.Node] = set()
        by_position: dict[int, ir.Node] = {}
        queue: list[int] = []

        def add(v: ir.Value | None) -> None:
            node = v.producer() if v is not None else None
            position = self._order.get(node) if node is not None else None
            if node is not None and position is not None and position not in by_position:
                by_position[position] = node
                heappush(queue, -position)

        add(value)
        while queue:  # last nodes first, so that all readers of a node are decided before it
            node = by_position[-heappop(queue)]
            if all(self._only_feeds(v, inside, user, value) for v in node.outputs):
                inside.add(node)
                for v in node.inputs:
                    add(v)
        return sorted(inside, key=self._order.__getitem__)

    def _is_zero_without_weights(self, nodes: list[ir.Node], value: ir.Value) -> bool:
        """Would the branch be zero if all of its weights were?  Else more goes with it than they make."""
        zero: set[ir.Value] = set()
        for node in nodes:
            inputs = [v for v in node.inputs if v is not None]
            here = [v in zero or _is_weight(v) for v in inputs]
            if (
                node in self._weighted
                or is_stored_weight(node)
                or (node.op_type in _KEEPS_ZERO and here[:1] == [True])
                or (node.op_type in _SCALED and all(here[1:]))
                or (node.op_type in ZERO_IF_ANY and any(here))
                or (node.op_type in ZERO_IF_FIRST and here[:1] == [True])
                or (node.op_type in ("Add", "Sum", "Sub", "Concat") and all(here))
            ):
                zero.update(node.outputs)
        return value in zero

    @staticmethod
    def _only_feeds(v: ir.Value, inside: set[ir.Node], user: ir.Node, value: ir.Value) -> bool:
        if v.is_graph_output():
            return False
        if v is value:
            return len(v.uses()) == 1 and next(iter(v.uses()))[0] is user
        return all(node in inside for node, _ in v.uses())

    def _share_source(self, nodes: list[ir.Node], others: list[ir.Value]) -> bool:
        """Do the branch and the other operands come from one value?"""
        inside = set(nodes)
        sources = {
            v
            for node in nodes
            if node.op_type not in ("Shape", "Size")
            for v in node.inputs
            if v is not None and not is_constant(v) and v.producer() not in inside and _is_data(v)
        }
        if not sources:
            return False
        first = min(self._position(v) for v in sources)
        seen: set[ir.Value] = set()
        todo = list(others)
        while todo:
            v = todo.pop()
            if v in sources:
                return True
            node = v.producer()
            if v in seen or node is None or self._position(v) <= first:
                continue
            seen.add(v)
            todo.extend(i for i in node.inputs if i is not None and _is_data(i))
        return False

    def _position(self, value: ir.Value) -> int:
        node = value.producer()
        return -1 if node is None else self._order.get(node, -1)

    def layers(self) -> Iterator[Span]:
        """Stretches of chains with one weight, and equal shapes at both ends."""
        for node in self._graph:
            source = self._sole_input(node)
            if node not in self._weighted or source is None or len(source.uses()) != 1:
                continue
            chain, best, v = [node], 0, node.outputs[0]
            while True:
                if self._same_shape(source, v):
                    best = len(chain)
                users = list(v.uses())
                if len(users) != 1 or v.is_graph_output():
                    break
                following = users[0][0]
                if following in self._weighted or self._sole_input(following) is None:
                    break
                if following.graph is not self._graph:
                    break
                chain.append(following)
                v = following.outputs[0]
            if best and not chain[best - 1].outputs[0].is_graph_output():
                yield Span(tuple(chain[:best]), chain[best - 1].outputs[0], None, source)

    @staticmethod
    def _sole_input(node: ir.Node) -> ir.Value | None:
        """The one computed input of a node with one used output, both written as the same kind of numbers."""
        if node.op_type == "Cast" or node.op_type in RESULTS or (node.op_type, 0) in QUANTIZED:
            return None
        inputs = [v for v in node.inputs if v is not None and not is_constant(v)]
        used = [v for v in node.outputs if v.uses() or v.is_graph_output()]
        single = len(inputs) == 1 and used == [node.outputs[0]] and _is_float(inputs[0])
        return inputs[0] if single else None

    def _same_shape(self, a: ir.Value, b: ir.Value) -> bool:
        if a.dtype != b.dtype:
            return False
        shapes = (self._trace.shapes, self._trace.nominal)
        return all(
            s.get(a.name or "") is not None and s.get(a.name or "") == s.get(b.name or "") for s in shapes
        )


def is_stored_weight(node: ir.Node) -> bool:
    """Is a node all that stands between a weight in the file and the numbers that are used?"""
    return node.op_type in ("Cast", "DequantizeLinear") and is_constant(node.inputs[0])


def _is_data(value: ir.Value) -> bool:
    """Floating-point numbers, perhaps quantized."""
    producer = value.producer()
    return _is_float(value) or (producer is not None and producer.op_type in _QUANTIZERS)


def _is_weight(value: ir.Value) -> bool:
    tensor = value.const_value
    return is_constant(value) and tensor is not None and tensor.dtype.is_floating_point()


def _is_float(value: ir.Value) -> bool:
    return value.dtype is None or value.dtype.is_floating_point()
