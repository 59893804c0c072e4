"""Redundancy: what lies near everything else can be replaced by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from graphprune.passes.criteria.magnitude import Magnitude
from graphprune.passes.criteria.members import finite_numbers_of, slices_of, whole_weights

from graphprune.analysis import Use
from graphprune.calibration.evidence import Evidence
from graphprune.graph import DependencyGraph

Scores = npt.NDArray[np.float64]
#: Entries of a matrix of distances that are held at once.
_ENTRIES = 1 << 24


@dataclass(frozen=True)
class GeometricMedian:
    """FPGM (He et al. 2019, "Filter pruning via geometric median"): distances to all other units.

    A unit's vector is made of all its member slices, and its score is the sum of its L2 distances from the
    vectors of its group.  Units near the geometric median score least.  A unit without competitors in its
    group (a block) is ranked by its L2 norm.

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
        scores = Magnitude(2)(evidence)
        members = _members(graph)
        for group in graph.groups:
            own = [m for m in (member(group.units) for member in members) if m is not None]
            if group.prunable and group.size > 1 and own:
                scores[group.units] = sums_of_distances(own, group.size)
        return scores


#: Loads the vectors ``[units, n]`` of some units in one member.
Load = Callable[[], Scores]


def sums_of_distances(members: Sequence[Load], size: int) -> Scores:
    """Sum of the L2 distances of each vector from all others, by the Gram matrix, some rows at a time.

    Args:
        members: each loads a piece ``[size, n]`` of all vectors.
        size: number of vectors.
    """
    found = np.zeros(size)
    step = max(1, _ENTRIES // size)
    for start in range(0, size, step):
        here = slice(start, min(start + step, size))
        squared = np.zeros((here.stop - start, size))
        for load in members:
            x = load()
            # The distance of near vectors is a small difference of large numbers: centred, they are smaller.
            x = x - x.mean(axis=0)
            norms = np.einsum("un,un->u", x, x)
            squared += (norms[here, None] + norms - 2.0 * (x[here] @ x.T)).clip(min=0.0)
        squared[np.arange(here.stop - start), np.arange(start, here.stop)] = 0.0
        found[here] = np.sqrt(squared).sum(axis=1)
    return found


def _members(graph: DependencyGraph) -> list[Callable[[npt.NDArray[np.int32]], Load | None]]:
    """Per member weight, what gives the vectors of some units; None where it does not hold them."""
    found = [
        _sliced(part.use, d, rows, len(graph.analysis.algebra))
        for part in slices_of(graph)
        for d, rows in part.rows.items()
    ]
    wholes = dict(whole_weights(graph))
    return [*found, lambda units: _whole(wholes, units)]


def _sliced(
    use: Use, d: int, rows: npt.NDArray[np.int32], size: int
) -> Callable[[npt.NDArray[np.int32]], Load | None]:
    def vectors(units: npt.NDArray[np.int32]) -> Load | None:
        number = np.full(size, -1, np.int64)
        number[units] = np.arange(len(units))
        position, column = np.nonzero(number[rows] >= 0)
        owner = number[rows[position, column]]
        counts = np.bincount(owner, minlength=len(units))
        if not counts[0] or (counts != counts[0]).any():
            return None
        at = position[np.argsort(owner, kind="stable")]

        def load() -> Scores:
            array = np.moveaxis(finite_numbers_of(use), d, 0)
            return array.reshape(len(array), -1)[at].reshape(len(units), -1).astype(np.float64)

        return load

    return vectors


def _whole(wholes: dict[int, list[Use]], units: npt.NDArray[np.int32]) -> Load | None:
    """Units that take whole weights with them: experts that are written out one by one."""
    of_units = [wholes.get(int(u), []) for u in units]
    if len(set(map(_shapes, of_units))) > 1 or not of_units[0]:
        return None

    def load() -> Scores:
        return np.stack(list(_flat(of_units)))

    return load


def _shapes(uses: Sequence[Use]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(n) for n in u.value.const_value.shape.numpy()) for u in uses)  # type: ignore[union-attr]


def _flat(of_units: Sequence[Sequence[Use]]) -> Iterator[Scores]:
    for uses in of_units:
        yield np.concatenate([finite_numbers_of(use).ravel().astype(np.float64) for use in uses])
