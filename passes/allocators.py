"""Allocators: how much goes from each group, so that the targets are met.

An allocator turns one number, the *level* (0: nothing goes, 1: all that the floors allow), into a set of
removed units.  The planner finds the lowest level that meets the targets by evaluating the exact cost of each
candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from graphprune.groups import Group

Scores = npt.NDArray[np.float64]
Removed = npt.NDArray[np.bool_]

#: Kinds whose size is a tensor width; a number of heads or of convolution groups is not.
_WIDTHS = ("channels", "head_dim")


@dataclass(frozen=True)
class Limits:
    """How many units of a group have to stay.

    Attributes:
        floor: smallest kept fraction of a group (as many units stay as its axes need, one at least).
        align: widths are kept as multiples of this.
    """

    floor: float = 0.1
    align: int = 1

    def step(self, group: Group) -> int:
        """By how many units the kept number may change."""
        return self.align if group.kind in _WIDTHS else 1

    def kept(self, group: Group, wanted: float) -> int:
        """Number of units to keep, at least ``wanted``."""
        floor = 0.0 if group.kind == "blocks" else self.floor  # a block is there, or not
        count = max(group.least, int(np.ceil(group.size * floor)), int(np.ceil(wanted - 1e-9)))
        step = self.step(group)
        count = -(-count // step) * step
        return min(count, group.size)


@dataclass(frozen=True)
class Allocation:
    """The groups in question with their scores, and the limits on each."""

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


Allocator = Callable[[Allocation, float], Removed]


def uniform(allocation: Allocation, level: float) -> Removed:
    """The same fraction from every group."""
    removed = np.zeros(len(allocation.scores), bool)
    for group in allocation.widths:
        kept = allocation.limits.kept(group, group.size * (1.0 - level))
        allocation.remove(group, kept, removed)
    blocks = allocation.blocks
    removed[blocks[: round(level * len(blocks))]] = True
    return removed


def global_ranking(allocation: Allocation, level: float) -> Removed:
    """One ranking over all groups: the units with the lowest scores go, wherever they are."""
    removed = np.zeros(len(allocation.scores), bool)
    if not allocation.groups:
        return removed
    order = allocation.ranking
    stays = np.ones(len(order), bool)
    stays[order[: round(level * len(order))]] = False
    pieces = np.split(stays, np.cumsum([g.size for g in allocation.widths]))
    removed[allocation.blocks[~pieces[-1]]] = True
    for group, piece in zip(allocation.widths, pieces, strict=False):
        allocation.remove(group, allocation.limits.kept(group, int(piece.sum())), removed)
    return removed


def _relative(scores: Scores) -> Scores:
    mean = scores.mean() if len(scores) else 0.0
    return scores / mean if mean > 0 else scores


#: Names for the command line and :func:`graphprune.plan`.
ALLOCATORS: Mapping[str, Allocator] = {"uniform": uniform, "global": global_ranking}
