"""Level-switch evolution on the measured effect: EvoPress, DarwinLM and Tyr-the-Pruner.

The parent is the best cut by estimated error.  An offspring gives some groups a little back and takes from
others until the exact cost meets the targets again; the fitness is what is measured at the outputs.  The best
of each generation becomes the parent if it is better.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from graphprune.passes.allocators.allocation import Allocation, Removed
from graphprune.passes.allocators.meter import Meter
from graphprune.passes.allocators.rate_distortion import RateDistortion
from graphprune.passes.allocators.tables import Choice, Tables

#: Parts of a table by which a group moves in one switch.
_STRIDES = (1 / 64, 1 / 32, 1 / 16, 1 / 8)
_TRIES = 20


@dataclass(frozen=True)
class Evolutionary:
    """(1 + offspring) evolution from the rate-distortion solution.

    Attributes:
        calls: measurements, the parent's included.
        offspring: per generation.
        seconds: at most.
        start: finds the first parent.
    """

    calls: int = 200
    offspring: int = 8
    seconds: float = 600.0
    start: RateDistortion = field(default_factory=RateDistortion)

    def __call__(self, allocation: Allocation) -> Removed:
        """A cut of little measured effect that meets all targets.

        Raises:
            TargetError: even the largest cut does not.
            UsageError: there are no samples.
        """
        meter = Meter(allocation, "evolutionary", self.calls, self.seconds)
        tables = Tables(allocation)
        parent = self.start.search(tables)
        effect = meter(tables.removed(parent))
        allocation.report["effect_at_start"] = effect
        rng = np.random.default_rng(allocation.seed)
        seen = {parent.tobytes()}
        while effect is not None:
            generation = self._generation(tables, parent, seen, rng)
            found = [(meter(tables.removed(child)), child) for child in generation]
            measured = [(value, i) for i, (value, _) in enumerate(found) if value is not None]
            if measured and min(measured)[0] < effect:
                effect, best = min(measured)
                parent = generation[best]
            if len(measured) < len(generation) or not generation:
                break
        allocation.report["effect"] = effect
        return tables.removed(parent)

    def _generation(
        self, tables: Tables, parent: Choice, seen: set[bytes], rng: np.random.Generator
    ) -> list[Choice]:
        """New cuts that meet the targets; fewer where the parent has few neighbours."""
        found: list[Choice] = []
        for _ in range(_TRIES * self.offspring):
            if len(found) == self.offspring:
                break
            child = mutated(tables, parent, rng)
            if child is not None and child.tobytes() not in seen:
                seen.add(child.tobytes())
                found.append(child)
        return found


def mutated(tables: Tables, parent: Choice, rng: np.random.Generator) -> Choice | None:
    """A neighbour that meets the targets: some groups keep more, others less; None if this try has none."""
    child = parent.copy()
    up = np.flatnonzero(parent > 0)
    switches = int(min(rng.integers(1, 4, 2)))  # rather few
    raised = rng.permutation(up)[:switches]
    for i in raised.tolist():
        child[i] -= min(_stride(tables, i, rng), int(child[i]))
    down = np.flatnonzero(child < tables.lengths - 1)
    for i in rng.permutation(down[~np.isin(down, raised)]).tolist():
        if tables.meets(child):
            break
        _lower(tables, child, i)
    return child if tables.meets(child) and not np.array_equal(child, parent) else None


def _lower(tables: Tables, child: Choice, i: int) -> None:
    """Takes from one group as much as is needed, or as a switch may take."""
    first = int(child[i])
    last = min(first + max(1, round(_STRIDES[-1] * int(tables.lengths[i]))), int(tables.lengths[i]) - 1)
    child[i] = last
    if not tables.meets(child):
        return
    low = first  # does not meet
    while last - low > 1:
        child[i] = (low + last) // 2
        if tables.meets(child):
            last = int(child[i])
        else:
            low = int(child[i])
    child[i] = last


def _stride(tables: Tables, i: int, rng: np.random.Generator) -> int:
    return max(1, round(float(rng.choice(_STRIDES)) * int(tables.lengths[i])))
