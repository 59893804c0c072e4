"""An If whose condition is known is one of its branches: the nodes of that branch take its place."""

from __future__ import annotations

import onnx_ir as ir

from graphprune.storage.constants import is_constant


def inline_known_branches(graph: ir.Graph) -> bool:
    """Replace every If with a constant condition by the branch that it takes, in place.

    Returns:
        Whether there was one.
    """
    found = False
    for node in list(graph.all_nodes()):
        if node.op_type != "If" or node.domain != "":
            continue
        condition = node.inputs[0]  # None inside a branch that was not taken
        if is_constant(condition) and condition is not None and condition.const_value is not None:
            taken = bool(condition.const_value.numpy().reshape(-1)[0])
            _inline(node, "then_branch" if taken else "else_branch")
            found = True
    return found


def _inline(node: ir.Node, branch: str) -> None:
    outer = node.graph
    assert isinstance(outer, ir.Graph)
    body = node.attributes[branch].as_graph()
    results = list(body.outputs)
    body.outputs.clear()
    for name, value in list(body.initializers.items()):
        body.initializers.pop(name)
        outer.register_initializer(value)
    inner = list(body)
    body.remove(inner)
    outer.insert_before(node, inner)
    for value, result in zip(node.outputs, results, strict=True):
        if not value.is_graph_output():
            value.replace_all_uses_with(result)
            continue
        output = value.name
        value.name = f"{output}/branch"
        copy = ir.node("Identity", [result], name=output)
        copy.outputs[0].name = output
        copy.outputs[0].type, copy.outputs[0].shape = value.type, value.shape
        outer.insert_before(node, copy)
        value.replace_all_uses_with(copy.outputs[0], replace_graph_outputs=True)
    outer.remove(node)
    _detach(node)


def _detach(node: ir.Node) -> None:
    """A node that is gone, and what its bodies hold, reads nothing any more."""
    bodies = [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]
    for inner in [node, *(n for body in bodies for n in body.all_nodes())]:
        for i in range(len(inner.inputs)):
            inner.replace_input_with(i, None)
