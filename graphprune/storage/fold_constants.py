"""Fold what a graph computes from constants alone into initializers of the same name.

All such nodes run once, as one small graph. Only the values that the rest of the graph reads are
kept. Left alone are random ops, control flow, other domains, quantized weights (their scale is part
of the stored model), weights that are stored in fewer bits than they are used with, and results that
would blow the file up. A large weight in an external file that is only moved around (a Transpose for
every linear layer) is not read: its consumer gets a tensor that does this when it is asked for its
values.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import prod

import onnx_ir as ir

from graphprune.runtime import Fragment, evaluate, infer
from graphprune.storage.constants import READ_ELSEWHERE, drop_unused, is_constant, replace_by_constant

# A result may be this much larger than the constants that nobody needs once it is folded.  So a
# weight that is also used elsewhere stays tied to its transposed copy, and a relative-position table
# stays a table.
GROWTH_BYTES = 1 << 16
# External weights from this size on are moved around when they are read, not before.
LARGE_BYTES = 1 << 20

# Axes of a weight; vectors are few bytes.
MATRIX = 2

UNFOLDABLE = frozenset({
    "Bernoulli", "DequantizeLinear", "Dropout", "DynamicQuantizeLinear", "Multinomial",
    "QuantizeLinear", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
})  # fmt: skip

# Ops that only move elements: as cheap as reading them.
MOVING = frozenset({
    "Cast", "Concat", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose",
    "Unsqueeze",
})  # fmt: skip

Types = Mapping[str, tuple[ir.DataType, tuple[int, ...]]]


def fold_constants(model: ir.Model) -> None:
    """Replace what is computed from constants by initializers of the same name, in place."""
    graph = model.graph
    nodes = _constant_nodes(graph, blocked=())
    if not nodes:
        return
    types = infer(_fragment(model, nodes))
    blocked = _widening(nodes, types)
    if blocked:
        nodes = _constant_nodes(graph, blocked)
    while grown := _grown(nodes, types):
        blocked |= grown
        nodes = _constant_nodes(graph, blocked)
    frontier = {value.name: value for value in _frontier(nodes) if value.name}
    for name, value in list(frontier.items()):
        postponed = _postponed(model, value, types)
        if postponed is not None:
            replace_by_constant(graph, frontier.pop(name), postponed)
    results = evaluate(_fragment(model, nodes), list(frontier))
    for name, array in results.items():
        tensor = ir.tensor(array, name=name)
        if name not in types or types[name][0] == tensor.dtype:
            replace_by_constant(graph, frontier[name], tensor)
    for value in {v for node in nodes for v in node.inputs if v is not None and is_constant(v)}:
        value.meta[READ_ELSEWHERE] = True
    drop_unused(graph, nodes)


def _constant_nodes(graph: ir.Graph, blocked: Collection[ir.Node]) -> dict[ir.Node, None]:
    """Nodes that compute from constants alone, in order, without those that can't be folded."""
    found: dict[ir.Node, None] = {}
    for node in graph:
        reads_constants = all(v is None or is_constant(v) or v.producer() in found for v in node.inputs)
        if reads_constants and node not in blocked and _is_foldable(node):
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


def _grown(nodes: Collection[ir.Node], types: Types) -> set[ir.Node]:
    """Producers of results that would make the file larger."""
    grown: set[ir.Node] = set()
    for value in _frontier(nodes):
        if value.name is None or value.name not in types:
            continue
        dtype, shape = types[value.name]
        size = prod(shape) * dtype.bitwidth // 8
        producer = value.producer()
        if producer is not None and size > GROWTH_BYTES + _freed_bytes(producer, nodes):
            grown.add(producer)
    return grown


def _widening(nodes: Collection[ir.Node], types: Types) -> set[ir.Node]:
    """Casts of weights that are stored with fewer digits than they are used with: that is how they stay."""
    found: set[ir.Node] = set()
    for node in nodes:
        source, made = node.inputs[0] if node.inputs else None, types.get(node.outputs[0].name or "")
        if node.op_type != "Cast" or source is None or made is None or len(made[1]) < MATRIX:
            continue
        tensor = source.const_value
        kind = tensor.dtype if tensor is not None else types.get(source.name or "", (None, ()))[0]
        if kind is not None and kind.is_floating_point() and kind.bitwidth < made[0].bitwidth:
            found.add(node)
    return found


def _freed_bytes(node: ir.Node, nodes: Collection[ir.Node]) -> int:
    """Bytes of the distinct constants that ``node`` computes from and only ``nodes`` read."""
    sources = {value for inner in _closure(node) for value in inner.inputs if value is not None}
    return sum(
        value.const_value.nbytes
        for value in sources
        if value.const_value is not None
        and not value.is_graph_output()
        and all(use.node in nodes for use in value.uses())
    )


def _closure(node: ir.Node) -> set[ir.Node]:
    """``node`` and all nodes that it computes from."""
    found = {node}
    stack = [node]
    while stack:
        for value in stack.pop().inputs:
            producer = value.producer() if value is not None else None
            if producer is not None and producer not in found:
                found.add(producer)
                stack.append(producer)
    return found


def _postponed(model: ir.Model, value: ir.Value, types: Types) -> ir.LazyTensor | None:
    """A tensor that moves large external weights around when it is read; None for anything else."""
    name, producer = value.name or "", value.producer()
    if name not in types or producer is None:
        return None
    dtype, shape = types[name]
    closure = _closure(producer)
    if prod(shape) * dtype.bitwidth // 8 <= LARGE_BYTES or any(
        node.op_type not in MOVING for node in closure
    ):
        return None
    whole = _fragment(model, [node for node in model.graph if node in closure])
    if not any(isinstance(tensor, ir.ExternalTensor) for tensor in whole.tensors.values()):
        return None
    # The nodes themselves are taken apart when the graph drops them.
    protos = [ir.serde.serialize_node(node) for node in whole.nodes]
    fragment = Fragment([], whole.tensors, whole.opsets, whole.ir_version, protos)
    return ir.LazyTensor(
        lambda: ir.tensor(evaluate(fragment, [name])[name], name=name),
        dtype=dtype,
        shape=ir.Shape(shape),
        name=name,
    )


def _fragment(model: ir.Model, nodes: Collection[ir.Node]) -> Fragment:
    tensors = {
        value.name: value.const_value
        for node in nodes
        for value in node.inputs
        if value is not None and is_constant(value) and value.name and value.const_value is not None
    }
    return Fragment(list(nodes), tensors, model.opset_imports, model.ir_version or 8)
