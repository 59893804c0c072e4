"""Multiple-choice knapsack by dynamic programming over a quantised budget (as in SPDY, ZipLM and ROCKET).

Exact where no two groups meet in one tensor and the budget has few enough steps.  Else prices are taken
around the cut that was found, again and again, and the exact cost decides what the budget is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from graphprune.passes.allocators.allocation import Allocation, Removed
from graphprune.passes.allocators.exchange import Exchange
from graphprune.passes.allocators.packing import Packing
from graphprune.passes.allocators.rate_distortion import (
    best_of,
    lower_bound,
    report,
    reweighed,
    starting_points,
)
from graphprune.passes.allocators.relaxation import tangent
from graphprune.passes.allocators.tables import Tables


@dataclass(frozen=True)
class Knapsack:
    """Dynamic programming over (error, cost) tables.

    Attributes:
        packing: the programming.
        rounds: how often the costs are told apart anew.
    """

    packing: Packing = field(default_factory=Packing)
    rounds: int = 3

    def __call__(self, allocation: Allocation) -> Removed:
        """A cut of little error that meets all targets.

        Raises:
            TargetError: even the largest cut does not.
        """
        tables = Tables(allocation)
        found = starting_points(tables)
        here = best_of(tables, found)
        weights = np.ones(len(allocation.targets))
        for _ in range(self.rounds if len(tables) else 0):
            packed = self.packing(tangent(tables, here, weights, logarithmic=False))
            if packed is None or np.array_equal(packed, here):
                break
            found.append(packed)
            here = packed
            weights = reweighed(weights, tables.loads(packed))
        choice = Exchange(tables)(best_of(tables, found))
        allocation.report.update(report(tables, choice, lower_bound(tables, choice)))
        return tables.removed(choice)
