"""The weights that are part of an ONNX file, without parsing them.

Parsed as one message, every weight would be copied into the message, and again whenever it is asked for.
Here the parser gets the file without them.  Those of a small file are read at once; a large file stays open,
and each weight is read when it is its turn.
"""

from __future__ import annotations

import mmap
import os
import sys
import weakref
from collections.abc import Callable
from functools import partial
from io import FileIO
from math import prod
from pathlib import Path
from threading import Lock

import numpy as np
import onnx
import onnx_ir as ir

from graphprune.errors import ModelError
from graphprune.storage.wire import (
    BYTES,
    GRAPH_INITIALIZER,
    MODEL_GRAPH,
    TENSOR_RAW_DATA,
    Field,
    fields,
    head,
)

Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]
#: Raw bytes of initializers by name, or what reads them.
Weights = dict[str, "Bytes | Callable[[], Bytes]"]
#: Files up to this size are read whole.
SMALL_FILE = 1 << 25
#: And so are weights up to this size.
_SMALL_BYTES = 1 << 14
_Place = tuple[int, int]


class WeightFile:
    """A file that stays open for its weights; it may be renamed or deleted meanwhile, but not changed.

    Args:
        path: of the file.

    Raises:
        OSError: it can't be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, descriptor)  # when the last weight that reads from it is gone
        self.file = FileIO(descriptor, closefd=False)
        self._lock = Lock()
        self._state = self._now()

    def _now(self) -> tuple[int, int]:
        status = os.fstat(self.file.fileno())
        return status.st_size, status.st_mtime_ns

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._state[0]

    def read(self, place: _Place) -> Bytes:
        """The bytes from ``place[0]`` to ``place[1]``.

        Raises:
            ModelError: the file was written to since it was opened.
        """
        array = np.empty(place[1] - place[0], np.uint8)
        rest = array.data
        with self._lock:  # callers may have threads, and the file one position
            self.file.seek(place[0])
            while len(rest) and (count := self.file.readinto(rest)):
                rest = rest[count:]
        if len(rest) or self._now() != self._state:
            message = f"model file '{self._path}' was changed after it was loaded"
            because = "its weights are read when they are needed, and they may be others now"
            raise ModelError(message, because=because, hint="load it again")
        return array


def load_split(path: Path) -> tuple[onnx.ModelProto, Weights] | None:
    """The model without the raw data of its initializers, and these; None if the file is not so plain.

    Raises:
        OSError: the file can't be read.
    """
    if sys.byteorder != "little":  # raw data are
        return None
    source = WeightFile(path)
    try:
        with mmap.mmap(source.file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            split = _split(data)
    except ValueError:  # empty, or no message: the parser says what is wrong
        return None
    if split is None:
        return None
    rest, places = split
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(rest)
    except Exception:  # protobuf's own class, of whichever of its implementations
        return None
    if len(proto.graph.initializer) != len(places):
        return None
    weights: Weights = {}
    for tensor, place in zip(proto.graph.initializer, places, strict=True):
        if place is None:
            continue
        size = place[1] - place[0]
        if not tensor.name or tensor.name in weights or not _is_plain(tensor, size):
            tensor.raw_data = source.read(place).tobytes()
        elif size > _SMALL_BYTES and source.size > SMALL_FILE:
            weights[tensor.name] = partial(source.read, place)
        else:
            weights[tensor.name] = source.read(place)
    return proto, weights


def _split(data: mmap.mmap) -> tuple[bytes, list[_Place | None]] | None:
    """The file without raw data, and where these are for each initializer."""
    top = list(fields(data, 0, len(data)))
    graphs = [field for field in top if field.number == MODEL_GRAPH]
    if len(graphs) != 1 or graphs[0].kind != BYTES:
        return None
    places: list[_Place | None] = []
    pieces: list[bytes] = []
    kept = graphs[0].start
    for field in fields(data, graphs[0].start, graphs[0].end):
        if field.number != GRAPH_INITIALIZER or field.kind != BYTES:
            continue
        raw = [f for f in fields(data, field.start, field.end) if f.number == TENSOR_RAW_DATA]
        if len(raw) != 1 or raw[0].kind != BYTES:
            places.append(None)
            continue
        places.append((raw[0].start, raw[0].end))
        pieces += [data[kept : field.tag], *_without(data, field, raw[0])]
        kept = field.end
    pieces.append(data[kept : graphs[0].end])
    size = sum(map(len, pieces))
    before, after = data[: graphs[0].tag], data[graphs[0].end :]
    return b"".join([before, head(MODEL_GRAPH, size), *pieces, after]), places


def _without(data: mmap.mmap, tensor: Field, raw: Field) -> list[bytes]:
    before, after = data[tensor.start : raw.tag], data[raw.end : tensor.end]
    return [head(GRAPH_INITIALIZER, len(before) + len(after)), before, after]


def _is_plain(tensor: onnx.TensorProto, size: int) -> bool:
    """Are these all of the tensor's elements, as numpy would hold them?"""
    try:
        dtype = ir.DataType(tensor.data_type)
        whole = dtype.bitwidth >= 8 and dtype not in (ir.DataType.STRING, ir.DataType.UNDEFINED)
        is_shape = all(axis >= 0 for axis in tensor.dims)
        return whole and is_shape and size == prod(tensor.dims) * dtype.numpy().itemsize
    except (TypeError, ValueError):  # a type that onnx_ir or numpy does not know
        return False


def attach(model: ir.Model, weights: Weights) -> None:
    """Gives the initializers of ``model`` their values, in place."""
    for name, raw in weights.items():
        value = model.graph.initializers[name]
        hollow = value.const_value
        assert hollow is not None
        if callable(raw):
            value.const_value = ir.LazyTensor(
                partial(_tensor, hollow, raw),
                dtype=hollow.dtype,
                shape=ir.Shape(hollow.shape.numpy()),
                name=name,
                doc_string=hollow.doc_string or None,
                metadata_props=dict(hollow.metadata_props),
            )
        else:
            value.const_value = _tensor(hollow, raw)


def _tensor(hollow: ir.TensorProtocol, raw: Bytes | Callable[[], Bytes]) -> ir.TensorProtocol:
    array = raw() if callable(raw) else raw
    return ir.Tensor(
        array.view(hollow.dtype.numpy()).reshape(hollow.shape.numpy()),
        dtype=hollow.dtype,
        name=hollow.name,
        doc_string=hollow.doc_string or None,
        metadata_props=dict(hollow.metadata_props),
    )
