"""Where a layer's new weights and bias are written in the pruned model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.calibration.landing import Landing
from graphprune.calibration.linear import Linear
from graphprune.names import unique_name

Array = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Slot:
    """A constant that is added to a layer's output: the input ``index`` of ``node``; absent if ``is_new``."""

    node: ir.Node
    index: int
    is_new: bool = False

    @property
    def adds(self) -> bool:
        """Does the model get another constant when this one is changed?"""
        value = None if self.is_new else self.node.inputs[self.index]
        return value is None or not _is_own(value)


def bias_slot(layer: Linear, landing: Landing, *, grows: bool = True) -> Slot | None:
    """The place of a bias with one number per output feature, None if there is none.

    Args:
        layer: whose bias it is.
        landing: where its output goes.
        grows: the model may get further constants.
    """
    slot = _slot(layer, landing)
    return None if slot is not None and slot.adds and not grows else slot


def _slot(layer: Linear, landing: Landing) -> Slot | None:
    made = sizes_of(layer.constant)[layer.made]
    if layer.node.op_type in ("Conv", "Gemm"):
        bias = layer.node.inputs[2] if len(layer.node.inputs) > 2 else None
        if bias is None:
            return Slot(layer.node, 2, is_new=True)
        return Slot(layer.node, 2) if _is_vector(bias, made, -1) else None
    for node, index in landing.biases:
        value = node.inputs[index]
        if value is not None and _is_vector(value, made, layer.feature_axis):
            return Slot(node, index)
    return None


def read(value: ir.Value) -> npt.NDArray[np.float64]:
    """A constant in double precision."""
    assert value.const_value is not None
    return np.asarray(value.const_value.numpy(), np.float64)


def write(graph: ir.Graph, node: ir.Node, index: int, array: Array) -> None:
    """Gives a node a new constant, in the old one's type; other readers of the old one keep it."""
    old = node.inputs[index]
    assert old is not None
    assert old.const_value is not None
    if _is_own(old):
        rewrite(old, array)
        return
    dtype, name = old.const_value.dtype, unique_name(graph, f"{old.name}/fitted")
    tensor = ir.Tensor(_typed(array, dtype), dtype=dtype, name=name)
    new = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(new)
    node.replace_input_with(index, new)


def rewrite(value: ir.Value, array: Array) -> None:
    """Gives a constant other numbers for all of its readers, in its own type."""
    assert value.const_value is not None
    dtype = value.const_value.dtype
    value.const_value = ir.Tensor(_typed(array, dtype), dtype=dtype, name=value.name)


def add_bias(graph: ir.Graph, layer: Linear, slot: Slot, delta: Array) -> None:
    """Adds ``delta[o]`` to a layer's bias."""
    if not slot.is_new:
        value = slot.node.inputs[slot.index]
        assert value is not None
        old = read(value)
        write(graph, slot.node, slot.index, old + delta.reshape(old.shape))
        return
    tensor = layer.constant.const_value
    assert tensor is not None
    name = unique_name(graph, f"{layer.constant.name}/bias")
    data = ir.Tensor(_typed(delta, tensor.dtype), dtype=tensor.dtype, name=name)
    new = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(delta.shape), const_value=data)
    graph.register_initializer(new)
    if len(slot.node.inputs) > slot.index:
        slot.node.replace_input_with(slot.index, new)
    else:
        slot.node.resize_inputs(slot.index + 1)
        slot.node.replace_input_with(slot.index, new)


def _typed(array: Array, dtype: ir.DataType) -> npt.NDArray[np.generic]:
    """The numbers in another type, as large as half precision can hold."""
    if dtype == ir.DataType.FLOAT16:
        most = float(np.finfo(np.float16).max)
        array = np.clip(array, -most, most)
    return np.asarray(array.astype(dtype.numpy()), order="C")  # a scalar stays one


def _is_own(value: ir.Value) -> bool:
    """Does one node alone read this constant?"""
    return len(list(value.uses())) == 1 and not value.is_graph_output()


def _is_vector(value: ir.Value, size: int, axis: int) -> bool:
    """One number per feature, features along this axis?"""
    if value.const_value is None or value.is_graph_input():
        return False
    shape = sizes_of(value)
    return int(np.prod(shape)) == size and (size == 1 or (len(shape) >= -axis and shape[axis] == size))


def sizes_of(value: ir.Value) -> tuple[int, ...]:
    """Shape of a constant."""
    assert value.const_value is not None
    return tuple(int(n) for n in value.const_value.shape.numpy())
