"""Which groups may shrink."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from graphprune.errors import UsageError
from graphprune.graph import DependencyGraph
from graphprune.groups import Group
from graphprune.layers import layer_of

#: Every kind of group, whether a model has it or not.
KINDS = {"channels", "heads", "head_dim", "experts", "conv_groups", "norm_groups", "blocks"}


@dataclass(frozen=True)
class Selection:
    """Which groups may shrink.

    Attributes:
        kinds: kinds of groups; None: all but blocks, since no weight norm compares a whole branch with a
            channel.
        exact_only: leave out groups over which a statistic runs.
        include: globs over a group's id, and the name, node and layer of its first parameter, the one
            that makes it; empty: everything.
        exclude: globs over the same names of *all* its parameters: what matches is left alone.
    """

    kinds: Collection[str] | None = None
    exact_only: bool = False
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    def choose(self, graph: DependencyGraph) -> list[Group]:
        """The groups of a model that may shrink, largest structures first.

        Raises:
            UsageError: a kind or glob matches nothing.
        """
        known = {g.kind for g in graph.groups} | KINDS
        for kind in self.kinds or ():
            if kind not in known:
                message = f"unknown kind '{kind}'"
                raise UsageError(message, hint=f"one of {', '.join(sorted(known))}")
        names = {g.id: _names(graph, g) if self.exclude else set() for g in graph.groups}
        own = {g.id: _names(graph, g, members=1) if self.include else set() for g in graph.groups}
        for glob, where in [*((g, own) for g in self.include), *((g, names) for g in self.exclude)]:
            if not any(_matches(where[g.id], glob) for g in graph.groups):
                message = f"'{glob}' matches no group, parameter or node"
                raise UsageError(message, hint="names that `graphprune inspect` lists")
        return [g for g in graph.groups if self._takes(g, own[g.id], names[g.id])]

    def _takes(self, group: Group, own: set[str], names: set[str]) -> bool:
        return (
            group.prunable
            and group.size > group.least
            and (group.kind in self.kinds if self.kinds is not None else group.kind != "blocks")
            and (group.exact or not self.exact_only)
            and (not self.include or any(_matches(own, glob) for glob in self.include))
            and not any(_matches(names, glob) for glob in self.exclude)
        )


def _names(graph: DependencyGraph, group: Group, members: int | None = None) -> set[str]:
    """What a group can be called by: its own name, and those of its (first) members."""
    names = {group.id}
    for member in group.members[:members]:
        names |= {member.name, f"{member.name}:{member.axis}", member.use.rsplit(":", 1)[0]}
        node = graph.uses_by_key[member.use].node
        names |= {node.name or "", layer_of(node)}
    return names


def _matches(names: Collection[str], glob: str) -> bool:
    return any(fnmatchcase(name, glob) for name in names)
