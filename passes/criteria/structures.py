"""Widths, experts and blocks in one table of errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from graphprune.passes.criteria.blocks import WithBlocks
from graphprune.passes.criteria.expert_subsets import eliminated
from graphprune.passes.criteria.experts import ExpertCriterion
from graphprune.passes.criteria.obs import OptimalBrainSurgeon

from graphprune.calibration.evidence import Evidence

Base = Callable[[Evidence], npt.NDArray[np.float64]]


def with_experts(base: Base) -> ExpertCriterion:
    """Experts by the error of their layer's output, relative to its sum, as OBS has it for widths."""
    return ExpertCriterion(eliminated, base, additive=True)


@dataclass(frozen=True)
class Structures:
    """OBS for widths, the layer's error for experts, and measured effects for blocks.

    Attributes:
        base: of the widths.
        additive: all scores are errors on one scale.
    """

    base: Base = field(default_factory=OptimalBrainSurgeon)
    additive: bool = True

    def __call__(self, evidence: Evidence) -> npt.NDArray[np.float64]:
        """Scores ``[len(algebra)]``."""
        return WithBlocks(with_experts(self.base))(evidence)
