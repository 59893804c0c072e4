"""Isomorphic Pruning (Fang et al., 2024): structures compete only with structures of the same kind.

Norms of a depthwise kernel, a head and a residual stream have different distributions, so one ranking over
all of them empties some kinds first.  Groups whose members look the same (operators, inputs and axes) form a
class; each class has a ranking of its own and gives the same fraction.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from graphprune.passes.allocators.allocation import Allocation, Pool, Removed
from graphprune.passes.allocators.levels import ByLevel, global_ranking

from graphprune.graph import DependencyGraph
from graphprune.groups import Group

#: Kind of a group, and how many members it has at each (domain, operator, input, axis).
Look = tuple[str, frozenset[tuple[tuple[str, str, int, int], int]]]


def look_of(graph: DependencyGraph, group: Group) -> Look:
    """What the members of a group look like, without their sizes."""
    places = Counter(
        (use.node.domain, use.node.op_type, use.index, member.axis)
        for member in group.members
        for use in [graph.uses_by_key[member.use]]
    )
    return group.kind, frozenset(places.items())


def classes_of(allocation: Allocation) -> list[Pool]:
    """The groups by what they look like; the blocks are one class, as they compete one by one."""
    found: dict[object, list[Group]] = {}
    for group in allocation.groups:
        key = "blocks" if group.kind == "blocks" else look_of(allocation.graph, group)
        found.setdefault(key, []).append(group)
    return [Pool(groups, allocation.scores, allocation.limits) for groups in found.values()]


@dataclass(frozen=True)
class Isomorphic:
    """A ranking per class of groups, the same fraction from each."""

    def __call__(self, allocation: Allocation) -> Removed:
        """The smallest such cut that meets all targets.

        Raises:
            TargetError: even the largest cut does not.
        """
        classes = classes_of(allocation)

        def rule(given: Allocation, level: float) -> Removed:
            removed = np.zeros(len(given.scores), bool)
            for pool in classes:
                removed |= global_ranking(pool, level)
            return removed

        return ByLevel(rule)(allocation)
