"""Finds arrays that hold the same numbers in whatever order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
_CHUNK = 1 << 20
# Odd constants of a well-known 64-bit mixer: equal sums of mixed bits mean equal multisets.
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def as_floats(array: Array, seen_as: np.dtype[Any] | None = None) -> npt.NDArray[np.float32]:
    """The numbers in single precision; rounded to another type first, as an exporter would."""
    if seen_as is not None and array.dtype != seen_as and _is_narrower(seen_as, array.dtype):
        array = array.astype(seen_as)
    floats = np.ascontiguousarray(array, np.float32) if array.dtype != np.float32 else array
    return np.ascontiguousarray(floats)


def _is_narrower(one: np.dtype[Any], other: np.dtype[Any]) -> bool:
    return one.itemsize < other.itemsize or (one.itemsize == other.itemsize == 2)


def fingerprint(array: npt.NDArray[np.float32]) -> tuple[int, int]:
    """Size, and a number that does not depend on the order of the elements."""
    flat, total = array.reshape(-1), np.uint64(0)
    with np.errstate(over="ignore"):
        for start in range(0, flat.size, _CHUNK):
            chunk = flat[start : start + _CHUNK] + np.float32(0)  # minus zero becomes zero
            bits = chunk.view(np.uint32).astype(np.uint64) + np.uint64(1)
            bits = (bits ^ (bits >> np.uint64(15))) * _FIRST
            bits = (bits ^ (bits >> np.uint64(27))) * _SECOND
            total += (bits ^ (bits >> np.uint64(31))).sum(dtype=np.uint64)
    return flat.size, int(total)


class Fingerprints:
    """Arrays by fingerprint, per type in which a model holds its weights.

    Args:
        arrays: by name.
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._arrays = arrays
        self._tables: dict[str, dict[tuple[int, int], list[str]]] = {}

    def find(self, constant: Array) -> list[str]:
        """Names of the arrays that hold the same numbers."""
        key = str(constant.dtype)
        if key not in self._tables:
            table: dict[tuple[int, int], list[str]] = {}
            for name, array in self._arrays.items():
                table.setdefault(fingerprint(as_floats(array, constant.dtype)), []).append(name)
            self._tables[key] = table
        return self._tables[key].get(fingerprint(as_floats(constant)), [])
