"""What is lost when a unit becomes its mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from graphprune.passes.criteria.members import group_of_units
from graphprune.passes.criteria.readers import Reader, sum_over_readers

from graphprune.calibration.evidence import Evidence
from graphprune.calibration.moments import Moments

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fluctuation:
    """FLAP (An et al. 2024): the weighted variance of a unit's features, standardised per group.

    ``s(u) = sum over the layers that read u, over its features j: Var(x_j) sum_o W_jo²`` (WIFV), relative to
    the energy of what the layer's output becomes part of; then ``z = (s - mean) / std`` within the group, so
    that one ranking serves all groups.  All scores are raised by the same number to make the least of them
    zero: a ranking relative to the groups' means, which are now all that number, is the one by ``z``.

    Attributes:
        additive: the scores only rank; they estimate no error.
    """

    additive: bool = False

    def __call__(self, evidence: Evidence) -> Scores:
        """Scores ``[len(algebra)]``."""
        scores = sum_over_readers(evidence, _weighted_variance)
        pools = group_of_units(evidence.graph)[1]
        for units in pools:
            scores[units] = _standardised(scores[units])
        least = min((float(scores[units].min()) for units in pools), default=0.0)
        for units in pools:
            scores[units] -= least
        return scores


@dataclass(frozen=True)
class VarianceError:
    """The error that is left when a unit's features are replaced by their means (FLAP's compensation).

    ``score(u) = sum over the layers that read u: tr(W_uᵀ Cov_uu W_u)``, relative to the energy of what the
    layer's output becomes part of.  For one unit that is the exact squared error of these outputs; of several
    units the covariance between them is left out.

    Attributes:
        additive: the scores estimate output error.
    """

    additive: bool = True

    def __call__(self, evidence: Evidence) -> Scores:
        """Scores ``[len(algebra)]``."""
        return sum_over_readers(evidence, _error_of_means, pairs=True)


def _weighted_variance(reader: Reader) -> Scores:
    features = reader.variance * reader.outgoing(2)
    return reader.of_units(features) * reader.scale


def _error_of_means(reader: Reader) -> Scores:
    at = reader.places
    assert isinstance(reader.moments, Moments)
    error = np.zeros(len(at))
    for weight, covariance in zip(reader.weight, reader.moments.covariance, strict=True):
        blocks, own = covariance[at[:, :, None], at[:, None, :]], weight[at]
        error += np.einsum("ubo,ubo->u", own, blocks @ own)
    return np.asarray(error.clip(min=0.0) * reader.scale)


def _standardised(scores: Scores) -> Scores:
    deviation = float(scores.std())
    # Rounding alone makes no unit better than another.
    if deviation <= 1e-12 * float(np.abs(scores).max(initial=0.0)):
        return np.zeros(len(scores))
    return np.asarray((scores - scores.mean()) / deviation)
