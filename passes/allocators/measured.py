"""Rate-distortion on tables whose scale is measured group by group.

Errors that are estimated where a tensor is used say little about how much the outputs care, and effects on
the outputs don't add up from nothing.  So they are measured where it matters: around the cut that the
estimates lead to, each group is given back alone (or cut, if it was whole), and its table is scaled to agree
with the change of the outputs.  The shape of a table stays that of the scores.  Of the cuts before and after,
the one of less measured effect is taken.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from graphprune.passes.allocators.allocation import Allocation, Removed
from graphprune.passes.allocators.meter import Meter
from graphprune.passes.allocators.rate_distortion import RateDistortion, lower_bound, report
from graphprune.passes.allocators.tables import Choice, Tables, Values

#: Factors are this far from their median at most: a difference of two noisy effects may be anything.
_SPREAD = 30.0


@dataclass(frozen=True)
class Measured:
    """Rate-distortion allocation before and after one measurement per group.

    Attributes:
        part: of a whole group's units that go in its measurement.
        calls: measurements; groups beyond them, those that cost least, are scaled like the median.
        seconds: at most, all measurements together.
        search: what runs on the tables.
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
        tables = Tables(allocation)
        first = self.search.search(tables)
        before = meter(tables.removed(first))
        if before is None:
            return tables.removed(first)
        # One call is kept for the result.
        scaled = Tables(self.rescaled(tables, first, before, meter, len(tables) + 2 - self.calls))
        second = self.search.search(scaled)
        after = meter(scaled.removed(second))
        is_better = after is not None and after < before
        allocation.report.update(report(scaled, second, lower_bound(scaled, second)) if is_better else {})
        allocation.report.update(effect_at_start=before, effect=after if is_better else before)
        return scaled.removed(second) if is_better else tables.removed(first)

    def rescaled(
        self, tables: Tables, around: Choice, effect: float, meter: Meter, left_out: int = 0
    ) -> Allocation:
        """The same allocation with scores that agree with what is measured.

        Args:
            tables: as estimated.
            around: a cut.
            effect: of it.
            meter: measures.
            left_out: groups that are not measured, those that cost least.
        """
        allocation = tables.allocation
        factors = np.full(len(tables), np.nan)
        scores = allocation.errors.copy()
        straight: dict[int, float] = {}  # a table of zeros has no shape to keep
        sizes = tables.kept[tables.starts]
        order = np.argsort(-tables.prices(tables.dense).sum(axis=1) * sizes, kind="stable").tolist()
        for i in order[: len(order) - max(left_out, 0)]:
            if tables.lengths[i] == 1:
                continue
            near = self.moved(tables, around, i)
            measured = meter(tables.removed(near))
            if measured is None:
                break
            change = max((effect - measured) * (1 if near[i] < around[i] else -1), 0.0)
            estimate = abs(tables.error(near) - tables.error(around))
            if estimate > 0:
                factors[i] = change / estimate
            else:
                straight[i] = change / abs(int(tables.widths(near)[i]) - int(tables.widths(around)[i]))
        factors = _completed(factors)
        for i, (group, factor) in enumerate(zip(allocation.groups, factors.tolist(), strict=True)):
            scores[group.units] *= factor
            if i in straight:  # the order of the units stays
                falling = np.linspace(1.0 + 1e-6, 1.0, group.size)
                scores[allocation.best_first[group.id]] = straight[i] * falling
        return replace(allocation, scores=scores, additive=True)

    def moved(self, tables: Tables, around: Choice, i: int) -> Choice:
        """A cut with one group whole again, or cut by about the wanted part if it was whole."""
        near = around.copy()
        kept = tables.kept[tables.starts[i] : tables.starts[i] + tables.lengths[i]]
        less = 1 + int(np.argmin(np.abs(kept[1:] - kept[0] * (1.0 - self.part))))
        near[i] = 0 if around[i] else less
        return near


def _completed(factors: Values) -> Values:
    """Factors near their median; the median itself where nothing was measured."""
    known = factors[np.isfinite(factors) & (factors > 0)]
    middle = float(np.median(known)) if len(known) else 1.0
    return np.clip(np.where(np.isfinite(factors), factors, middle), middle / _SPREAD, middle * _SPREAD)
