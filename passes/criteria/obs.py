"""Optimal brain surgeon, structured: the error that is left once the kept weights make up for a unit.

A layer ``y = xW`` that loses features S, with ``C = E[x xᵀ]`` and ``W`` re-solved by least squares, errs by
``tr(W_Sᵀ ((C⁻¹)_SS)⁻¹ W_S)`` (Hassibi & Stork 1993; ZipLM, Kurtic et al. 2023, removes whole structures one
after the other and keeps ``W`` and ``C⁻¹`` up to date).  A unit that several layers read is judged by all of
them: the sum of their relative errors (SPA's groups, Wang et al. 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from graphprune.passes.criteria.magnitude import Magnitude

from graphprune.calibration.evidence import Consumer, Evidence
from graphprune.calibration.moments import Moments
from graphprune.calibration.rows import is_weighted
from graphprune.calibration.weight_moments import Source, measured
from graphprune.groups import Group
from graphprune.progress import counted

Matrix = npt.NDArray[np.float64]
#: Relative to the mean of the covariance's diagonal.
DAMPING = 1e-3
#: A group is taken apart in about so many rounds.
_ROUNDS = 32
#: An output of no more energy says nothing.
_NOTHING = 1e-30


@dataclass
class Problem:
    """One layer that reads a group: what remains of it while units go.

    Attributes:
        weight: ``[d, o]``, compensated so far.
        inverse: ``[d, d]``, inverse of the damped covariance of what remains.
        places: ``[units, b]`` features of each unit.
        scale: turns an error into a relative one.
    """

    weight: Matrix
    inverse: Matrix
    places: npt.NDArray[np.int64]
    scale: float

    def errors(self, units: npt.NDArray[np.int64]) -> Matrix:
        """What the removal of each of these units alone costs."""
        at = self.places[units]
        blocks = self.inverse[at[:, :, None], at[:, None, :]]
        own = self.weight[at]
        solved = np.linalg.solve(blocks, own)
        return np.asarray(np.einsum("ubo,ubo->u", own, solved) * self.scale)

    def remove(self, units: npt.NDArray[np.int64]) -> float:
        """Removes these units at once, compensates, and returns the error."""
        gone = self.places[units].ravel()
        block = self.inverse[np.ix_(gone, gone)]
        solved = np.linalg.solve(block, self.weight[gone])
        error = float(np.vdot(self.weight[gone], solved)) * self.scale
        reach = self.inverse[:, gone]
        self.weight -= reach @ solved
        self.inverse -= reach @ np.linalg.solve(block, reach.T)
        # A removed feature is nobody's neighbour any more, and its block stays invertible.
        self.weight[gone] = 0.0
        self.inverse[gone] = self.inverse[:, gone] = 0.0
        self.inverse[gone, gone] = 1.0
        return error


@dataclass(frozen=True)
class OptimalBrainSurgeon:
    """Scores by the least-squares error at all layers that read a unit.

    Attributes:
        damping: added to the covariance's diagonal, relative to its mean.
        shrink: shrink covariances as far as rows that were held out call for.
        source: of the moments: measured on the samples, or known from the weights.
        additive: a score is the error that a unit adds when it goes after all less important ones.
    """

    damping: float = DAMPING
    shrink: bool = True
    source: Source = measured
    additive: bool = True

    def __call__(self, evidence: Evidence) -> npt.NDArray[np.float64]:
        """Scores ``[len(algebra)]``: relative output errors, added up over the layers that read a unit."""
        algebra = evidence.graph.analysis.algebra
        scores = np.zeros(len(algebra))
        magnitude = Magnitude(2)(evidence) ** 2
        for group in counted(evidence.progress, "scoring", evidence.groups):
            problems = list(self._problems(evidence, group))
            if problems:
                scores[group.units] = eliminate(problems, group.size)
            else:  # nobody reads it through a weight: its share of the whole group
                own = magnitude[group.units]
                scores[group.units] = own / max(own.sum(), np.finfo(float).tiny)
        return scores

    def _problems(self, evidence: Evidence, group: Group) -> list[Problem]:
        found = []
        known_of = self.source(evidence)
        for consumer in evidence.consumers:
            places = places_of(evidence, consumer, group)
            if places is None:
                continue
            moments = known_of(consumer)
            if moments is None:  # too large a layer, or nothing is known of it
                continue
            # Rows that count differently have no bias that could take their mean.
            weighted = is_weighted(consumer.layer, consumer.landing)
            plain = moments.second if weighted else moments.covariance
            covariance = moments.shrunk(centred=not weighted) if self.shrink else plain
            scale = scale_of(consumer, moments)
            for matrix, own in zip(consumer.matrices, covariance, strict=True):
                inverse = inverse_of(own, self.damping)
                found.append(Problem(matrix.copy(), inverse, places, scale))
        return found


def scale_of(consumer: Consumer, moments: Moments) -> float:
    """One over the energy of what a layer's output becomes part of."""
    own = sum(float(np.vdot(w, c @ w)) for w, c in zip(consumer.matrices, moments.covariance, strict=True))
    return one_over(max(moments.energy, own))


def one_over(energy: float) -> float:
    """Nothing for an output that says nothing."""
    return 1.0 / energy if energy > _NOTHING else 0.0


def inverse_of(covariance: Matrix, damping: float) -> Matrix:
    """Inverse of ``covariance`` with ``damping`` times its mean diagonal added."""
    d = len(covariance)
    mean = float(np.trace(covariance)) / d
    return np.asarray(np.linalg.inv(covariance + np.eye(d) * (damping * mean or 1.0)))


def places_of(evidence: Evidence, consumer: Consumer, group: Group) -> npt.NDArray[np.int64] | None:
    """Features ``[units, b]`` of a consumer that go with each unit of a group; None if it reads none."""
    if consumer.axis.is_plain:
        return None
    rows = evidence.graph.analysis.algebra.live(consumer.axis)
    index = np.full(len(evidence.graph.analysis.algebra), -1, np.int64)
    index[group.units] = np.arange(group.size)
    owner = index[rows]  # [channels, k]
    if (owner < 0).all():
        return None
    channels = [np.flatnonzero((owner == u).any(axis=1)) for u in range(group.size)]
    sizes = {len(c) for c in channels}
    if sizes == {0} or len(sizes) > 1:
        return None
    shape = tuple(int(n) for n in consumer.use.value.const_value.shape.numpy())  # type: ignore[union-attr]
    layer = consumer.layer
    return np.stack([layer.features_of(c, shape).ravel() for c in channels])


def eliminate(problems: Sequence[Problem], size: int) -> Matrix:
    """Removes all units, the cheapest first; what each one added to the error.

    Many units go some at a time: the more that are left, the less it matters which of two goes first.
    """
    left = np.arange(size)
    scores = np.zeros(size)
    floor = 0.0
    while len(left):
        errors = np.sum([p.errors(left) for p in problems], axis=0)
        order = np.argsort(errors, kind="stable")
        many = max(1, len(left) // _ROUNDS) if size > 2 * _ROUNDS else 1
        goes = left[order[:many]]
        error = sum(p.remove(goes) for p in problems)
        alone = np.maximum(errors[order[:many]], np.finfo(float).tiny)
        share = np.sort(alone / alone.sum()) * error
        scores[goes] = np.maximum.accumulate(np.maximum(share, floor))
        floor = float(scores[goes].max())
        left = left[order[many:]]
    return scores
