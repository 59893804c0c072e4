"""From scores and targets to a plan, and from a plan back to removed units."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from graphprune.axes_kept import Keeps
from graphprune.cost import Cost
from graphprune.errors import PlanError, TargetError
from graphprune.graph import DependencyGraph
from graphprune.passes.allocators import Allocation, Allocator
from graphprune.plan import GroupPlan, ParameterPlan, Plan, positions
from graphprune.rewrite import cut

Removed = npt.NDArray[np.bool_]
_STEPS = 40
_BYTE_ROUNDS = 16
_REFILL_TRIES = 300


def search(
    graph: DependencyGraph,
    allocation: Allocation,
    allocator: Allocator,
    targets: Mapping[str, float],
) -> Removed:
    """The smallest cut that an allocator finds to meet all targets.

    Raises:
        TargetError: even the largest cut does not; says how far it goes and what blocks the rest.
    """
    dense = graph.cost.evaluate()

    def meets(removed: Removed) -> bool:
        ratio = graph.cost.evaluate(removed).ratio(dense)
        return all(ratio[metric] <= fraction for metric, fraction in targets.items())

    most = allocator(allocation, 1.0)
    if not meets(most):
        raise _unreachable(graph, dense, graph.cost.evaluate(most), targets, allocation)
    low, high, best = 0.0, 1.0, most
    for _ in range(_STEPS):
        middle = (low + high) / 2
        candidate = allocator(allocation, middle)
        if meets(candidate):
            high, best = middle, candidate
        else:
            low = middle
    return _refill(allocation, best, meets)


def _refill(allocation: Allocation, removed: Removed, meets: Callable[[Removed], bool]) -> Removed:
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
            if meets(candidate):
                removed, changed = candidate, True
    return removed


def meet_bytes(
    graph: DependencyGraph,
    allocation: Allocation,
    allocator: Allocator,
    targets: Mapping[str, float],
    removed: Removed,
) -> Removed:
    """Cuts further until the file itself is small enough.

    The file also holds node names, new shape constants and separate copies of constants that were
    shared, which the cost model does not see; so it is written to memory and measured.

    Raises:
        TargetError: the file stays too large.
    """
    dense = graph.cost.evaluate()
    allowed = targets["bytes"] * dense.bytes
    asked = dict(targets)
    for _ in range(_BYTE_ROUNDS):
        found = cut(graph.analysis, removed).file_bytes
        if found <= allowed:
            return removed
        estimate = graph.cost.evaluate(removed).ratio(dense)["bytes"]
        # Less than this cut was thought to need, or the same one would be found again.
        asked["bytes"] = 0.999 * min(asked["bytes"], estimate) * allowed / found
        try:
            removed = search(graph, allocation, allocator, asked)
        except TargetError:
            break
    message = f"cannot reach bytes={targets['bytes']:.1%}"
    raise TargetError(
        message,
        where=f"the smallest file found has {found} bytes, {found / dense.bytes:.1%} of the original",
        because="names, shape constants and copies of shared constants don't shrink with the weights",
        hint="a larger target, or params=… instead of bytes=…",
    )


def _unreachable(
    graph: DependencyGraph,
    dense: Cost,
    least: Cost,
    targets: Mapping[str, float],
    allocation: Allocation,
) -> TargetError:
    ratio = least.ratio(dense)
    missed = [f"{m}={f:.1%}" for m, f in targets.items() if ratio[m] > f]
    reach = ", ".join(f"{m} {ratio[m]:.1%}" for m in targets)
    # Where one group of many parameters is stuck, more is lost than in a kernel of 3 x 3.
    stuck = sorted((g for g in graph.groups if not g.prunable), key=lambda g: -g.size * len(g.members))
    worst = list(dict.fromkeys(g.reason or "" for g in stuck))[:2]
    limits = allocation.limits
    rest = "; ".join(worst) if worst else "nothing"
    kept = f"each group keeps {limits.floor:.0%}" + (
        f" and a multiple of {limits.align}" if limits.align > 1 else ""
    )
    hints = ["a larger target"]
    hints += ["a smaller --align"] if limits.align > 1 else []
    hints += [f"a --floor below {limits.floor:g}"] if limits.floor > 0 else []
    left_out = sum(g.prunable and g.size > 1 for g in graph.groups) - len(allocation.groups)
    hints += [f"to admit the {left_out} groups that the options leave out"] if left_out else []
    message = f"cannot reach {', '.join(missed)}"
    return TargetError(
        message,
        where=f"the largest cut that {len(allocation.groups)} groups allow keeps {reach}",
        because=f"{kept}; blocked: {rest}",
        hint=", ".join(hints),
    )


def make_plan(
    graph: DependencyGraph,
    removed: Removed,
    targets: Mapping[str, float],
    options: Mapping[str, Any] | None = None,
) -> Plan:
    """The document that describes a set of removed units."""
    groups = []
    for group in graph.groups:
        gone = removed[group.units]
        if gone.any():
            groups.append(GroupPlan(group.id, group.kind, group.exact, group.size, positions(~gone)))
    ratio = graph.cost.evaluate(removed).ratio(graph.cost.evaluate())
    return Plan(
        model_sha256=graph.sha256,
        target=dict(targets),
        reached={metric: round(value, 6) for metric, value in ratio.items()},
        groups=groups,
        parameters=_parameters(graph, removed),
        options=dict(options or {}),
    )


def _parameters(graph: DependencyGraph, removed: Removed) -> list[ParameterPlan]:
    keeps = Keeps(graph.analysis, removed)
    variants: dict[tuple[str, int, bytes], list[str]] = {}
    for use in graph.analysis.uses.values():
        for d, mask in enumerate(keeps.of_use(use)):
            if mask is not None:
                variants.setdefault((use.value.name or "", d, mask.tobytes()), []).append(use.key)
    total = {v.name or "": len(v.uses()) for v in graph.model.ir.graph.initializers.values()}
    entries = []
    for (name, d, packed), uses in variants.items():
        keep = np.frombuffer(packed, np.bool_)
        everywhere = len(uses) == total[name]
        axis = graph.uses_by_key[uses[0]].axes[d]
        groups = [g.id for g in graph.groups_of(axis) if removed[g.units].any()]
        entries.append(
            ParameterPlan(name, d, len(keep), positions(keep), None if everywhere else uses, groups)
        )
    return entries


def removed_units(graph: DependencyGraph, plan: Plan) -> Removed:
    """The units that a plan removes, found from its parameters alone.

    Raises:
        PlanError: the plan names what the model does not have, or cuts coupled axes differently.
    """
    algebra = graph.analysis.algebra
    wanted = _wanted(graph, plan)
    dropped, kept = np.zeros(len(algebra), bool), np.zeros(len(algebra), bool)
    for (node_key, d), mask in wanted.items():
        rows = algebra.live(graph.uses_by_key[node_key].axes[d])
        dropped[rows[~mask]] = True
        kept[rows[mask]] = True
    removed = dropped & ~kept
    removed[0] = False
    for use in graph.analysis.uses.values():
        for d, axis in enumerate(use.axes):
            if axis.is_plain:
                continue
            found = algebra.alive(axis, removed)
            mask = wanted.get((use.key, d), np.ones(axis.size, bool))
            if (found != mask).any():
                message = f"the plan does not fit axis {d} of '{use.value.name}'"
                raise PlanError(
                    message,
                    where=f"{use.node.op_type} '{use.node.name}', input {use.index}",
                    because=f"it keeps {int(mask.sum())} of {axis.size} positions, "
                    f"its coupled axes keep {int(found.sum())}, or others",
                    hint="a plan made for this model",
                )
    return removed


def _wanted(graph: DependencyGraph, plan: Plan) -> dict[tuple[str, int], npt.NDArray[np.bool_]]:
    wanted: dict[tuple[str, int], npt.NDArray[np.bool_]] = {}
    by_name: dict[str, list[str]] = {}
    for key, use in graph.uses_by_key.items():
        by_name.setdefault(use.value.name or "", []).append(key)
    for entry in plan.parameters:
        keys = by_name.get(entry.name, []) if entry.uses is None else entry.uses
        for key in keys or [""]:
            use_or_none = graph.uses_by_key.get(key)
            if use_or_none is None or use_or_none.value.name != entry.name:
                message = f"the plan cuts '{entry.name}', which the model does not have there"
                raise PlanError(message, where=key or None, hint="a plan made for this model")
            axes = use_or_none.axes
            if not 0 <= entry.axis < len(axes) or axes[entry.axis].size != entry.size:
                message = f"axis {entry.axis} of '{entry.name}' does not have {entry.size} positions"
                raise PlanError(message, hint="a plan made for this model")
            mask = np.zeros(entry.size, bool)
            mask[entry.keep] = True
            wanted[key, entry.axis] = mask
    return wanted
