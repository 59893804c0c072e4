"""Trained numbers back into an ONNX model, by initializer name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir
import torch
from graphprune.converters.torch_graph.weights import Weight, constants_of

from graphprune.errors import ModelError
from graphprune.model import Model
from graphprune.shapes.shape_values import subgraphs


def written_back(model: Model, weights: Mapping[str, Weight], arrays: Mapping[str, torch.Tensor]) -> Model:
    """A copy of ``model`` whose initializers hold these numbers, in the types they have.

    A merged vector whose uses were trained apart becomes one initializer per use; where all uses still
    agree it stays one.

    Raises:
        ModelError: the model has no such initializer, or it has another shape.
    """
    copy = model.clone()
    constants = {value.name or "": value for value in constants_of(copy.ir.graph)}
    nodes = {node.outputs[0].name or "": node for node in _nodes(copy.ir.graph)}
    taken = set(constants)
    for key, weight in weights.items():
        value = constants.get(weight.name)
        if value is None:
            what = f"the model has no initializer '{weight.name}'"
            raise ModelError(what, hint="write back into the model that the module was made from")
        tensor = _tensor(value, arrays[key])
        if weight.uses is None:
            value.const_value = tensor
            continue
        if np.array_equal(tensor.numpy(), _numpy(value)):
            continue
        own = ir.Value(name=_new_name(key, taken), shape=value.shape, type=value.type, const_value=tensor)
        for output, index in weight.uses:
            node = nodes.get(output)
            if node is None or node.inputs[index] is not value:
                what = f"'{weight.name}' is not input {index} of the node that makes '{output}'"
                raise ModelError(what, hint="write back into the model that the module was made from")
            node.replace_input_with(index, own)
        copy.ir.graph.register_initializer(own)
    _drop_unread(copy.ir.graph, weights)
    return copy


def _nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    for node in graph:
        yield node
        for body in subgraphs(node):
            yield from _nodes(body)


def _numpy(value: ir.Value) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    assert value.const_value is not None
    return value.const_value.numpy()


def _tensor(value: ir.Value, numbers: torch.Tensor) -> ir.TensorProtocol:
    old = value.const_value
    assert old is not None
    if tuple(numbers.shape) != tuple(old.shape.numpy()):
        what = f"'{value.name}' has the shape {list(old.shape.numpy())}, the parameter {list(numbers.shape)}"
        raise ModelError(what, hint="write back into the model that the module was made from")
    array = numbers.double().numpy() if numbers.dtype == torch.bfloat16 else numbers.numpy()
    return ir.Tensor(array.astype(old.dtype.numpy()), dtype=old.dtype, name=value.name)


def _new_name(key: str, taken: set[str]) -> str:
    name = key
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _drop_unread(graph: ir.Graph, weights: Mapping[str, Weight]) -> None:
    """Merged vectors whose uses all went their own ways."""
    for name in {w.name for w in weights.values() if w.uses is not None}:
        value = graph.initializers.get(name)
        if value is not None and not value.uses() and not value.is_graph_output():
            graph.initializers.pop(name)
