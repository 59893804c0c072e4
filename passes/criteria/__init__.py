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
from graphprune.passes.criteria.activation import ActivationMean, ActivationNorm
from graphprune.passes.criteria.at_start import ConnectionSensitivity, GradientFlow, SynapticFlow
from graphprune.passes.criteria.blocks import Angular, BlockEffect
from graphprune.passes.criteria.cfsp import CoarseToFine
from graphprune.passes.criteria.combination import Combination
from graphprune.passes.criteria.contiguous import Contiguous
from graphprune.passes.criteria.data_free import DataFreeBound
from graphprune.passes.criteria.experts import expert_subset, reap_criterion, routing_frequency
from graphprune.passes.criteria.fluctuation import Fluctuation, VarianceError
from graphprune.passes.criteria.fpgm import GeometricMedian
from graphprune.passes.criteria.lamp import Lamp
from graphprune.passes.criteria.magnitude import Magnitude
from graphprune.passes.criteria.measured_effect import MeasuredEffect
from graphprune.passes.criteria.norm_scale import NormScale
from graphprune.passes.criteria.obs import OptimalBrainSurgeon
from graphprune.passes.criteria.random_scores import Random
from graphprune.passes.criteria.structures import Structures
from graphprune.passes.criteria.taylor import Fisher, Taylor
from graphprune.passes.criteria.wanda import Wanda

from graphprune.calibration.evidence import Evidence


class Criterion(Protocol):
    """Scores the units of a model."""

    @property
    def additive(self) -> bool:
        """Do sums of scores estimate an error?"""
        ...

    def __call__(self, evidence: Evidence) -> npt.NDArray[np.float64]:
        """Scores ``[len(algebra)]``."""
        ...


#: Those that look at the weights as the file has them, and at nothing else.
BY_WEIGHTS = frozenset({"l1", "l2", "lamp", "fpgm", "bn-scale", "random"})
#: Names for the command line and :func:`graphprune.plan`; each takes the seed.
CRITERIA: Mapping[str, Callable[[int], Criterion]] = {
    "act-mean": lambda seed: ActivationMean(),
    "act-norm": lambda seed: ActivationNorm(),
    "angular": lambda seed: Angular(),
    "block-effect": lambda seed: BlockEffect(),
    "bn-scale": lambda seed: NormScale(),
    "cfsp": lambda seed: CoarseToFine(),
    "combination": lambda seed: Combination(),
    "contiguous": lambda seed: Contiguous(),
    "dfpc": lambda seed: DataFreeBound(),
    "expert-subset": lambda seed: expert_subset(),
    "fisher": Fisher,
    "flap": lambda seed: Fluctuation(),
    "fpgm": lambda seed: GeometricMedian(),
    "grasp": GradientFlow,
    "l1": lambda seed: Magnitude(1),
    "l2": lambda seed: Magnitude(2),
    "lamp": lambda seed: Lamp(),
    "obs": lambda seed: OptimalBrainSurgeon(),
    "random": Random,
    "reap": lambda seed: reap_criterion(),
    "routing-frequency": lambda seed: routing_frequency(),
    "sensitivity": lambda seed: MeasuredEffect(),
    "snip": ConnectionSensitivity,
    "structures": lambda seed: Structures(),
    "synflow": SynapticFlow,
    "taylor": Taylor,
    "variance": lambda seed: VarianceError(),
    "wanda": lambda seed: Wanda(),
}
