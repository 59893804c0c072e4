"""A model as the bytes of an ONNX file, piece by piece: no more than one weight is in memory for it.

The graph's initializers come last, each with its data at its end.  In a protobuf message fields may stand
in any order.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import NamedTuple

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper

from graphprune.storage.wire import GRAPH_INITIALIZER, MODEL_GRAPH, TENSOR_RAW_DATA, head

#: Smaller tensors are serialized with the graph.
_SMALL_BYTES = 256


class Place(NamedTuple):
    """Where a weight stands: bytes of a file beside the model."""

    file: str
    offset: int
    length: int


class Stream:
    """The bytes of a model.

    External data count as part of the file.

    Args:
        model: unchanged; its large tensors are asked for their values one by one in :meth:`chunks`.
    """

    def __init__(self, model: ir.Model) -> None:
        with _without_weights(model) as weights:
            self._proto = ir.serde.serialize_model(model)
        #: Large initializers by name.
        self.weights: Mapping[str, ir.TensorProtocol] = weights

    def skeleton(self, fed: Collection[str] | None = None) -> onnx.ModelProto:
        """The model with inputs in place of large initializers.

        Args:
            fed: names of these; the others are part of the model. None: all.
        """
        proto = onnx.ModelProto()
        proto.CopyFrom(self._proto)
        graph = proto.graph
        given = self.weights.keys() if fed is None else self.weights.keys() & set(fed)
        inputs = {value.name for value in graph.input}
        graph.input.extend(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            for tensor in self._proto.graph.initializer
            if tensor.name in given and tensor.name not in inputs
        )
        del graph.initializer[:]
        for tensor in self._proto.graph.initializer:
            if tensor.name not in given:
                graph.initializer.append(tensor)
                if tensor.name in self.weights:
                    graph.initializer[-1].raw_data = bytes(data_of(self.weights[tensor.name]))
        return proto

    def referring(self, places: Mapping[str, Place]) -> bytes:
        """The model without the large initializers' bytes, which stand in other files.

        Those without elements need no place; onnxruntime refuses one at the end of a file.
        """
        proto = onnx.ModelProto()
        proto.CopyFrom(self._proto)
        for tensor in proto.graph.initializer:
            if tensor.name in places:
                place = places[tensor.name]
                tensor.data_location = onnx.TensorProto.EXTERNAL
                entries = {"location": place.file, "offset": place.offset, "length": place.length}
                for key, value in entries.items():
                    tensor.external_data.add(key=key, value=str(value))
            elif tensor.name in self.weights:
                tensor.raw_data = b""
        return bytes(proto.SerializeToString())

    @cached_property
    def _tensors(self) -> list[tuple[str, bytes]]:
        return [(tensor.name, tensor.SerializeToString()) for tensor in self._proto.graph.initializer]

    @cached_property
    def _graph(self) -> bytes:
        graph = onnx.GraphProto()
        graph.CopyFrom(self._proto.graph)
        del graph.initializer[:]
        return bytes(graph.SerializeToString())

    @cached_property
    def _model(self) -> bytes:
        model = onnx.ModelProto()
        model.CopyFrom(self._proto)
        model.ClearField("graph")
        return bytes(model.SerializeToString())

    @property
    def size(self) -> int:
        """Number of bytes."""
        graph = self._graph_size()
        return len(self._model) + len(head(MODEL_GRAPH, graph)) + graph

    def _graph_size(self) -> int:
        sizes = [self._tensor_size(name, rest) for name, rest in self._tensors]
        return len(self._graph) + sum(len(head(GRAPH_INITIALIZER, size)) + size for size in sizes)

    def _tensor_size(self, name: str, rest: bytes) -> int:
        if name not in self.weights:
            return len(rest)
        size = self.weights[name].nbytes
        return len(rest) + len(head(TENSOR_RAW_DATA, size)) + size

    def chunks(self) -> Iterator[bytes | memoryview]:
        """The bytes, in order."""
        yield self._model + head(MODEL_GRAPH, self._graph_size()) + self._graph
        for name, rest in self._tensors:
            yield head(GRAPH_INITIALIZER, self._tensor_size(name, rest)) + rest
            if name in self.weights:
                data = data_of(self.weights[name])
                yield head(TENSOR_RAW_DATA, len(data))
                yield data


@contextmanager
def _without_weights(model: ir.Model) -> Iterator[dict[str, ir.TensorProtocol]]:
    """Inside this block large initializers have no data; gives what they had, by name."""
    real: dict[ir.Value, ir.TensorProtocol] = {}
    try:
        for value in model.graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and _is_large(tensor):
                real[value] = tensor
                value.const_value = _hollow(tensor, value.name or "")
        yield {value.name or "": tensor for value, tensor in real.items()}
    finally:
        for value, tensor in real.items():
            value.const_value = tensor


def _is_large(tensor: ir.TensorProtocol) -> bool:
    if isinstance(tensor, ir.StringTensor):
        return False
    if isinstance(tensor, ir.serde.TensorProtoTensor) and not tensor.raw.HasField("raw_data"):
        return False  # kept as it was written
    return isinstance(tensor, ir.ExternalTensor) or tensor.nbytes > _SMALL_BYTES


def _hollow(tensor: ir.TensorProtocol, name: str) -> ir.serde.TensorProtoTensor:
    dims = tensor.shape.numpy()
    proto = onnx.TensorProto(
        name=name, dims=dims, data_type=int(tensor.dtype), doc_string=tensor.doc_string or None
    )
    for key, text in sorted(tensor.metadata_props.items()):
        proto.metadata_props.add(key=key, value=text)
    return ir.serde.TensorProtoTensor(proto)


def data_of(tensor: ir.TensorProtocol) -> bytes | memoryview:
    """The values as they are stored: little-endian, packed."""
    if isinstance(tensor, ir.serde.TensorProtoTensor):
        raw: bytes = tensor.raw.raw_data
        return raw
    if tensor.dtype.bitwidth < 8:
        return tensor.tobytes()
    array = tensor.numpy()
    if sys.byteorder != "little" or array.dtype.byteorder == ">":
        return tensor.tobytes()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
