"""The allocator that fits what is known."""

from __future__ import annotations

from dataclasses import dataclass, field

from graphprune.passes.allocators.allocation import Allocation, Allocator, Removed
from graphprune.passes.allocators.levels import ByLevel, global_ranking
from graphprune.passes.allocators.rate_distortion import RateDistortion
from graphprune.passes.allocators.scaled import Scaled


@dataclass(frozen=True)
class Auto:
    """Chooses by a rule.

    * Scores that only rank: ``global``, since their sums mean nothing.
    * Scores that estimate error, and samples, and no more groups than ``scaled`` measures: ``scaled``.
    * Scores that estimate error otherwise: ``rate-distortion``.

    Attributes:
        ranked: for scores that only rank.
        estimated: for scores that estimate error.
        scaled: for these with samples.
    """

    ranked: Allocator = field(default_factory=lambda: ByLevel(global_ranking))
    estimated: Allocator = field(default_factory=RateDistortion)
    scaled: Scaled = field(default_factory=Scaled)

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
        if allocation.effect is not None and len(allocation.groups) <= self.scaled.calls:
            return "scaled", self.scaled
        return "rate-distortion", self.estimated
