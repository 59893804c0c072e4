"""Zeroth order: the outputs themselves say how much each group matters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from graphprune.passes.criteria.obs import OptimalBrainSurgeon
from graphprune.passes.effect import Effect

from graphprune.calibration.evidence import Evidence
from graphprune.deaths import settle
from graphprune.groups import Group

Scores = npt.NDArray[np.float64]
#: A cut that breaks the outputs altogether counts like this.
_WORST = 1e3
_HALVINGS = 60


@dataclass(frozen=True)
class MeasuredEffect:
    """Sensitivity (FastNAS, AIMET): each group alone is cut to some widths, the outputs compared.

    Within a group the order is that of OBS.  Scores are scaled such that their cumulative sums in this order
    pass through the lower convex hull of the measured effects; the hull, since scores rise along the order.
    A run of the model per group and fraction.

    Attributes:
        fractions: of a group's units that go, or as many as may go; a block goes whole.
        samples: that are run.
        additive: a score is the change of the outputs that a unit adds to the loss of all before it.
    """

    fractions: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    samples: int = 128
    additive: bool = True

    def __call__(self, evidence: Evidence) -> Scores:
        """Scores ``[len(algebra)]``: relative squared errors of the model's outputs."""
        effect = Effect(evidence, self.samples)
        scores = OptimalBrainSurgeon()(evidence)
        for group in evidence.groups:
            if group.prunable:
                order = group.units[np.argsort(scores[group.units], kind="stable")]
                counts = self._counts(group)
                errors = [self._measured(evidence, effect, order[:count]) for count in counts]
                scores[order] = through_points(scores[order], counts, errors)
        return scores

    def _counts(self, group: Group) -> list[int]:
        """Numbers of units that are tried."""
        most = group.size - group.least
        wanted = (round(fraction * group.size) for fraction in self.fractions)
        counts = {min(max(count, 1), most) for count in wanted}
        return sorted(count for count in counts if count > 0)

    @staticmethod
    def _measured(
        evidence: Evidence, effect: Callable[[npt.NDArray[np.bool_]], float], units: npt.NDArray[np.int32]
    ) -> float:
        analysis = evidence.graph.analysis
        removed = np.zeros(len(analysis.algebra), bool)
        removed[units] = True
        return min(effect(settle(analysis, removed)), _WORST)


def through_points(shape: Scores, counts: Sequence[int], totals: Sequence[float]) -> Scores:
    """Ascending increments like ``shape`` whose cumulative sums are the hull of the given points.

    Args:
        shape: ``[n]`` ascending and not negative: how the increments should run.
        counts: ascending numbers of increments.
        totals: what that many of them should add up to.  Beyond the last one the scale stays what it was.
    """
    corners = convex_hull([(0, 0.0), *zip(counts, totals, strict=True)])
    found = np.array(shape, np.float64)
    slopes = [(e1 - e0) / (n1 - n0) for (n0, e0), (n1, e1) in pairwise(corners)]
    # Neighbouring pieces meet between their slopes, so that the increments rise from piece to piece.
    limits = [0.0, *np.sqrt(np.multiply(slopes[:-1], slopes[1:])), np.inf]
    factor = 1.0
    for i, slope in enumerate(slopes):
        (start, _), (end, _) = corners[i], corners[i + 1]
        found[start:end], factor = _scaled(found[start:end], slope, limits[i], limits[i + 1])
    last = corners[-1][0]
    floor = float(found[last - 1]) if last else 0.0
    found[last:] = np.maximum(shape[last:] * factor, floor)
    return found


def convex_hull(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Corners of the lower convex hull of points with ascending first coordinates, without descents."""
    rising: list[tuple[int, float]] = []
    for n, e in points:
        rising.append((n, max(e, rising[-1][1] if rising else e)))
    hull: list[tuple[int, float]] = []
    for n, e in rising:
        while len(hull) > 1:
            (n0, e0), (n1, e1) = hull[-2:]
            if (e1 - e0) * (n - n1) < (e - e1) * (n1 - n0):
                break
            hull.pop()
        hull.append((n, e))
    return hull


def _scaled(shape: Scores, mean: float, low: float, high: float) -> tuple[Scores, float]:
    """``shape`` times a factor, clipped to ``low`` and ``high``, so that its mean is right; the factor."""
    if mean <= 0.0:
        return np.zeros(len(shape)), 1.0
    if not shape.any():
        return np.full(len(shape), mean), 1.0
    # Zeros would need an infinite factor to reach a mean that the others are not allowed to make up for.
    shape = np.maximum(shape, 1e-12 * shape.max())
    # Nothing above the mean, and nothing below it.
    below, above = np.log(mean / shape.max()), np.log(mean / shape.min())
    for _ in range(_HALVINGS):
        middle = (below + above) / 2
        if np.clip(shape * np.exp(middle), low, high).mean() < mean:
            below = middle
        else:
            above = middle
    factor = float(np.exp(above))
    return np.clip(shape * factor, low, high), factor
