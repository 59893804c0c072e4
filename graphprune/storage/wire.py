"""The protobuf wire format, as far as a model's weights are found in a file and written to one.

https://protobuf.dev/programming-guides/encoding: a message is a row of fields, each a tag (number and kind),
then a varint, a fixed number of bytes, or a length and so many bytes.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

# Field numbers of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
MODEL_GRAPH = 7
GRAPH_INITIALIZER = 5
TENSOR_RAW_DATA = 9


@dataclass(frozen=True)
class Field:
    """One field: its number and kind, where its tag starts, and where its content starts and ends."""

    number: int
    kind: int
    tag: int
    start: int
    end: int


def fields(data: mmap.mmap | bytes, start: int, end: int) -> Iterator[Field]:
    """The fields of the message at ``data[start:end]``.

    Raises:
        ValueError: the bytes are no such message.
    """
    at = start
    while at < end:
        tag, content = read_varint(data, at, end)
        kind, size = tag & 7, 0
        if kind == VARINT:
            _, stop = read_varint(data, content, end)
        else:
            if kind == BYTES:
                size, content = read_varint(data, content, end)
            elif kind in (FIXED64, FIXED32):
                size = 8 if kind == FIXED64 else 4
            else:
                message = f"a field of unknown kind {kind}"
                raise ValueError(message)
            stop = content + size
        if stop > end:
            message = "a field ends behind its message"
            raise ValueError(message)
        yield Field(tag >> 3, kind, at, content, stop)
        at = stop


def read_varint(data: mmap.mmap | bytes, at: int, end: int) -> tuple[int, int]:
    """The number at ``at``, and where it ends.

    Raises:
        ValueError: it does not end.
    """
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
    message = "a number is cut off"
    raise ValueError(message)


def varint(value: int) -> bytes:
    """A number as it is written."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def head(number: int, size: int) -> bytes:
    """What stands before the ``size`` bytes of a field."""
    return varint(number << 3 | BYTES) + varint(size)
