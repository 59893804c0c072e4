"""Least estimated error for a given cost, as in ZipLM, SPDY and rate-distortion theory.

Minimises ``sum_g e_g(k_g)`` over the kept numbers ``k_g`` subject to the exact costs.  The Lagrangian falls
apart into groups once the costs do (see :mod:`~graphprune.passes.allocators.relaxation`); the multiplier is
found by bisection over exact costs, the costs are told apart again around the cut that was found, and the
best cut is improved by exact exchanges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from graphprune.passes.allocators.allocation import Allocation, Removed
from graphprune.passes.allocators.exchange import Exchange
from graphprune.passes.allocators.levels import ByLevel, global_ranking, uniform
from graphprune.passes.allocators.packing import Packing
from graphprune.passes.allocators.relaxation import is_below, solve, tangent
from graphprune.passes.allocators.tables import Choice, Tables, Values

#: By this power of how far each of several targets is used up, its weight grows from round to round.
_SHARPNESS = 8
#: From this number of units on, an exact cost takes milliseconds: one restart, and only the best is improved.
_LARGE = 500_000


@dataclass(frozen=True)
class RateDistortion:
    """Lagrangian allocation with exact costs.

    Attributes:
        rounds: how often the costs are told apart anew.
        restarts: further starts, from random cuts.
        improved: cuts that are improved by exchanges, the best ones.
        packing: finds one more cut.
        packed_groups: unless there are more groups than this.
    """

    rounds: int = 6
    restarts: int = 4
    improved: int = 3
    packing: Packing = field(default_factory=Packing)
    packed_groups: int = 256

    def __call__(self, allocation: Allocation) -> Removed:
        """A cut of little error that meets all targets.

        Raises:
            TargetError: even the largest cut does not.
        """
        tables = Tables(allocation)
        choice = self.search(tables)
        allocation.report.update(report(tables, choice, lower_bound(tables, choice)))
        return tables.removed(choice)

    def search(self, tables: Tables) -> Choice:
        """The best cut found along the tables.

        Raises:
            TargetError: even the largest cut does not meet the targets.
        """
        found = starting_points(tables)
        here = best_of(tables, found)
        rng = np.random.default_rng(tables.allocation.seed)
        is_large = len(tables.allocation.scores) > _LARGE
        for _ in range(2 if is_large else self.restarts + 1):
            found += self._rounds(tables, here)
            here = np.rint(rng.random(len(tables)) * tables.smallest).astype(np.int64)
        # Whole blocks and experts are more than a multiplier can weigh.
        if self.packed_groups >= len(tables) > 0:
            weights = np.ones(len(tables.allocation.targets))
            packed = self.packing(tangent(tables, best_of(tables, found), weights, logarithmic=False))
            found += [packed] if packed is not None else []
        exchange = Exchange(tables)
        best = sorted(found, key=tables.error)[: 1 if is_large else self.improved]
        return best_of(tables, [exchange(choice) for choice in best])

    def _rounds(self, tables: Tables, here: Choice) -> list[Choice]:
        """Cuts that meet the targets, each by the prices around the one before."""
        found: list[Choice] = []
        weights = np.ones(len(tables.allocation.targets))
        for _ in range(self.rounds):
            around = tangent(tables, here, weights, logarithmic=False)
            candidate = solve(around.best, tables.meets, max(tables.error(here), 1e-12))
            if candidate is None or (np.array_equal(candidate, here) and len(weights) == 1):
                break
            # Two cuts whose prices lead to each other would go on for ever: half way is out of that.
            is_better = not found or tables.error(candidate) < min(map(tables.error, found))
            here = candidate if is_better else np.rint((here + candidate) / 2).astype(np.int64)
            found.append(candidate)
            weights = reweighed(weights, tables.loads(candidate))
        return found


def starting_points(tables: Tables) -> list[Choice]:
    """Cuts that meet the targets: the largest, uniform, and by one ranking.

    Raises:
        TargetError: even the largest cut does not.
    """
    allocation = tables.allocation
    cuts = [allocation.largest_cut, ByLevel(uniform)(allocation), ByLevel(global_ranking)(allocation)]
    found = [tables.choice_of(removed) for removed in cuts]
    return [tables.smallest, *(choice for choice in found if tables.meets(choice))]


def best_of(tables: Tables, choices: Sequence[Choice]) -> Choice:
    """The cut of least estimated error."""
    return min(choices, key=tables.error)


def reweighed(weights: Values, loads: Values) -> Values:
    """More weight on the targets that bind."""
    weights = weights * loads**_SHARPNESS
    return np.asarray(weights * len(weights) / weights.sum())


def lower_bound(tables: Tables, choice: Choice) -> float | None:
    """No cut along the tables that meets the targets has less estimated error; None if that can't be said."""
    units = np.concatenate([np.zeros(0, np.int32), *(g.units for g in tables.allocation.groups)])
    if np.isin(units, list(tables.allocation.graph.analysis.spans)).any():
        return None  # with a block or an expert whole layers go: no product of widths
    if tables.allocation.latency is not None:
        return None  # nor is what a machine takes
    known = [choice, *(np.rint(tables.smallest * part).astype(np.int64) for part in np.linspace(0, 1, 5))]
    found = []
    n = len(tables.allocation.targets)
    for weights in [np.ones(n), *np.eye(n)] if n > 1 else [np.ones(1)]:
        for logarithmic in (True, False):
            around = tangent(tables, choice, weights, logarithmic=logarithmic)
            if logarithmic or is_separable(tables):
                found += [around.bound()] if is_below(around, weights, known) else []
    return float(max(found)) if found else None


def is_separable(tables: Tables) -> bool:
    """Do the costs fall apart by group, each a straight line?

    Costs are sums of products with positive factors, so two groups that meet anywhere save less together than
    one by one, and a group that meets itself saves less and less.
    """
    dense = tables.loads(tables.dense)
    together = dense - tables.loads(tables.smallest)
    apart, straight = np.zeros_like(dense), np.zeros_like(dense)
    for i in np.flatnonzero(tables.lengths > 1).tolist():
        alone = tables.dense
        alone[i] = tables.lengths[i] - 1
        units = tables.kept[tables.starts[i]] - tables.kept[tables.starts[i] + alone[i]]
        apart += dense - tables.loads(alone)
        straight += tables.price(tables.dense, i, dense) * units
    return bool(np.allclose(apart, together, 1e-9, 1e-12) and np.allclose(apart, straight, 1e-9, 1e-12))


def report(tables: Tables, choice: Choice, bound: float | None) -> dict[str, float | None]:
    """What the plan's options record."""
    error = tables.error(choice)
    gap = None if bound is None else max(error - bound, 0.0) / error if error > 0 else 0.0
    return {"estimated_error": error, "lower_bound": bound, "gap": gap}
