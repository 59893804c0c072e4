"""Allocators that turn one number, the *level*, into a cut: from nothing (0) to all that may go (1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from graphprune.passes.allocators.allocation import Allocation, Pool, Removed

_STEPS = 40
_REFILL_TRIES = 300


def uniform(pool: Pool, level: float) -> Removed:
    """The same fraction from every group."""
    removed = np.zeros(len(pool.scores), bool)
    for group in pool.widths:
        kept = pool.limits.kept(group, group.size * (1.0 - level))
        pool.remove(group, kept, removed)
    blocks = pool.blocks
    removed[blocks[: round(level * len(blocks))]] = True
    return removed


def global_ranking(pool: Pool, level: float) -> Removed:
    """One ranking over all groups: the units with the lowest scores go, wherever they are."""
    removed = np.zeros(len(pool.scores), bool)
    if not pool.groups:
        return removed
    order = pool.ranking
    stays = np.ones(len(order), bool)
    stays[order[: round(level * len(order))]] = False
    pieces = np.split(stays, np.cumsum([g.size for g in pool.widths]))
    removed[pool.blocks[~pieces[-1]]] = True
    for group, piece in zip(pool.widths, pieces, strict=False):
        pool.remove(group, pool.limits.kept(group, int(piece.sum())), removed)
    return removed


@dataclass(frozen=True)
class ByLevel:
    """The lowest level that meets the targets, found by bisection over exact costs.

    Attributes:
        rule: what goes at a level; a higher one removes more.
    """

    rule: Callable[[Allocation, float], Removed]

    def __call__(self, allocation: Allocation) -> Removed:
        """The smallest cut by this rule that meets all targets.

        Raises:
            TargetError: even the largest cut does not.
        """
        budget = allocation.budget
        low, high, best = 0.0, 1.0, allocation.largest_cut
        # Beyond this many halvings no unit lies between two levels.
        for _ in range(min(_STEPS, 2 + sum(g.size for g in allocation.groups).bit_length())):
            middle = (low + high) / 2
            candidate = budget.settle(self.rule(allocation, middle))
            if budget.meets(candidate):
                high, best = middle, candidate
            else:
                low = middle
        return refill(allocation, best)


def refill(allocation: Allocation, removed: Removed) -> Removed:
    """Gives back what a coarse last step took too much: a level moves whole heads of many layers at once.

    Groups with few units go first, since their steps are the large ones.
    """
    groups = sorted(allocation.groups, key=lambda g: g.size)
    tries = 0
    changed = True
    while changed and tries < _REFILL_TRIES:
        changed = False
        for group in groups:
            gone = group.units[removed[group.units]]
            if not len(gone) or tries >= _REFILL_TRIES:
                continue
            tries += 1
            best = gone[np.argsort(-allocation.scores[gone], kind="stable")]
            candidate = removed.copy()
            candidate[best[: allocation.limits.step(group)]] = False
            candidate = allocation.budget.settle(candidate)
            if allocation.budget.meets(candidate):
                removed, changed = candidate, True
    return removed
