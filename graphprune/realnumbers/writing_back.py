"""New numbers of a stand-in, written into the file's model in the types that it has."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from graphprune.model import Model
from graphprune.names import unique_name
from graphprune.passes.compensators.slots import write
from graphprune.realnumbers.places import Array, Place
from graphprune.realnumbers.requantizing import place_is_quantized, requantize
from graphprune.storage.constants import is_constant

#: Constants by ``OUTPUT_NAME:INPUT_INDEX`` of the node that reads them.
Constants = Mapping[str, ir.TensorProtocol]


def constants_of(model: Model) -> dict[str, ir.TensorProtocol]:
    """The constants of a model's main graph, at each place where they are read."""
    found = {}
    for node in model.ir.graph:
        for i, value in enumerate(node.inputs):
            if value is not None and is_constant(value) and value.const_value is not None:
                found[f"{node.outputs[0].name}:{i}"] = value.const_value
    return found


def write_back(model: Model, before: Constants, after: Constants, places: Mapping[str, Place]) -> None:
    """Writes what has changed between two states of a stand-in into the file's model.

    Args:
        model: is changed.
        before: constants of the stand-in, cut.
        after: the same with new numbers.
        places: for those that the file keeps elsewhere, where; the others stand where they are read.
    """
    nodes = {node.outputs[0].name or "": node for node in model.ir.graph if node.outputs}
    found: dict[tuple[ir.Node, int], Array] = {}
    for key, tensor in after.items():
        if before.get(key) is tensor:
            continue
        place = places.get(key)
        name, _, index = (place.key if place is not None else key).rpartition(":")
        node = nodes.get(name)
        if node is not None and (node, int(index)) not in found:  # further readers have the same numbers
            found[node, int(index)] = tensor.numpy()
    graph = model.ir.graph
    integers = {place: np.asarray(a, np.float64) for place, a in found.items() if place_is_quantized(*place)}
    requantize(graph, integers)
    for (node, i), numbers in found.items():
        if (node, i) not in integers:
            _write(graph, node, i, numbers)


def _write(graph: ir.Graph, node: ir.Node, i: int, numbers: Array) -> None:
    value = node.inputs[i] if i < len(node.inputs) else None
    if value is None:
        _add(graph, node, i, numbers)
    elif is_constant(value) and value.const_value is not None:
        shape = tuple(value.const_value.shape.numpy())
        write(graph, node, i, np.asarray(numbers, np.float64).reshape(shape))


def _add(graph: ir.Graph, node: ir.Node, i: int, numbers: Array) -> None:
    """A bias that the node did not have, in the type of its weight."""
    value = node.inputs[1]
    weight = value.const_value if value is not None and is_constant(value) else None
    if weight is None or not weight.dtype.is_floating_point():
        return
    name = unique_name(graph, f"{node.outputs[0].name}/bias")
    array = np.asarray(numbers.astype(weight.dtype.numpy()), order="C")
    tensor = ir.Tensor(array, dtype=weight.dtype, name=name)
    new = ir.Value(
        name=name, type=ir.TensorType(weight.dtype), shape=ir.Shape(array.shape), const_value=tensor
    )
    graph.register_initializer(new)
    if len(node.inputs) <= i:
        node.resize_inputs(i + 1)
    node.replace_input_with(i, new)
