"""Allocators: how much goes from each group, so that the targets are met.

An allocator turns one number, the *level* (0: nothing goes, 1: all that the floors allow), into a set of
removed units.  The planner finds the lowest level that meets the targets by evaluating the exact cost of each
candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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
        floor: smallest kept fraction of a group (at least one unit stays).
        align: widths are kept as multiples of this.
    """

    floor: float = 0.1
    align: int = 1

    def step(self, group: Group) -> int:
        """By how many units the kept number may change."""
        return self.align if group.kind in _WIDTHS else 1

    def kept(self, group: Group, wanted: float) -> int:
        """Number of units to keep, at least ``wanted``."""
        count = max(1, int(np.ceil(group.size * self.floor)), int(np.ceil(wanted - 1e-9)))
        step = self.step(group)
        count = -(-count // step) * step
        return min(count, group.size)


@dataclass(frozen=True)
class Allocation:
    """The groups in question with their scores, and the limits on each."""

    groups: Sequence[Group]
    scores: Scores
    limits: Limits

    def remove(self, group: Group, kept: int, removed: Removed) -> None:
        """Marks all but the ``kept`` best units of a group."""
        order = np.argsort(-self.scores[group.units], kind="stable")
        removed[group.units[order[kept:]]] = True


Allocator = Callable[[Allocation, float], Removed]


def uniform(allocation: Allocation, level: float) -> Removed:
    """The same fraction from every group."""
    removed = np.zeros(len(allocation.scores), bool)
    for group in allocation.groups:
        kept = allocation.limits.kept(group, group.size * (1.0 - level))
        allocation.remove(group, kept, removed)
    return removed


def global_ranking(allocation: Allocation, level: float) -> Removed:
    """One ranking over all groups: the units with the lowest scores go, wherever they are.

    Scores are divided by their group's mean, since groups have members of different number and scale.
    """
    removed = np.zeros(len(allocation.scores), bool)
    if not allocation.groups:
        return removed
    relative = {g.id: _relative(allocation.scores[g.units]) for g in allocation.groups}
    everything = np.sort(np.concatenate(list(relative.values())))
    cut = round(level * len(everything))
    threshold = np.inf if cut >= len(everything) else everything[cut]
    for group in allocation.groups:
        wanted = int((relative[group.id] >= threshold).sum())
        allocation.remove(group, allocation.limits.kept(group, wanted), removed)
    return removed


def _relative(scores: Scores) -> Scores:
    mean = scores.mean()
    return scores / mean if mean > 0 else scores


#: Names for the command line and :func:`graphprune.plan`.
ALLOCATORS: Mapping[str, Allocator] = {"uniform": uniform, "global": global_ranking}
