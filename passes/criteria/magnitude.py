"""Norms of the weights.

Local scores of all member tensors are added up through their rows, so a unit answers for everything that
goes with it (group-level importance, as in DepGraph and SPA).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

import numpy as np
import numpy.typing as npt
from graphprune.passes.criteria.members import nan_error, numbers_of, rows_of, slices_of, whole_weights

from graphprune.ahead import ahead
from graphprune.analysis import Use
from graphprune.calibration.evidence import Evidence
from graphprune.parts import is_big
from graphprune.progress import counted
from graphprune.storage.mapped import let_go, will_read

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
        asked = _in_question(evidence)
        for part in counted(evidence.progress, "scoring", list(slices_of(graph))):
            axes = [d for d, rows in part.rows.items() if asked[rows].any()]
            for d, local in self._known(evidence, part.use, axes).items() if axes else ():
                whole[id(part.use.value)] = float(local.sum())
                for column in part.rows[d].T:
                    np.add.at(total, column, local)
        for unit, uses in whole_weights(graph):
            for use in uses if asked[unit] else ():
                if id(use.value) not in whole:
                    whole[id(use.value)] = float(self.along(use, [0])[0].sum())
                total[unit] += whole[id(use.value)]
        total[0] = 0.0
        return np.asarray(total ** (1.0 / self.p))

    def _known(self, evidence: Evidence, use: Use, axes: Sequence[int]) -> dict[int, Scores]:
        """The same as :meth:`along`, perhaps from the journal."""

        def compute() -> dict[str, Scores]:
            return {str(d): local for d, local in self.along(use, axes).items()}

        name = f"{type(evidence).__name__} p={self.p} {use.key} {list(axes)}"
        return {int(d): np.asarray(a) for d, a in evidence.journal.remember(name, compute).items()}

    def along(self, use: Use, axes: Sequence[int]) -> dict[int, Scores]:
        """Sums of the weights' powers over all other axes, for each of ``axes``."""
        rows = rows_of(use)
        if rows is None:
            sums = self._sums(numbers_of(use), axes)
        else:  # a few rows at a time
            tensor = use.value.const_value
            assert tensor is not None
            will_read(tensor)
            sums = _joined(ahead(partial(self._sums_of, read, axes) for read in rows))
            let_go(tensor)
        if any(np.isnan(found).any() for found in sums.values()):
            raise nan_error(use)
        return sums

    def _sums_of(self, read: Callable[[], npt.NDArray[np.float32]], axes: Sequence[int]) -> dict[int, Scores]:
        return self._sums(read(), axes)

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


def _in_question(evidence: Evidence) -> npt.NDArray[np.bool_]:
    """Units whose scores count: of a large model's weights no more is read than is needed."""
    if not is_big(evidence.graph.model):
        return np.ones(len(evidence.graph.analysis.algebra), bool)
    found = np.zeros(len(evidence.graph.analysis.algebra), bool)
    for group in evidence.groups:
        found[group.units] = True
    return found


def _joined(parts: Iterable[dict[int, Scores]]) -> dict[int, Scores]:
    """Sums of all rows, from those of some rows each."""
    rows: list[Scores] = []
    others: dict[int, Scores] = {}
    for part in parts:
        for d, local in part.items():
            if d == 0:
                rows.append(local)
            else:
                others[d] = others[d] + local if d in others else local
    return others | ({0: np.concatenate(rows)} if rows else {})


def _squares(matrix: npt.NDArray[np.float32], d: int) -> Scores:
    """Sums of squares per row (0) or column (1), of some rows or columns at a time in single precision."""
    pieces = range(0, matrix.shape[1 - d], _MANY)
    if d == 0:
        parts = [np.einsum("ij,ij->i", m, m) for m in (matrix[:, i : i + _MANY] for i in pieces)]
    else:
        parts = [np.einsum("ij,ij->j", m, m) for m in (matrix[i : i + _MANY] for i in pieces)]
    return np.asarray(np.sum(parts, axis=0, dtype=np.float64)) if parts else np.zeros(matrix.shape[d])
