"""What the targets allow, judged by the exact cost of each candidate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
from graphprune.passes.allocators.limits import Limits

from graphprune.cost import CostModel
from graphprune.deaths import settle
from graphprune.errors import TargetError
from graphprune.graph import DependencyGraph
from graphprune.groups import Group

Removed = npt.NDArray[np.bool_]
Loads = npt.NDArray[np.float64]


class Budget:
    """Says of any set of removed units whether it meets all targets.

    Args:
        graph: of the model.
        targets: metric -> fraction of the original that may be kept.
        groups: that may shrink.
        limits: on each of them.
        cost: of the model that a cut becomes; None: of the cut itself.
        restriction: why groups of other kinds are left out, as a clause, unless the user asked for that.
        latency: latency of a cut as a fraction of the original's, where that is a target.
    """

    def __init__(
        self,
        graph: DependencyGraph,
        targets: Mapping[str, float],
        groups: Sequence[Group],
        limits: Limits,
        cost: CostModel | None = None,
        restriction: str = "",
        latency: Callable[[Removed], float] | None = None,
    ) -> None:
        self._graph, self._targets = graph, targets
        self._cost = cost if cost is not None else graph.cost
        self._groups, self._limits, self._restriction = groups, limits, restriction
        self._dense = graph.cost.evaluate()
        self._latency = latency

    def settle(self, removed: Removed) -> Removed:
        """The units that really go: ends of removed layers keep the same positions."""
        return settle(self._graph.analysis, removed)

    def judge(self, removed: Removed) -> tuple[Loads, bool]:
        """Cost of a cut for each target, as a fraction of what is allowed; and are all targets met?"""
        ratio = self._ratio(removed)
        loads = [ratio[metric] / fraction for metric, fraction in self._targets.items()]
        return np.array(loads), all(ratio[metric] <= limit for metric, limit in self._targets.items())

    def _ratio(self, removed: Removed) -> dict[str, float]:
        ratio = self._cost.evaluate(removed).ratio(self._dense)
        if self._latency is not None:
            ratio["latency"] = self._latency(removed)
        return ratio

    def meets(self, removed: Removed) -> bool:
        """Are all targets met?"""
        return self.judge(removed)[1]

    @cached_property
    def allowed(self) -> list[float]:
        """What may be kept of each target's metric, as an amount; of the latency in billionths."""
        return [getattr(self._dense, metric, 1e9) * part for metric, part in self._targets.items()]

    def require(self, most: Removed) -> None:
        """Raises TargetError if even this largest cut misses a target; says what blocks the rest."""
        if not self.meets(most):
            least = self._ratio(most)
            raise _unreachable(
                self._graph, least, self._targets, self._groups, self._limits, self._restriction
            )


def _unreachable(
    graph: DependencyGraph,
    ratio: Mapping[str, float],
    targets: Mapping[str, float],
    groups: Sequence[Group],
    limits: Limits,
    restriction: str,
) -> TargetError:
    missed = [f"{m}={f:.1%}" for m, f in targets.items() if ratio[m] > f]
    reach = ", ".join(f"{m} {ratio[m]:.1%}" for m in targets)
    # Where one group of many parameters is stuck, more is lost than in a kernel of 3 x 3.
    stuck = sorted((g for g in graph.groups if not g.prunable), key=lambda g: -g.size * len(g.members))
    worst = list(dict.fromkeys(g.reason or "" for g in stuck))[:2]
    rest = "; ".join(worst) if worst else "nothing"
    most = max((g.least for g in groups), default=1)
    chosen = f", or as many as are chosen at a time ({most})" if most > 1 else ""
    kept = f"each group keeps {limits.floor:.0%}{chosen}" + (
        f" and a multiple of {limits.coarsest}" if limits.coarsest > 1 else ""
    )
    hints = ["a larger target"]
    if groups and all(group.kind == "blocks" for group in groups):  # these go whole
        kept = "nothing is left of them"
    else:
        hints += ["a smaller --align"] if limits.coarsest > 1 else []
        hints += [f"a --floor below {limits.floor:g}"] if limits.floor > 0 else []
    taken = {g.id for g in groups}
    left_out = [g for g in graph.groups if g.prunable and g.size > g.least and g.id not in taken]
    if restriction and left_out:
        kept = f"{restriction}; {kept}"
        hints += ["another --recipe, or --kinds with others among them"]
        left_out = []
    narrow = sum(g.kind != "blocks" for g in left_out)
    others = f"to admit the {narrow} groups that --kinds, --exact-only, --include or --exclude leave out"
    hints += [others] if narrow else []
    hints += ["--kinds with 'blocks' among them"] if len(left_out) > narrow else []
    message = f"cannot reach {', '.join(missed)}"
    return TargetError(
        message,
        where=f"the largest cut that {len(groups)} groups allow keeps {reach}",
        because=f"{kept}; blocked: {rest}",
        hint=", ".join(hints),
    )
