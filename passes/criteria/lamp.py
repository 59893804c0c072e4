"""Layer-adaptive magnitudes: a weight's square relative to those of all weights that would outlive it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from graphprune.passes.criteria.members import finite_numbers_of, group_of_units, slices_of, whole_weights

from graphprune.calibration.evidence import Evidence
from graphprune.graph import DependencyGraph

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Lamp:
    """LAMP (Lee et al. 2021, "Layer-adaptive sparsity for magnitude-based pruning"), for structures.

    In each member weight, with ``u`` the squared norm of a slice, its score is ``u_i / sum(u_j: u_j >=
    u_i)``: the best unit of a layer scores 1, whatever the layer's scale.  Scores of members are added up.

    Attributes:
        additive: the scores only rank; they estimate no error.
    """

    additive: bool = False

    def __call__(self, evidence: Evidence) -> Scores:
        """Scores ``[len(algebra)]``.

        Raises:
            ModelError: a weight is NaN.
        """
        graph = evidence.graph
        owner, pools = group_of_units(graph)
        scores = np.zeros(len(owner))
        for squares, present in _squares_of_layers(graph):
            for pool in np.unique(owner[present]).tolist():
                if pool >= 0:
                    units = pools[pool][np.isin(pools[pool], present)]
                    scores[units] += relative_to_larger(squares[units])
        return scores


def relative_to_larger(squares: Scores) -> Scores:
    """``u_i / sum(u_j: u_j >= u_i)``; zero for zero."""
    order = np.argsort(squares, kind="stable")
    tails = np.cumsum(squares[order][::-1])[::-1]
    # Equal ones outlive each other: each sees the sum from the first of them on.
    first = np.searchsorted(squares[order], squares[order], side="left")
    tails = tails[first]
    found = np.zeros(len(squares))
    found[order] = np.divide(squares[order], tails, out=np.zeros(len(squares)), where=tails > 0)
    return found


def _squares_of_layers(graph: DependencyGraph) -> Iterator[tuple[Scores, npt.NDArray[np.int64]]]:
    """Per member weight, squared norms ``[len(algebra)]`` of the slices, and the units that it holds."""
    size = len(graph.analysis.algebra)
    for part in slices_of(graph):
        powers = np.square(finite_numbers_of(part.use), dtype=np.float64)
        for d, rows in part.rows.items():
            local = powers.sum(axis=tuple(i for i in range(powers.ndim) if i != d))
            squares = np.zeros(size)
            for column in rows.T:
                np.add.at(squares, column, local)
            yield squares, np.unique(rows[rows > 0])
    wholes = {
        unit: sum(float(np.square(finite_numbers_of(use), dtype=np.float64).sum()) for use in uses)
        for unit, uses in whole_weights(graph)
    }
    squares = np.zeros(size)
    squares[list(wholes)] = list(wholes.values())
    yield squares, np.array(list(wholes), np.int64)
