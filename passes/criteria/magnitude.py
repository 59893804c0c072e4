"""Norms of the weights.

Local scores of all member tensors are added up through their rows, so a unit answers for everything that
goes with it (group-level importance, as in DepGraph and SPA).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
from graphprune.passes.criteria.members import nan_error, numbers_of, slices_of, whole_weights

from graphprune.analysis import Use
from graphprune.calibration.evidence import Evidence

Scores = npt.NDArray[np.float64]
#: Numbers that are added up in single precision before double takes over.
_FEW, _MANY = 64, 512


@dataclass(frozen=True)
class Magnitude:
    """Norm of everything that a unit removes.

    ``score(u) = (sum over member slices of |w|^p) ^ (1/p)``.

    Attributes:
        p: 1 or 2.
        additive: the scores only rank; they estimate no error.
    """

    p: int = 2
    additive: bool = False

    def __call__(self, evidence: Evidence) -> Scores:
        """Scores ``[len(algebra)]``.

        Raises:
            ModelError: a weight is NaN.
        """
        graph = evidence.graph
        total = np.zeros(len(graph.analysis.algebra))
        whole: dict[int, float] = {}
        for part in slices_of(graph):
            for d, local in self._along(part.use, list(part.rows)).items():
                whole[id(part.use.value)] = float(local.sum())
                for column in part.rows[d].T:
                    np.add.at(total, column, local)
        for unit, uses in whole_weights(graph):
            for use in uses:
                if id(use.value) not in whole:
                    whole[id(use.value)] = float(self._along(use, [0])[0].sum())
                total[unit] += whole[id(use.value)]
        total[0] = 0.0
        return np.asarray(total ** (1.0 / self.p))

    def _along(self, use: Use, axes: Sequence[int]) -> dict[int, Scores]:
        """Sums of the weights' powers over all other axes, for each of ``axes``."""
        sums = self._sums(numbers_of(use), axes)
        if any(np.isnan(found).any() for found in sums.values()):
            raise nan_error(use)
        return sums

    def _sums(self, weights: npt.NDArray[np.float32], axes: Sequence[int]) -> dict[int, Scores]:
        rank = max(axes) + 1
        window = prod(weights.shape[rank:])
        if window == 1:
            weights = weights.reshape(weights.shape[:rank])
        if self.p == 2 and weights.ndim == 2:
            return {d: _squares(weights, d) for d in axes}
        if 1 < window <= _FEW:  # a kernel's window, added up in one pass
            flat = weights.reshape(-1, window)
            summed = np.einsum("ik->i", np.abs(flat)) if self.p == 1 else np.einsum("ik,ik->i", flat, flat)
            powers = summed.reshape(weights.shape[:rank])
        else:
            powers = np.abs(weights) if self.p == 1 else np.square(weights)
        sums = {}
        for d in axes:
            others = tuple(i for i in range(powers.ndim) if i != d)
            sums[d] = np.asarray(powers.sum(axis=others, dtype=np.float64))
        return sums


def _squares(matrix: npt.NDArray[np.float32], d: int) -> Scores:
    """Sums of squares per row (0) or column (1), of some rows or columns at a time in single precision."""
    pieces = range(0, matrix.shape[1 - d], _MANY)
    if d == 0:
        parts = [np.einsum("ij,ij->i", m, m) for m in (matrix[:, i : i + _MANY] for i in pieces)]
    else:
        parts = [np.einsum("ij,ij->j", m, m) for m in (matrix[i : i + _MANY] for i in pieces)]
    return np.asarray(np.sum(parts, axis=0, dtype=np.float64)) if parts else np.zeros(matrix.shape[d])
