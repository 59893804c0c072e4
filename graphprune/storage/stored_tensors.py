"""The tensors that a file stores: that each has its bytes, before one of them is read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from math import prod
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx import TensorProto

from graphprune.errors import ModelError
from graphprune.limits import require_size
from graphprune.storage.external_places import require_inside

_AGAIN = "export the model again"
#: Fields that hold a tensor's elements one by one, by type; all other types of numbers are in int32_data.
_FIELDS: dict[int, str] = {
    TensorProto.FLOAT: "float_data", TensorProto.COMPLEX64: "float_data", TensorProto.DOUBLE: "double_data",
    TensorProto.COMPLEX128: "double_data", TensorProto.INT64: "int64_data", TensorProto.UINT64: "uint64_data",
    TensorProto.UINT32: "uint64_data", TensorProto.STRING: "string_data",
}  # fmt: skip


def tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Every tensor that ``model`` stores, in initializers and attributes, bodies and functions."""
    functions = (graph for function in model.functions.values() for graph in function.subgraphs())
    for graph in chain(model.graphs(), functions):
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value
    yield from _in_attributes(model.graph)
    for function in model.functions.values():
        yield from _in_attributes(function)


def _in_attributes(owner: ir.Graph | ir.Function) -> Iterator[ir.TensorProtocol]:
    for node in owner:
        # Every node of every model comes by here: the plain dict, and no accessors that check protocols.
        for attribute in node.attributes.data.values():
            if attribute.is_ref():
                continue
            if attribute.type == ir.AttributeType.TENSOR:
                yield attribute.value
            elif attribute.type == ir.AttributeType.TENSORS:
                yield from attribute.value
            elif attribute.type == ir.AttributeType.GRAPH:
                yield from _in_attributes(attribute.value)
            elif attribute.type == ir.AttributeType.GRAPHS:
                for graph in attribute.value:
                    yield from _in_attributes(graph)


def check_tensors(model: ir.Model) -> None:
    """Make sure that every stored tensor has its bytes, without reading them.

    Raises:
        ModelError: external data are elsewhere, missing or too short, the bytes do not fit the shape, or all
            tensors together are larger than the user allows.
    """
    sizes: dict[str, int] = {}
    total = 0
    for tensor in tensors(model):
        if any(not isinstance(size, int) or size < 0 for size in tensor.shape):
            msg = f"tensor '{tensor.name}' has a negative size"
            raise ModelError(msg, where=f"tensor '{tensor.name}'", because=f"its shape is {tensor.shape}")
        if tensor.dtype == ir.DataType.UNDEFINED:
            msg = f"tensor '{tensor.name}' has no type"
            raise ModelError(msg, where=f"tensor '{tensor.name}'", because="its data_type is UNDEFINED")
        if isinstance(tensor, ir.ExternalTensor):
            _check_external(tensor, sizes)
        elif isinstance(tensor, ir.serde.TensorProtoTensor):
            _check_embedded(tensor)
        total += 0 if tensor.dtype == ir.DataType.STRING else tensor.nbytes
    require_size(total, "what the model's tensors hold")


def _check_external(tensor: ir.ExternalTensor, sizes: dict[str, int]) -> None:
    path = Path(tensor.path)
    if tensor.path not in sizes:
        place = require_inside(Path(tensor.base_dir), str(tensor.location), tensor.name or "")
        sizes[tensor.path] = place.stat().st_size
    if tensor.dtype == ir.DataType.STRING:
        msg = f"tensor '{tensor.name}' holds texts in external data"
        raise ModelError(msg, where=str(path), because="ONNX stores texts in the file itself", hint=_AGAIN)
    length = tensor.nbytes if tensor.length is None else tensor.length
    if length != tensor.nbytes:
        msg = f"tensor '{tensor.name}' has {length} bytes of external data, not {tensor.nbytes}"
        because = f"its type and shape ({tensor.dtype}, {tensor.shape}) need {tensor.nbytes} bytes"
        raise ModelError(msg, where=str(path), because=because, hint=_AGAIN)
    if (tensor.offset or 0) < 0:
        msg = f"the data of tensor '{tensor.name}' begin before their file does"
        raise ModelError(msg, where=str(path), because=f"the offset is {tensor.offset}", hint=_AGAIN)
    end = (tensor.offset or 0) + length
    if end > sizes[tensor.path]:
        msg = f"external data file '{path}' is too short"
        because = f"tensor '{tensor.name}' ends at byte {end}, the file at {sizes[tensor.path]}"
        raise ModelError(msg, where=str(path), because=because, hint="copy or download it again")


def _check_embedded(tensor: ir.serde.TensorProtoTensor) -> None:
    proto = tensor.raw
    if proto.HasField("raw_data"):
        if len(proto.raw_data) != tensor.nbytes:
            msg = f"tensor '{tensor.name}' has {len(proto.raw_data)} bytes, not {tensor.nbytes}"
            because = f"its type and shape ({tensor.dtype}, {tensor.shape}) need {tensor.nbytes} bytes"
            raise ModelError(msg, where=f"tensor '{tensor.name}'", because=because)
        return
    needed, found = _elements(proto), len(getattr(proto, _FIELDS.get(proto.data_type, "int32_data")))
    if needed != found:
        msg = f"tensor '{tensor.name}' has {found} elements, not {needed}"
        because = f"its type and shape are {tensor.dtype}, {tensor.shape}"
        raise ModelError(msg, where=f"tensor '{tensor.name}'", because=because, hint=_AGAIN)


def _elements(proto: onnx.TensorProto) -> int:
    """Entries of the field that holds the elements; small numbers share one."""
    size: int = prod(proto.dims)
    if proto.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128):
        return 2 * size
    bits = ir.DataType(proto.data_type).bitwidth if proto.data_type != TensorProto.STRING else 8
    return -(-size * bits // 8) if bits < 8 else size
