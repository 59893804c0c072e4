"""Constants of a graph: what counts as one, and how a computed value becomes one."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

# Marks an output that nobody reads any more, of a node whose other outputs are read.
REPLACED_SUFFIX = "::replaced"
# Key in a value's `meta`: the file reads this constant in places that were folded into other constants.
READ_ELSEWHERE = "graphprune.read_elsewhere"


def is_constant(value: ir.Value | None) -> bool:
    """Whether ``value`` is an initializer that no caller can replace."""
    return value is not None and value.is_initializer() and not value.is_graph_input()


def replace_by_constant(graph: ir.Graph, value: ir.Value, tensor: ir.TensorProtocol) -> None:
    """Let every consumer of ``value`` read an initializer of the same name that holds ``tensor``.

    The producer stays until `drop_unused`; its output gives up the name.
    """
    name = value.name
    value.name = f"{name}{REPLACED_SUFFIX}"
    constant = ir.Value(
        name=name,
        shape=ir.Shape(tensor.shape.numpy()),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
        metadata_props=dict(value.metadata_props),
    )
    value.replace_all_uses_with(constant)
    graph.register_initializer(constant)


def drop_unused(graph: ir.Graph, nodes: Iterable[ir.Node]) -> None:
    """Remove those of ``nodes`` that nobody reads, and the constants that only they read.

    Args:
        graph: the graph that holds them, and the constants; some may stand in a body.
        nodes: in topological order.
    """
    for node in reversed(list(nodes)):
        if any(value.uses() or value.is_graph_output() for value in node.outputs):
            continue
        sources = [value for value in node.inputs if value is not None]
        (node.graph or graph).remove(node, safe=True)
        for value in sources:
            if is_constant(value) and not value.uses() and not value.is_graph_output():
                graph.initializers.pop(value.name or "", None)


def is_widened(node: ir.Node) -> bool:
    """Is a node the Cast of a weight that is stored with fewer digits than it is used with?"""
    source = node.inputs[0] if node.op_type == "Cast" and node.inputs else None
    tensor = source.const_value if source is not None and is_constant(source) else None
    if tensor is None or len(tensor.shape) < 2 or not tensor.dtype.is_floating_point():
        return False
    to = ir.DataType(node.attributes.get_int("to", 0))
    return to.is_floating_point() and to.bitwidth > tensor.dtype.bitwidth


def loaded(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """A tensor that is serialized with its numbers, wherever these are; nothing is copied."""
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor
    return ir.Tensor(
        tensor.numpy(),
        dtype=tensor.dtype,
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )


def is_matrix(value: ir.Value) -> bool:
    """More than one axis longer than 1, and not one number repeated: a real weight."""
    tensor = value.const_value
    if tensor is None or sum(n > 1 for n in tensor.shape.numpy()) < 2:
        return False
    if len(value.uses()) < 2:
        return True
    array = tensor.numpy()
    return bool((array != array.reshape(-1)[0]).any())
