"""A bfloat16 model in float32: onnxruntime has next to no bfloat16 kernels for the CPU.

Every bfloat16 number is a float32 number, so the copy computes the same, with more digits in between.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from graphprune.model import Model

_NARROW, _WIDE = ir.DataType.BFLOAT16, ir.DataType.FLOAT
#: Floating-point types of 16 bits.
HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
#: Attributes that name a type.
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "stash_type", "precision")


def widened(model: Model, narrow: Collection[ir.DataType] = (_NARROW,)) -> Model:
    """``model`` itself when it has nothing of these types in it, else a copy in float32."""
    if not any(_is_one(value, narrow) for value in _values(model.ir.graph)):
        return model
    copy = model.clone()
    for value in _values(copy.ir.graph):
        if _is_one(value, narrow):
            value.type = ir.TensorType(_WIDE)
            if value.const_value is not None:
                value.const_value = _wide(value.const_value)
    for node in copy.ir.graph.all_nodes():
        for name, attribute in list(node.attributes.items()):
            if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in narrow:
                node.attributes[name] = ir.AttrTensor(name, _wide(attribute.as_tensor()))
            elif name in _TYPE_ATTRIBUTES and attribute.value in narrow:
                node.attributes[name] = ir.AttrInt64(name, int(_WIDE))
    return copy


def wide_tensor(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """A bfloat16 tensor in float32, read when needed; any other as it is."""
    return _wide(tensor) if tensor.dtype == _NARROW else tensor


def wide_array(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Bfloat16 numbers in float32; anything else as it is."""
    is_narrow = getattr(getattr(array, "dtype", None), "name", "") == "bfloat16"
    return array.astype(np.float32) if is_narrow else array


def wide_float(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Numbers of 16 bits in float32; anything else as it is."""
    is_half = array.dtype.name in ("float16", "bfloat16")
    return array.astype(np.float32) if is_half else array


def wide_kind(kind: int) -> int:
    """An ONNX data type, float32 in place of bfloat16."""
    return int(_WIDE) if kind == _NARROW else kind


def widen_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    """The same for nodes, in place: types that their attributes name, and tensors in them and in bodies."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name in _TYPE_ATTRIBUTES and attribute.i == _NARROW:
                attribute.i = int(_WIDE)
            if attribute.type == onnx.AttributeProto.TENSOR:
                _widen_proto(attribute.t)
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                widen_nodes(body.node)
                for tensor in body.initializer:
                    _widen_proto(tensor)
                for value in (*body.input, *body.output, *body.value_info):
                    if value.type.tensor_type.elem_type == _NARROW:
                        value.type.tensor_type.elem_type = int(_WIDE)


def _widen_proto(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == _NARROW:
        array = onnx.numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def _values(graph: ir.Graph) -> Iterable[ir.Value]:
    for each in (graph, *graph.subgraphs()):
        yield from each.inputs
        yield from each.initializers.values()
        for node in each:
            yield from node.outputs


def _is_one(value: ir.Value, narrow: Collection[ir.DataType]) -> bool:
    tensor = value.const_value
    return value.dtype in narrow or (tensor is not None and tensor.dtype in narrow)


def _wide(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    def read() -> ir.TensorProtocol:
        return ir.tensor(tensor.numpy().astype(np.float32), name=tensor.name)

    shape = ir.Shape(tensor.shape.numpy())
    return ir.LazyTensor(read, dtype=_WIDE, shape=shape, name=tensor.name)
