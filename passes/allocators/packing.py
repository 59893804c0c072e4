"""One entry of each group's table, so that prices add up to no more than a budget and the error is least.

Dynamic programming over a quantised budget: exact where prices are, and the budget has few enough steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from graphprune.passes.allocators.relaxation import Tangent
from graphprune.passes.allocators.tables import Choice, Tables

Bins = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Packing:
    """Multiple-choice knapsack by dynamic programming.

    Attributes:
        levels: entries per group, evenly spread; all where there are no more.
        bins: steps of the budget.
    """

    levels: int = 64
    bins: int = 8192

    def __call__(self, around: Tangent) -> Choice | None:
        """The best cut that meets the targets by exact cost, as far as the prices tell."""
        tables = around.tables
        costs = self._binned(around)
        places = [self._levels(int(n)) for n in tables.lengths]
        capacity = int(sum(costs[start] for start in tables.starts))
        least = np.zeros(capacity + 1)
        picks = np.zeros((len(tables), capacity + 1), np.int64)
        for i, start in enumerate(tables.starts.tolist()):
            found = np.full(capacity + 1, np.inf)
            for place in places[i]:
                cost, error = int(costs[start + place]), tables.errors[start + place]
                candidate = least[: capacity + 1 - cost] + error
                better = candidate < found[cost:]
                found[cost:][better] = candidate[better]
                picks[i, cost:][better] = place
            least = found
        low, high = 0, capacity  # the largest budget whose cut meets the targets
        best = None
        while low <= high:
            middle = (low + high) // 2
            choice = self._unpacked(tables, costs, picks, middle)
            if tables.meets(choice):
                low, best = middle + 1, choice
            else:
                high = middle - 1
        return best

    def _binned(self, around: Tangent) -> Bins:
        """Price of each entry over its group's last one, in steps of the budget."""
        tables = around.tables
        last = around.charges[tables.starts + tables.smallest]
        costs = np.maximum(around.charges - last[tables.owner], 0.0)
        allowed = tables.allocation.budget.allowed
        if len(allowed) == 1:  # as an amount, these are integers if prices are exact
            amounts = costs * allowed[0]
            whole = np.rint(amounts).astype(np.int64)
            step = int(np.gcd.reduce(whole)) or 1
            is_exact = np.allclose(amounts, whole, 0.0, 1e-3)
            if is_exact and int((whole // step)[tables.starts].sum()) <= self.bins:
                return np.asarray(whole // step)
        total = float(costs[tables.starts].sum())
        return np.asarray(np.rint(costs * (self.bins / total if total > 0 else 0.0)).astype(np.int64))

    def _levels(self, length: int) -> list[int]:
        spread = np.linspace(0, length - 1, min(length, self.levels))
        return list(np.unique(np.rint(spread).astype(int)).tolist())

    @staticmethod
    def _unpacked(tables: Tables, costs: Bins, picks: Bins, budget: int) -> Choice:
        choice = tables.dense
        for i in range(len(tables) - 1, -1, -1):
            choice[i] = picks[i, budget]
            budget -= int(costs[tables.starts[i] + choice[i]])
        return choice
