"""Rate-distortion on tables that each group's own effect on the outputs scales.

An error is estimated where a tensor is used; how much the outputs care is measured once per group, with half
of it gone and all others whole.  The shape of a table stays that of the scores.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from graphprune.passes.allocators.allocation import Allocation, Removed
from graphprune.passes.allocators.meter import Meter
from graphprune.passes.allocators.rate_distortion import RateDistortion

#: Factors are this far from their median at most.
_SPREAD = 10.0


@dataclass(frozen=True)
class Scaled:
    """Rate-distortion allocation after one measurement per group.

    Attributes:
        part: of a group's units that go in its measurement.
        calls: groups that are measured at most; the others are scaled like the median.
        seconds: at most, all measurements together.
        search: what runs on the tables.
    """

    part: float = 0.5
    calls: int = 64
    seconds: float = float("inf")
    search: RateDistortion = field(default_factory=RateDistortion)

    def __call__(self, allocation: Allocation) -> Removed:
        """A cut of little error that meets all targets.

        Raises:
            TargetError: even the largest cut does not.
            UsageError: there are no samples.
        """
        meter = Meter(allocation, "scaled", min(self.calls, len(allocation.groups)), self.seconds)
        errors = allocation.errors.copy()
        factors = np.full(len(allocation.groups), np.nan)
        for i, group in enumerate(allocation.groups):
            kept = allocation.limits.kept(group, group.size * (1.0 - self.part))
            if kept == group.size:
                continue
            alone = np.zeros(len(errors), bool)
            allocation.remove(group, kept, alone)
            estimate = float(errors[alone].sum())
            effect = meter(allocation.budget.settle(alone)) if estimate > 0 else None
            if effect is not None and np.isfinite(effect):
                factors[i] = effect / estimate
        known = factors[np.isfinite(factors) & (factors > 0)]
        middle = float(np.median(known)) if len(known) else 1.0
        factors = np.where(np.isfinite(factors), factors, middle)
        factors = np.clip(factors, middle / _SPREAD, middle * _SPREAD)
        for group, factor in zip(allocation.groups, factors.tolist(), strict=True):
            errors[group.units] *= factor
        return self.search(replace(allocation, scores=errors, additive=True))
