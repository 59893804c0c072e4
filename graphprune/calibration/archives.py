"""The first rows of the arrays in an ``.npz``, without reading the rest."""

from __future__ import annotations

import zlib
from collections.abc import Collection
from math import prod
from pathlib import Path
from typing import IO
from zipfile import BadZipFile, ZipFile

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from graphprune.archive_sizes import require_archive_size
from graphprune.errors import CalibrationError

Array = npt.NDArray[np.generic]
_HINT = "an .npz of arrays named as the model's inputs (numpy.savez)"


def read_archive(path: Path, limit: int | None, counted: Collection[str]) -> dict[str, Array]:
    """Arrays by name.

    Args:
        path: of the file.
        limit: how many rows to read of each array in ``counted``; None: all.
        counted: names of the arrays with one row per sample; others are read whole.

    Raises:
        CalibrationError: no such file, not an ``.npz``, damaged, or pickled objects in it.
    """
    message = f"cannot read the calibration data '{path}'"
    try:
        require_archive_size(path)
        with ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.endswith(".npy")]
            found = {}
            for member in members:
                name = member.removesuffix(".npy")
                with archive.open(member) as file:
                    size = archive.getinfo(member).file_size
                    found[name] = _rows(file, limit if name in counted else None, size)
            return found
    except (
        OSError,
        ValueError,
        EOFError,
        BadZipFile,
        zlib.error,
        NotImplementedError,
        RuntimeError,
    ) as error:
        because = " ".join(str(error).split())[:200]
        raise CalibrationError(message, because=because, hint=_HINT) from error


def _rows(file: IO[bytes], limit: int | None, size: int) -> Array:
    version = npy.read_magic(file)
    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, by_column, dtype = header(file)
    if dtype.hasobject:
        msg = "it holds pickled objects, which could run any code"
        raise ValueError(msg)
    if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize > size:  # before memory is asked for
        msg = f"an array of shape {list(shape)} ends early"
        raise ValueError(msg)
    rows = list(shape)
    if limit is not None and shape and not by_column:
        rows[0] = min(limit, shape[0])
    data, at = bytearray(prod(rows) * dtype.itemsize), 0
    while at < len(data):
        piece = file.read(min(1 << 22, len(data) - at))
        if not piece:
            msg = f"an array of shape {list(shape)} ends early"
            raise ValueError(msg)
        data[at : at + len(piece)] = piece
        at += len(piece)
    array: Array = np.frombuffer(data, dtype)
    if by_column:
        array = array.reshape(rows[::-1]).T
        return array[:limit] if shape and limit is not None else array
    return array.reshape(rows)
