"""Fold what a graph computes from constants alone into initializers of the same name.

All such nodes run once, as one small graph. Only the values that the rest of the graph reads are
kept. Left alone are random ops, control flow, other domains, quantized weights (their scale is part
of the stored model), and results that would blow the file up.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import prod

import onnx_ir as ir

from graphprune.constants import drop_unused, is_constant, replace_by_constant
from graphprune.runtime import Fragment, evaluate, infer

# A result this large may be at most GROWTH times the constants that it is made of.
LARGE_BYTES = 1 << 20
GROWTH = 2

UNFOLDABLE = frozenset({
    "Bernoulli", "DequantizeLinear", "Dropout", "DynamicQuantizeLinear", "Multinomial",
    "QuantizeLinear", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
})  # fmt: skip


def fold_constants(model: ir.Model) -> None:
    """Replace what is computed from constants by initializers of the same name, in place."""
    graph = model.graph
    nodes = _constant_nodes(graph, blocked=())
    if not nodes:
        return
    types = infer(_fragment(model, nodes))
    blocked: set[ir.Node] = set()
    while grown := _grown(nodes, types):
        blocked |= grown
        nodes = _constant_nodes(graph, blocked)
    frontier = {value.name: value for value in _frontier(nodes) if value.name}
    results = evaluate(_fragment(model, nodes), list(frontier))
    for name, array in results.items():
        tensor = ir.tensor(array, name=name)
        if name not in types or types[name][0] == tensor.dtype:
            replace_by_constant(graph, frontier[name], tensor)
    drop_unused(graph, nodes)


def _constant_nodes(graph: ir.Graph, blocked: Collection[ir.Node]) -> dict[ir.Node, None]:
    """Nodes that compute from constants alone, in order, without those that can't be folded."""
    found: dict[ir.Node, None] = {}
    for node in graph:
        if node in blocked or not _is_foldable(node):
            continue
        inputs = [value for value in node.inputs if value is not None]
        if all(is_constant(value) or value.producer() in found for value in inputs):
            found[node] = None
    return found


def _is_foldable(node: ir.Node) -> bool:
    return (
        node.domain == ""
        and node.op_type not in UNFOLDABLE
        and not node.op_type.startswith(("Sequence", "Optional", "SplitToSequence", "ConcatFromSequence"))
        and not any(_holds_graph(attribute) for attribute in node.attributes.values())
        and not any(value.is_graph_output() for value in node.outputs)
        and not any(isinstance(value.type, ir.SequenceType) for value in node.outputs)
    )


def _holds_graph(attribute: ir.Attr) -> bool:
    return attribute.type in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}


def _frontier(nodes: Collection[ir.Node]) -> list[ir.Value]:
    """Values that ``nodes`` compute and other nodes read."""
    return [
        value
        for node in nodes
        for value in node.outputs
        if any(use.node not in nodes for use in value.uses())
    ]


def _grown(
    nodes: Collection[ir.Node], types: Mapping[str, tuple[ir.DataType, tuple[int, ...]]]
) -> set[ir.Node]:
    """Producers of results that are large, and much larger than what they are made of."""
    grown: set[ir.Node] = set()
    for value in _frontier(nodes):
        if value.name not in types:
            continue
        dtype, shape = types[value.name]
        size = prod(shape) * dtype.bitwidth // 8
        producer = value.producer()
        if size > LARGE_BYTES and producer is not None and size > GROWTH * _root_bytes(producer):
            grown.add(producer)
    return grown


def _root_bytes(node: ir.Node) -> int:
    """Bytes of the distinct constants that ``node`` computes from."""
    seen: set[ir.Value] = set()
    stack = [node]
    while stack:
        for value in stack.pop().inputs:
            if value is None or value in seen:
                continue
            seen.add(value)
            producer = value.producer()
            if producer is not None:
                stack.append(producer)
    return sum(value.const_value.nbytes for value in seen if value.const_value is not None)


def _fragment(model: ir.Model, nodes: Collection[ir.Node]) -> Fragment:
    tensors = {
        value.name: value.const_value
        for node in nodes
        for value in node.inputs
        if is_constant(value) and value.name and value.const_value is not None
    }
    return Fragment(list(nodes), tensors, model.opset_imports, model.ir_version or 8)
