"""Rate-distortion on tables whose scale is measured group by group.

Errors that are estimated where a tensor is used say little about how much the outputs care.  So each group is
cut alone by some part, the effect on the outputs is measured, and its table is scaled to agree with it; the
shape of a table stays that of the scores.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from graphprune.passes.allocators.allocation import Allocation, Removed
from graphprune.passes.allocators.meter import Meter
from graphprune.passes.allocators.rate_distortion import RateDistortion
from graphprune.passes.allocators.tables import Choice, Tables, Values

#: A group whose measured effect is nil still costs this part of what the others do.
_LEAST_FACTOR = 1e-3


@dataclass(frozen=True)
class Measured:
    """Rate-distortion allocation after one measurement per group.

    Attributes:
        part: of a group's units that go in its measurement.
        calls: groups that are measured, those first that cost most; the others are scaled like the median.
        seconds: at most, all measurements together.
        search: what runs on the scaled tables.
    """

    part: float = 0.3
    calls: int = 128
    seconds: float = 120.0
    search: RateDistortion = field(default_factory=RateDistortion)

    def __call__(self, allocation: Allocation) -> Removed:
        """A cut of little error that meets all targets.

        Raises:
            TargetError: even the largest cut does not.
            UsageError: there are no samples.
        """
        meter = Meter(allocation, "measured", self.calls, self.seconds)
        _ = allocation.largest_cut  # before anything is measured
        return self.search(self.rescaled(allocation, meter))

    def rescaled(self, allocation: Allocation, meter: Meter) -> Allocation:
        """The same allocation with scores that agree with what is measured."""
        tables = Tables(allocation)
        factors = np.full(len(tables), np.nan)
        scores = allocation.errors.copy()
        savings = tables.prices(tables.dense).sum(axis=1) * tables.kept[tables.starts]
        for i in np.argsort(-savings, kind="stable").tolist():
            if tables.lengths[i] == 1:
                continue
            choice = self._alone(tables, i)
            effect = meter(tables.removed(choice))
            if effect is None:
                break
            estimate = tables.error(choice)
            if estimate > 0:
                factors[i] = effect / estimate
            else:  # a table of zeros has no shape to keep
                group = allocation.groups[i]
                gone = group.size - int(tables.widths(choice)[i])
                order = allocation.best_first[group.id]
                scores[order] = effect / gone * np.linspace(1.0 + 1e-6, 1.0, group.size)
                factors[i] = 1.0
        factors = _completed(factors)
        for group, factor in zip(allocation.groups, factors.tolist(), strict=True):
            scores[group.units] *= factor
        return replace(allocation, scores=scores, additive=True)

    def _alone(self, tables: Tables, i: int) -> Choice:
        """The cut of one group alone by about the wanted part, one step at least."""
        kept = tables.kept[tables.starts[i] : tables.starts[i] + tables.lengths[i]]
        choice = tables.dense
        choice[i] = 1 + int(np.argmin(np.abs(kept[1:] - kept[0] * (1.0 - self.part))))
        return choice


def _completed(factors: Values) -> Values:
    known = factors[np.isfinite(factors) & (factors > 0)]
    middle = float(np.median(known)) if len(known) else 1.0
    return np.maximum(np.where(np.isfinite(factors), factors, middle), _LEAST_FACTOR * middle)
