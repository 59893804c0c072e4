"""Criteria: how much does each unit of each group matter?

A criterion is a callable object: ``criterion(evidence) -> scores``, one number per unit id of the algebra,
higher is more important.  Its attribute ``additive`` says whether a score estimates the error that the unit's
removal makes, so that scores may be added up, or only ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from graphprune.calibration.evidence import Evidence
from graphprune.passes.criteria.magnitude import Magnitude
from graphprune.passes.criteria.obs import OptimalBrainSurgeon
from graphprune.passes.criteria.random_scores import Random


class Criterion(Protocol):
    """Scores the units of a model."""

    @property
    def additive(self) -> bool:
        """Do sums of scores estimate an error?"""
        ...

    def __call__(self, evidence: Evidence) -> npt.NDArray[np.float64]:
        """Scores ``[len(algebra)]``."""
        ...


#: Names for the command line and :func:`graphprune.plan`; each takes the seed.
CRITERIA: Mapping[str, Callable[[int], Criterion]] = {
    "l1": lambda seed: Magnitude(1),
    "l2": lambda seed: Magnitude(2),
    "obs": lambda seed: OptimalBrainSurgeon(),
    "random": Random,
}
