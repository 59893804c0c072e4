"""How far a unit is from a linear combination of the others, by weights alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from graphprune.passes.criteria.obs import OptimalBrainSurgeon, places_of
from graphprune.passes.criteria.readers import shares_of_magnitude

from graphprune.calibration.evidence import Evidence
from graphprune.calibration.weight_moments import WeightMoments


@dataclass(frozen=True)
class Combination:
    """What is lost by the best linear combination, relative, added up over the layers that read a unit.

    The idea is UDFC's (Bai et al. 2023); the error is that of OBS, with moments that follow from filters and
    the statistics of BatchNormalization.  A group of which some reader's channels come from several layers
    can't be put together again: there, each reader loses a unit's share of the squared weights.

    Attributes:
        additive: scores are errors under moments that nobody measured: they only rank.
    """

    additive: bool = False

    def __call__(self, evidence: Evidence) -> npt.NDArray[np.float64]:
        """Scores ``[len(algebra)]``."""
        scores = OptimalBrainSurgeon(source=WeightMoments.of, shrink=False)(evidence)
        known = WeightMoments.of(evidence)
        shares = shares_of_magnitude(evidence)
        for group in evidence.groups:
            readers = [c for c in evidence.consumers if places_of(evidence, c, group) is not None]
            if any(known(reader) is None for reader in readers):
                scores[group.units] = shares[group.units] * len(readers)
        return scores
