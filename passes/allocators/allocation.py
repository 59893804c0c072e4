"""What an allocator is given: groups, scores, limits, and the exact cost of any cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from graphprune.passes.allocators.budget import Budget
from graphprune.passes.allocators.limits import Limits
from graphprune.passes.compensators.room import Room

from graphprune.graph import DependencyGraph
from graphprune.groups import Group
from graphprune.progress import Progress, silent

Scores = npt.NDArray[np.float64]
Removed = npt.NDArray[np.bool_]
Effect = Callable[[Removed], float]


@dataclass(frozen=True)
class Pool:
    """Groups that may shrink with the scores of their units, and the limits on each."""

    groups: Sequence[Group]
    scores: Scores
    limits: Limits

    @cached_property
    def widths(self) -> list[Group]:
        """Groups of many units, each of which shrinks."""
        return [g for g in self.groups if g.kind != "blocks"]

    @cached_property
    def blocks(self) -> npt.NDArray[np.int32]:
        """Units of the blocks, which compete with each other; the least important come first."""
        units = np.array([g.units[0] for g in self.groups if g.kind == "blocks"], np.int32)
        return units[np.argsort(self.scores[units], kind="stable")]

    @cached_property
    def best_first(self) -> dict[str, npt.NDArray[np.int32]]:
        """Units of each group, by its id."""
        orders = {g.id: np.argsort(-self.scores[g.units], kind="stable") for g in self.groups}
        return {g.id: g.units[orders[g.id]] for g in self.groups}

    @cached_property
    def ranking(self) -> npt.NDArray[np.int64]:
        """All units of the widths, group by group, then of the blocks: their order, least important first.

        Scores are divided by their group's mean, since groups have members of different number and scale.
        """
        scores = [_relative(self.scores[g.units]) for g in self.widths]
        scores.append(_relative(self.scores[self.blocks]))
        # Of equal scores, each group gives the same share.
        ranks = [np.argsort(np.argsort(s, kind="stable"), kind="stable") / max(len(s), 1) for s in scores]
        return np.lexsort((np.concatenate(ranks), np.concatenate(scores)))

    def remove(self, group: Group, kept: int, removed: Removed) -> None:
        """Marks all but the ``kept`` best units of a group."""
        removed[self.best_first[group.id][kept:]] = True


@dataclass(frozen=True)
class Allocation(Pool):
    """A pool of a model's groups, and what has to be reached.

    Attributes:
        graph: whose groups these are; knows the exact cost of any cut.
        targets: metric -> fraction of the original that may be kept; all are met.
        additive: the scores estimate output error, so that their sum is that of a whole cut.
        effect: measured divergence of the outputs when units are removed; about a second a call.  None when
            there are no samples.
        seed: of everything random.
        report: what an allocator says about its result; goes into the plan's options.
        room: that is left for what a compensator adds; None: for nothing.
        progress: is told how far which stage is.
        restriction: why groups of other kinds are left out, as a clause, unless the user asked for that.
        latency: estimated latency of a cut as a fraction of the original's, where that is a target.
    """

    graph: DependencyGraph
    targets: Mapping[str, float]
    additive: bool = False
    effect: Effect | None = None
    seed: int = 0
    report: dict[str, Any] = field(default_factory=dict, compare=False)
    room: Room | None = None
    progress: Progress = field(default=silent, compare=False)
    restriction: str = ""
    latency: Callable[[Removed], float] | None = None

    @cached_property
    def budget(self) -> Budget:
        """What the targets allow."""
        cost = None if self.room is None else self.room.cost
        return Budget(
            self.graph, self.targets, self.groups, self.limits, cost, self.restriction, self.latency
        )

    @cached_property
    def largest_cut(self) -> Removed:
        """All that the limits allow.

        Raises:
            TargetError: even that misses a target.
        """
        most = np.zeros(len(self.scores), bool)
        for group in self.groups:
            self.remove(group, self.limits.kept(group, 0), most)
        most = self.budget.settle(most)
        self.budget.require(most)
        return most

    @cached_property
    def errors(self) -> Scores:
        """Estimated error per removed unit.

        Scores that only rank become the share of their group's energy (of all blocks' for a block), so that
        every group that goes whole costs the same.
        """
        if self.additive:
            return np.maximum(self.scores, 0.0)
        energy = np.zeros(len(self.scores))
        for group in self.widths:
            energy[group.units] = _relative(self.scores[group.units] ** 2) / group.size
        energy[self.blocks] = _relative(self.scores[self.blocks] ** 2)
        return energy


#: Chooses what goes so that all targets are met, or raises TargetError.
Allocator = Callable[[Allocation], Removed]


def _relative(scores: Scores) -> Scores:
    mean = scores.mean() if len(scores) else 0.0
    return scores / mean if mean > 0 else scores
