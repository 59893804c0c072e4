"""Size of activations, as the layers that read them see it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from graphprune.passes.criteria.readers import Reader, sum_over_readers

from graphprune.calibration.evidence import Evidence

Scores = npt.NDArray[np.float64]
_TINY = float(np.finfo(float).tiny)


@dataclass(frozen=True)
class ActivationNorm:
    """Root mean square of a unit's features (activation pruning; Minitron, Muralidharan et al. 2024).

    ``score(u) = sum over the layers that read u: sqrt(sum_j E[x_j²])``, relative to the norm of all that the
    layer reads.  The root of the second moment stands for the mean absolute value of the papers: they are
    proportional for features of one kind of distribution, and the moments are there already.

    Attributes:
        additive: the scores only rank; they estimate no error.
    """

    additive: bool = False

    def __call__(self, evidence: Evidence) -> Scores:
        """Scores ``[len(algebra)]``."""
        return sum_over_readers(evidence, _norm)


@dataclass(frozen=True)
class ActivationMean:
    """Absolute means of a unit's features: ``|E[x_j]|``, summed over features and layers.

    For features behind a ReLU this is the mean absolute value; elsewhere positive and negative values cancel.
    It is relative to the sum of the absolute means of all that the layer reads.

    Attributes:
        additive: the scores only rank; they estimate no error.
    """

    additive: bool = False

    def __call__(self, evidence: Evidence) -> Scores:
        """Scores ``[len(algebra)]``."""
        return sum_over_readers(evidence, _mean)


def _norm(reader: Reader) -> Scores:
    return np.sqrt(reader.of_units(reader.power) / max(float(reader.power.sum()), _TINY))


def _mean(reader: Reader) -> Scores:
    means = np.abs(reader.moments.mean)
    return reader.of_units(means) / max(float(means.sum()), _TINY)
