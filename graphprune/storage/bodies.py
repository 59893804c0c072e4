"""The bodies of If, Loop and Scan: one name space with the graph around them, and no constants of their own.

ONNX lets sibling bodies use the same names.  Here every value is looked up by name, so a name that is
taken already gets the output of the node that holds the body in front.  Constants of a body move out to the
main graph, which the body may read: from then on a weight is a weight, wherever it is used.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from graphprune.names import share_names
from graphprune.shapes.bodies import SCAN_WITHOUT_BATCH
from graphprune.storage.constants import replace_by_constant


def bodies(node: ir.Node) -> Iterator[tuple[str, ir.Graph]]:
    """Bodies that a node holds, with the names of their attributes."""
    for name, attribute in node.attributes.items():
        if attribute.type == ir.AttributeType.GRAPH:
            yield name, attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            for number, graph in enumerate(attribute.as_graphs()):
                yield f"{name}_{number}", graph


def normalise_bodies(model: ir.Model) -> None:
    """Give every value of every body a name of its own, and move the bodies' constants out, in place."""
    root = model.graph
    holders = [node for node in root if next(bodies(node), None) is not None]
    if not holders:
        return
    taken = {value.name for value in _values(root)}
    for node in holders:
        _rename(node, taken)
    inner = [graph for graph in root.subgraphs() if graph is not root]
    for graph in inner:
        _move_constants(root, graph)
    opset = int(model.opset_imports[""])
    for node in root.all_nodes():
        # An older Scan has a batch axis, which its body does not see, and lengths as its first input.
        is_read = node.op_type == "Loop" or (node.op_type == "Scan" and opset >= SCAN_WITHOUT_BATCH)
        if is_read and node.domain == "":
            _read_from_outside(node)
    share_names(root)


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from (v for v in list(graph.initializers.values()) if not v.is_graph_input())
    for node in graph:
        yield from node.outputs


def _rename(holder: ir.Node, taken: set[str | None]) -> None:
    for attribute, graph in bodies(holder):
        prefix = f"{holder.outputs[0].name}.{attribute}"
        for value in _values(graph):
            if not value.name:
                continue
            name, number = value.name, 1
            while name in taken:
                name = f"{prefix}/{value.name}" + (f"_{number}" if number > 1 else "")
                number += 1
            taken.add(name)
            value.name = name
        for node in graph:
            _rename(node, taken)


def _move_constants(root: ir.Graph, graph: ir.Graph) -> None:
    for node in list(graph):
        if node.op_type != "Constant" or node.domain != "" or node.outputs[0].is_graph_output():
            continue
        attribute = node.attributes.get("value")
        if attribute is not None and attribute.type == ir.AttributeType.TENSOR:
            replace_by_constant(root, node.outputs[0], attribute.value)
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.is_graph_input() and not value.is_graph_output():
            graph.initializers.pop(name)
            root.register_initializer(value)


def _read_from_outside(node: ir.Node) -> None:
    """What a loop hands from iteration to iteration unchanged is read where it comes from.

    Some exporters pass all weights like this.
    """
    body = node.attributes["body"].as_graph()
    is_loop = node.op_type == "Loop"
    sources, inner = (node.inputs[2:], body.inputs[2:]) if is_loop else (node.inputs, body.inputs)
    results = body.outputs[1:] if is_loop else body.outputs
    scanned = 0 if is_loop else node.attributes["num_scan_inputs"].as_int()
    states = inner[: len(inner) - scanned]
    for source, value, result in zip(sources, states, results, strict=False):
        copier = result.producer()
        copies = copier is not None and copier.op_type == "Identity" and copier.inputs[0] is value
        if source is not None and (copies or result is value):
            for reader, i in list(value.uses()):
                if reader is not copier:
                    reader.replace_input_with(i, source)
