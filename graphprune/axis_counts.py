"""How many positions of many axes stay, for one set of removed units after another.

A search for the right cut asks this some hundred times.  Nearly every axis is a list of units, or all
combinations of a few such lists (``heads x dims``), so what counts is only *how many* units of each kind are
gone; axes of any other form are looked up row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from graphprune.algebra import Algebra, Axis

Mask = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int32]
_SEED = 0


class AxisCounts:
    """Kept positions of the axes in question.

    Args:
        algebra: finished.
        axes: axes of constants and tensors; equal ones are counted once.
    """

    def __init__(self, algebra: Algebra, axes: Sequence[Axis]) -> None:
        self._rows: list[Rows] = []
        self._index_of: dict[int, int] = {}
        self._labels = [axis.labels for axis in axes]  # kept, since their ids are keys
        by_content: dict[tuple[tuple[int, ...], int], list[int]] = {}
        for axis in axes:
            if id(axis.labels) not in self._index_of:
                self._index_of[id(axis.labels)] = self._find(algebra.live(axis), by_content)
        self.sizes: Counts = np.array([len(rows) for rows in self._rows], np.int64)
        products = [_product(rows) for rows in self._rows]
        self._by_rows = [i for i, found in enumerate(products) if found is None]
        self._times = np.array([found.times if found is not None else 1 for found in products], np.int64)
        factors = [(i, u) for i, found in enumerate(products) if found is not None for u in found.lists]
        self._owner = np.array([i for i, _ in factors], np.int64)
        self._lengths = np.array([len(units) for _, units in factors], np.int64)
        self._multiplicities(len(algebra), [units for _, units in factors])

    def _find(self, rows: Rows, by_content: dict[tuple[tuple[int, ...], int], list[int]]) -> int:
        same = by_content.setdefault((rows.shape, hash(rows.tobytes())), [])
        for i in same:
            if np.array_equal(self._rows[i], rows):
                return i
        same.append(len(self._rows))
        self._rows.append(rows)
        return same[-1]

    def _multiplicities(self, n_units: int, columns: Sequence[Rows]) -> None:
        """How often a unit of each class stands in each column; a class's units stand in the same ones."""
        rng = np.random.default_rng(_SEED)
        signature = np.zeros(n_units, np.uint64)
        for units in columns:  # sums of one random number per place: equal sets give equal sums
            np.add.at(signature, units, rng.integers(1, 2**63, dtype=np.uint64))
        signature[0] = 0
        self._units = np.flatnonzero(signature)
        _, classes = np.unique(signature[self._units], return_inverse=True)
        self._classes = classes
        class_of = np.zeros(n_units, np.int64)
        class_of[self._units] = classes
        members = np.bincount(classes)
        column, kind, times = [], [], []
        for i, units in enumerate(columns):
            found, counts = np.unique(class_of[units[units > 0]], return_counts=True)
            column += [i] * len(found)
            kind += found.tolist()
            times += (counts // members[found]).tolist()
        self._n_classes = len(members)
        self._column, self._kind = np.array(column, np.int64), np.array(kind, np.int64)
        self._weights = np.array(times, np.float64)

    def index(self, axis: Axis) -> int:
        """Place of an axis in what :meth:`kept` returns."""
        return self._index_of[id(axis.labels)]

    def kept(self, removed: Mask) -> Counts:
        """Number of kept positions per axis, when the units in ``removed`` are gone."""
        gone = np.bincount(self._classes[removed[self._units]], minlength=self._n_classes)
        lost = np.bincount(self._column, self._weights * gone[self._kind], minlength=len(self._owner))
        kept = self._times.copy()
        np.multiply.at(kept, self._owner, self._lengths - lost.astype(np.int64))
        for i in self._by_rows:
            kept[i] = np.count_nonzero(self.mask(i, removed))
        return kept

    def mask(self, index: int, removed: Mask) -> Mask:
        """Which positions of the axis at ``index`` stay."""
        return np.asarray(~removed[self._rows[index]].any(axis=1))


@dataclass(frozen=True)
class _Product:
    """All combinations of some lists of units, each so many times."""

    lists: list[Rows]
    times: int = 1


def _product(rows: Rows) -> _Product | None:
    """The rows as a product; None if they are nothing so simple."""
    n, width = rows.shape
    if width <= 1:
        return _Product([rows[:, 0] if width else np.zeros(n, np.int32)])
    found = [np.unique(rows[:, column], return_inverse=True) for column in range(width)]
    lists = [units for units, _ in found]
    every = np.concatenate(lists)
    total = prod(len(units) for units in lists)
    if total > n or not every.all() or len(np.unique(every)) < len(every):
        return None
    code = np.zeros(n, np.int64)
    for units, place in found:
        code = code * len(units) + place
    counts = np.bincount(code, minlength=total)
    return _Product(lists, n // total) if (counts == counts[0]).all() else None
