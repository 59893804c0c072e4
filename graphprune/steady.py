"""Products of matrices that are the same to the last bit, however many threads there are.

A library of linear algebra cuts long sums into as many parts as it has threads, and parts that are added in
another order give other last bits, which decide between channels that are worth about the same.  So it is
told to use one thread, and large products are cut here: always into the same tiles, whoever computes which.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
#: Rows and columns of a tile.
_TILE = 512
_NAMES = (
    ("scipy_openblas_set_num_threads64_", "scipy_openblas_get_num_threads64_"),
    ("scipy_openblas_set_num_threads", "scipy_openblas_get_num_threads"),
    ("openblas_set_num_threads64_", "openblas_get_num_threads64_"),
    ("openblas_set_num_threads", "openblas_get_num_threads"),
    ("MKL_Set_Num_Threads", "MKL_Get_Max_Threads"),
)
_guard = threading.Lock()
_inside = 0
_before = 0


@contextmanager
def steady() -> Iterator[None]:
    """Inside this block, and in every thread meanwhile, numpy multiplies matrices in one thread.

    Where numpy has linear algebra that can't be told so, nothing happens.
    """
    global _inside, _before
    change, ask = _controls()
    with _guard:
        if not _inside:
            _before = ask()
            change(1)
        _inside += 1
    try:
        yield
    finally:
        with _guard:
            _inside -= 1
            if not _inside:
                change(_before)


def threads() -> int:
    """How many threads numpy's linear algebra has now."""
    return _controls()[1]()


@cache
def _controls() -> tuple[Callable[[int], object], Callable[[], int]]:
    """What sets and tells the number of threads."""
    for library in _libraries():
        for change, ask in _NAMES:
            if hasattr(library, change) and hasattr(library, ask):
                return getattr(library, change), getattr(library, ask)
    return lambda threads: None, lambda: 1


def _libraries() -> Iterator[ctypes.CDLL]:
    """The part of numpy that multiplies, through which the libraries are found, and those beside it."""
    package = Path(np.__file__).parent
    beside = (package.parent / "numpy.libs", package / ".dylibs")
    places = [*package.glob("*core/_multiarray_umath*"), *(p for f in beside for p in f.glob("*openblas*"))]
    for place in places:
        try:
            yield ctypes.CDLL(str(place))
        except OSError:
            continue


def product(a: Array, b: Array) -> Array:
    """``a @ b`` of two matrices; ``a.T @ a`` is recognised, and takes half the time."""
    rows, columns = (range(0, n, _TILE) for n in (a.shape[0], b.shape[1]))
    if len(rows) * len(columns) <= 1:
        return np.asarray(a @ b)
    found = np.empty((a.shape[0], b.shape[1]), np.result_type(a, b))
    squares = a.shape == b.shape[::-1] and a.ctypes.data == b.ctypes.data and a.strides == b.strides[::-1]

    def tile(place: tuple[int, int]) -> None:
        i, j = place
        found[i : i + _TILE, j : j + _TILE] = a[i : i + _TILE] @ b[:, j : j + _TILE]
        if squares and i != j:
            found[j : j + _TILE, i : i + _TILE] = found[i : i + _TILE, j : j + _TILE].T

    places = [(i, j) for i in rows for j in columns if not squares or i <= j]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(tile, places))
    return found
