"""Reads and writes ``.safetensors`` files: a header of JSON, then the numbers.

The format is three lines long (https://github.com/huggingface/safetensors), and numpy has no bfloat16 of its
own, so the package for numpy does not give every array; here nothing else has to be installed.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from graphprune.errors import ModelError

Array = npt.NDArray[Any]
_LENGTH = 8
_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16), "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2), "I64": np.dtype("<i8"), "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"), "I8": np.dtype("i1"), "U64": np.dtype("<u8"), "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"), "U8": np.dtype("u1"), "BOOL": np.dtype("?"),
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def read_safetensors(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Arrays in the order in which they are stored, read when needed, and the file's metadata.

    Raises:
        ModelError: the file is missing, or no safetensors file.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(_LENGTH))
            if length > path.stat().st_size:
                message = "its header is longer than the file"
                raise ValueError(message)
            header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
        return {name: _array(path, _LENGTH + length, entry) for name, entry in entries}, metadata
    except OSError as error:
        what = f"cannot read '{path}'"
        raise ModelError(what, because=error.strerror or str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        what = f"'{path}' is not a safetensors file"
        raise ModelError(what, because=f"{type(error).__name__}: {error}") from error


def _array(path: Path, start: int, entry: Mapping[str, Any]) -> Array:
    dtype, shape = _DTYPES[entry["dtype"]], tuple(entry["shape"])
    first, end = entry["data_offsets"]
    if end - first != int(np.prod(shape, dtype=np.int64)) * dtype.itemsize:
        message = f"{end - first} bytes for {list(shape)} of {entry['dtype']}"
        raise ValueError(message)
    if end == first:
        return np.zeros(shape, dtype)
    raw = np.memmap(path, np.uint8, "r", start + first, (end - first,))
    return raw.view(dtype).reshape(shape)


def write_safetensors(path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """Writes arrays in this order.

    Args:
        path: the file; its folder is there.
        arrays: by name.
        metadata: texts by name.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name, array in arrays.items():
        header[name] = {
            "dtype": _NAMES[array.dtype.newbyteorder("<")],
            "shape": list(array.shape),
            "data_offsets": [at, at + array.nbytes],
        }
        at += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH)  # the numbers start at a multiple of eight
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array).tobytes())
