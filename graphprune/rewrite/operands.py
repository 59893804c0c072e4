"""Nodes without their dead operands, and layers without their weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir


def drop_operands(nodes: Mapping[ir.Node, ir.Node], dropped: Iterable[tuple[ir.Node, int]]) -> None:
    """Leaves dead operands out: a sum or Concat of what is left, a Scatter's data.

    Args:
        nodes: of the original -> of the model being rewritten.
        dropped: ``(node, input)`` of the original.
    """
    gone: dict[ir.Node, set[int]] = {}
    for node, i in dropped:
        gone.setdefault(node, set()).add(i)
    for old, indices in gone.items():
        node = nodes[old]
        left = [v for i, v in enumerate(node.inputs) if i not in indices and v is not None]
        if node.op_type.startswith("Scatter"):
            left = left[:1]
        if len(left) == 1:
            _replace(node.outputs[0], left[0])
        else:
            for i, value in enumerate(left):
                node.replace_input_with(i, value)
            node.resize_inputs(len(left))


def bypass_layers(nodes: Mapping[ir.Node, ir.Node], bypassed: Mapping[ir.Value, ir.Value]) -> None:
    """Puts each layer's input in the place of its output."""
    for old, old_source in bypassed.items():
        producer, source = old.producer(), old_source.producer()
        assert producer is not None
        value = nodes[producer].outputs[old.index() or 0]
        graph = nodes[producer].graph
        assert isinstance(graph, ir.Graph)
        if source is not None:
            new = nodes[source].outputs[old_source.index() or 0]
        else:
            new = next(v for v in graph.inputs if v.name == old_source.name)
        _replace(value, new)


def _replace(value: ir.Value, other: ir.Value) -> None:
    """``other`` for all readers of ``value``; an output of the model keeps its name."""
    for node, i in list(value.uses()):
        node.replace_input_with(i, other)
    if value.is_graph_output():
        producer = value.producer()
        assert producer is not None
        graph = producer.graph
        assert isinstance(graph, ir.Graph)
        copy = ir.node("Identity", [other])
        copy.outputs[0].name = f"{value.name}/kept"
        copy.outputs[0].type, copy.outputs[0].shape = value.type, value.shape
        graph.append(copy)
        for i, output in enumerate(graph.outputs):
            if output is value:
                graph.outputs[i] = copy.outputs[0]
        name, value.name = value.name, f"{value.name}/dropped"
        copy.outputs[0].name = name
