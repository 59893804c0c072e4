"""Random scores: what every criterion has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphprune.calibration.evidence import Evidence


@dataclass(frozen=True)
class Random:
    """Uniform random scores: the baseline every criterion has to beat.

    Attributes:
        seed: of the generator.
        additive: the scores only rank; they estimate no error.
    """

    seed: int = 0
    additive: bool = False

    def __call__(self, evidence: Evidence) -> npt.NDArray[np.float64]:
        """Scores ``[len(algebra)]``."""
        return np.random.default_rng(self.seed).random(len(evidence.graph.analysis.algebra))
