"""Criteria for residual branches and layers of equal shape, which go as a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from graphprune.passes.criteria.block_change import angular_changes
from graphprune.passes.criteria.magnitude import Magnitude
from graphprune.passes.effect import Effect

from graphprune.calibration.evidence import Evidence
from graphprune.deaths import settle
from graphprune.groups import Group

Scores = npt.NDArray[np.float64]
Base = Callable[[Evidence], Scores]
#: Samples that an effect is measured on.
SAMPLES = 128
#: An effect that is no number, or breaks the outputs altogether, counts like this.
_WORST = 1e3
#: This part of every width goes where the scale of effects is compared with that of scores.
_PART = 0.3


@dataclass(frozen=True)
class Angular:
    """How far a block turns what passes it: ``arccos(cos(x, x + f(x))) / pi`` (ShortGPT, Gromov et al. 2024).

    Attributes:
        base: of all units but blocks.
        additive: angles only rank.
    """

    base: Base = field(default_factory=Magnitude)
    additive: bool = False

    def __call__(self, evidence: Evidence) -> Scores:
        """Scores ``[len(algebra)]``."""
        scores = self.base(evidence).copy()
        angles = angular_changes(evidence)
        for group in blocks_of(evidence):
            unit = int(group.units[0])
            scores[unit] = angles.get(unit, 1.0)
        return scores


@dataclass(frozen=True)
class BlockEffect:
    """The change of the outputs when a block goes alone (shortened-LLM's perplexity, without labels).

    Attributes:
        base: of all units but blocks.
        samples: that are run.
        additive: a block's score is an error of the outputs, but all else has the scores of ``base``.
    """

    base: Base = field(default_factory=Magnitude)
    samples: int = SAMPLES
    additive: bool = False

    def __call__(self, evidence: Evidence) -> Scores:
        """Scores ``[len(algebra)]``."""
        scores = self.base(evidence).copy()
        for unit, effect in effects_of_blocks(evidence, Effect(evidence, self.samples)).items():
            scores[unit] = effect
        return scores


@dataclass(frozen=True)
class WithBlocks:
    """Lets blocks compete with widths: effects of blocks on the scale of a criterion for widths.

    Scores are errors where a unit is read, effects are errors of the outputs.  What one is worth in terms of
    the other is measured: all widths lose the same part, and the sum of the scores is divided by the effect.

    Attributes:
        base: additive scores of widths.
        samples: that are run.
        additive: as ``base`` is.
    """

    base: Base
    samples: int = SAMPLES
    additive: bool = True

    def __call__(self, evidence: Evidence) -> Scores:
        """Scores ``[len(algebra)]``."""
        scores = self.base(evidence).copy()
        if not blocks_of(evidence):
            return scores
        effect = Effect(evidence, self.samples)
        analysis = evidence.graph.analysis
        removed = np.zeros(len(analysis.algebra), bool)
        for group in evidence.groups:
            if group.prunable and group.exact and group.kind != "blocks":
                order = np.argsort(scores[group.units], kind="stable")
                most = min(int(group.size * _PART), group.size - group.least)
                removed[group.units[order[:most]]] = True
        removed = settle(analysis, removed)
        measured = min(effect(removed), _WORST)
        scale = float(scores[removed].sum()) / measured if measured > 0 else 1.0
        for unit, error in effects_of_blocks(evidence, effect).items():
            scores[unit] = error * (scale if scale > 0 else 1.0)
        return scores


def blocks_of(evidence: Evidence) -> list[Group]:
    """Groups that are a whole block each."""
    return [group for group in evidence.groups if group.kind == "blocks"]


def effects_of_blocks(
    evidence: Evidence, effect: Callable[[npt.NDArray[np.bool_]], float]
) -> dict[int, float]:
    """Unit of a block -> measured effect of its removal alone."""
    analysis = evidence.graph.analysis
    found = {}
    for group in blocks_of(evidence):
        removed = np.zeros(len(analysis.algebra), bool)
        removed[group.units] = True
        found[int(group.units[0])] = min(effect(settle(analysis, removed)), _WORST)
    return found
