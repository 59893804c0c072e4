"""A bfloat16 model in float32: onnxruntime has next to no bfloat16 kernels for the CPU.

Every bfloat16 number is a float32 number, so the copy computes the same, with more digits in between.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from graphprune.model import Model

_NARROW, _WIDE = ir.DataType.BFLOAT16, ir.DataType.FLOAT
#: Attributes that name a type.
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "stash_type", "precision")


def widened(model: Model) -> Model:
    """``model`` itself when it has no bfloat16 in it, else a copy in float32."""
    if not any(_is_narrow(value) for value in _values(model.ir.graph)):
        return model
    copy = model.clone()
    for value in _values(copy.ir.graph):
        if _is_narrow(value):
            value.type = ir.TensorType(_WIDE)
            if value.const_value is not None:
                value.const_value = _wide(value.const_value)
    for node in copy.ir.graph.all_nodes():
        for name, attribute in list(node.attributes.items()):
            if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype == _NARROW:
                node.attributes[name] = ir.AttrTensor(name, _wide(attribute.as_tensor()))
            elif name in _TYPE_ATTRIBUTES and attribute.value == _NARROW:
                node.attributes[name] = ir.AttrInt64(name, int(_WIDE))
    return copy


def _values(graph: ir.Graph) -> Iterable[ir.Value]:
    for each in (graph, *graph.subgraphs()):
        yield from each.inputs
        yield from each.initializers.values()
        for node in each:
            yield from node.outputs


def _is_narrow(value: ir.Value) -> bool:
    return _NARROW in (value.dtype, None if value.const_value is None else value.const_value.dtype)


def _wide(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    def read() -> ir.TensorProtocol:
        return ir.tensor(tensor.numpy().astype(np.float32), name=tensor.name)

    shape = ir.Shape(tensor.shape.numpy())
    return ir.LazyTensor(read, dtype=_WIDE, shape=shape, name=tensor.name)
