"""Sensitivity with one threshold for all groups, as FastNAS of NVIDIA's Model Optimizer does it.

Each group is cut alone to a few widths and the effect on the outputs is measured; tables are made monotone,
and straight between the measurements.  Then every group takes its smallest width whose effect stays below
one threshold, which bisection lowers as far as the targets allow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from graphprune.passes.allocators.allocation import Allocation, Removed
from graphprune.passes.allocators.levels import refill
from graphprune.passes.allocators.meter import Meter
from graphprune.passes.allocators.tables import Choice, Tables, Values

_HALVINGS = 60


@dataclass(frozen=True)
class Sensitivity:
    """The same largest effect of every group.

    Attributes:
        widths: measurements per group, evenly spread down to what the limits allow.
        calls: measurements at most; with many groups there are fewer for each.
        seconds: at most.
    """

    widths: int = 5
    calls: int = 400
    seconds: float = 600.0

    def __call__(self, allocation: Allocation) -> Removed:
        """A cut that meets all targets.

        Raises:
            TargetError: even the largest cut does not.
            UsageError: there are no samples.
        """
        meter = Meter(allocation, "sensitivity", self.calls, self.seconds)
        _ = allocation.largest_cut  # before anything is measured
        tables = Tables(allocation)
        effects = self._measure(tables, meter)

        def choose(threshold: float) -> Choice:
            """The smallest widths whose effect is not above the threshold."""
            below = np.where(effects <= threshold, 1, 0)
            return np.asarray(np.add.reduceat(below, tables.starts) - 1) if len(tables) else tables.dense

        low, high = 0.0, float(effects.max(initial=0.0))
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            if tables.meets(choose(middle)):
                high = middle
            else:
                low = middle
        allocation.report["largest_effect"] = high
        return refill(allocation, tables.removed(choose(high)))

    def _measure(self, tables: Tables, meter: Meter) -> Values:
        """Effect of each entry of the tables."""
        several = np.flatnonzero(tables.lengths > 1)
        each = max(1, min(self.widths, self.calls // max(len(several), 1)))
        points = {i: self._points(int(tables.lengths[i]), each) for i in several.tolist()}
        found: dict[int, list[tuple[int, float]]] = {i: [(0, 0.0)] for i in points}
        for n in range(each):  # the smallest widths first, so that every group has one
            for i, places in points.items():
                if n < len(places):
                    choice = tables.dense
                    choice[i] = places[n]
                    effect = meter(tables.removed(choice))
                    if effect is not None:
                        found[i].append((places[n], effect))
        effects = np.zeros_like(tables.errors)
        worst = max((effect for pairs in found.values() for _, effect in pairs), default=0.0)
        for i, pairs in found.items():
            pairs = sorted(pairs) if len(pairs) > 1 else [(0, 0.0), (int(tables.lengths[i]) - 1, worst)]
            at, values = (np.array(column, np.float64) for column in zip(*pairs, strict=True))
            here = slice(tables.starts[i], tables.starts[i] + tables.lengths[i])
            steps = np.arange(tables.lengths[i])
            effects[here] = np.interp(steps, at, np.maximum.accumulate(values))
        return effects

    @staticmethod
    def _points(length: int, each: int) -> list[int]:
        """Places of a table, the last one first."""
        found = np.unique(np.rint(np.linspace(0, length - 1, each + 1)[1:]).astype(int))
        return [int(place) for place in found[::-1] if place > 0]
