"""Operators that onnxruntime has never heard of: taken out, so that what is around them can be run.

Two models are then compared piece by piece: what goes into the operator is an output of the piece before it,
and what comes out of it a random input of the piece behind it.  Nothing that touches such an operator
shrinks, unless the user declares its axes; the pruned model then gets and gives the kept positions.
"""

from __future__ import annotations

import onnx_ir as ir

from graphprune.model import Model
from graphprune.shapes.shape_values import reads
from graphprune.shapes.sizes import Interface
from graphprune.storage.unused import remove_unused

#: Domains whose operators onnxruntime brings along.
RUNTIME_DOMAINS = {
    "", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training", "com.microsoft",
    "com.microsoft.nchwc", "com.ms.internal.nhwc",
}  # fmt: skip


def foreign_nodes(graph: ir.Graph) -> list[ir.Node]:
    """Nodes that can't be run, or hold one in a body."""
    return [node for node in graph if not is_runnable(node)]


def is_runnable(node: ir.Node) -> bool:
    """Does onnxruntime know this operator, and those in its bodies?"""
    if node.domain not in RUNTIME_DOMAINS:
        return False
    bodies: list[ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            bodies.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            bodies.extend(attribute.as_graphs())
    return all(is_runnable(inner) for body in bodies for inner in body)


def runnable(model: Model) -> Model:
    """The model without the nodes that onnxruntime does not know, and what can't be fed without them.

    Returns:
        ``model`` itself when all of it can be run; else a copy with further inputs and outputs.
    """
    if not foreign_nodes(model.ir.graph):
        return model
    copy = model.clone()
    graph = copy.ir.graph
    known = {dim.name for dim in Interface(copy.ir).dims}
    unfed: set[ir.Value] = set()
    for node in list(graph):
        is_foreign = not is_runnable(node)
        if not is_foreign and unfed.isdisjoint(reads(node)):
            continue
        if is_foreign:
            _expose(graph, [v for v in reads(node) if v not in unfed and v.producer() is not None])
        for value in node.outputs:
            if is_foreign and _can_be_fed(value, known):
                _feed(graph, value)
            else:
                unfed.add(value)
    _drop_outputs(graph, unfed)
    remove_unused(copy.ir)
    return copy


def _expose(graph: ir.Graph, values: list[ir.Value]) -> None:
    for value in values:
        if not value.is_graph_output():
            graph.outputs.append(value)


def _drop_outputs(graph: ir.Graph, values: set[ir.Value]) -> None:
    kept = [v for v in graph.outputs if v not in values]
    graph.outputs.clear()
    graph.outputs.extend(kept)


def _can_be_fed(value: ir.Value, known: set[str]) -> bool:
    """Are its type and shape declared, in terms of the model's own symbolic dims?"""
    if value.dtype is None or value.shape is None:
        return False
    return all(isinstance(size, int) or size.value in known for size in value.shape)


def _feed(graph: ir.Graph, value: ir.Value) -> None:
    fed = ir.Value(name=value.name, type=value.type, shape=value.shape)
    value.name = f"{value.name}/not_run"
    _drop_outputs(graph, {value})
    value.replace_all_uses_with(fed)
    graph.inputs.append(fed)
