"""The allocator that fits what is known."""

from __future__ import annotations

from dataclasses import dataclass, field

from graphprune.passes.allocators.allocation import Allocation, Allocator, Removed
from graphprune.passes.allocators.levels import ByLevel, global_ranking
from graphprune.passes.allocators.measured import Measured
from graphprune.passes.allocators.rate_distortion import RateDistortion


@dataclass(frozen=True)
class Auto:
    """Chooses by a rule.

    * Scores that only rank: ``global``, since their sums mean nothing.
    * Scores that estimate error, and samples, and no more groups than ``measured`` measures: ``measured``.
    * Scores that estimate error otherwise: ``rate-distortion``.

    Attributes:
        ranked: for scores that only rank.
        estimated: for scores that estimate error.
        measured: for these with samples.
    """

    ranked: Allocator = field(default_factory=lambda: ByLevel(global_ranking))
    estimated: Allocator = field(default_factory=RateDistortion)
    measured: Measured = field(default_factory=Measured)

    def __call__(self, allocation: Allocation) -> Removed:
        """A cut that meets all targets.

        Raises:
            TargetError: even the largest cut does not.
        """
        name, chosen = self.choose(allocation)
        allocation.report["chosen"] = name
        return chosen(allocation)

    def choose(self, allocation: Allocation) -> tuple[str, Allocator]:
        """The allocator for this case, and its name."""
        if not allocation.additive:
            return "global", self.ranked
        if allocation.effect is not None and len(allocation.groups) <= self.measured.calls:
            return "measured", self.measured
        return "rate-distortion", self.estimated
