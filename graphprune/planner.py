"""From scores and targets to a plan, and from a plan back to removed units."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.analysis import Use
from graphprune.axes_kept import Keeps, Mask
from graphprune.cost import Cost
from graphprune.deaths import Deaths, settle
from graphprune.errors import PlanError, TargetError
from graphprune.graph import DependencyGraph
from graphprune.groups import Group
from graphprune.interface_axes import interface_plan, require_interface, require_open
from graphprune.passes.allocators import Allocation, Allocator
from graphprune.plan import GroupPlan, ParameterPlan, Plan, positions
from graphprune.rewrite import cut
from graphprune.storage.constants import READ_ELSEWHERE

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

    most = settle(graph.analysis, allocator(allocation, 1.0))
    if not meets(most):
        raise _unreachable(graph, dense, graph.cost.evaluate(most), targets, allocation)
    low, high, best = 0.0, 1.0, most
    # Beyond this many halvings no unit lies between two levels.
    for _ in range(min(_STEPS, 2 + sum(g.size for g in allocation.groups).bit_length())):
        middle = (low + high) / 2
        candidate = settle(graph.analysis, allocator(allocation, middle))
        if meets(candidate):
            high, best = middle, candidate
        else:
            low = middle
    return _refill(graph, allocation, best, meets)


def _refill(
    graph: DependencyGraph, allocation: Allocation, removed: Removed, meets: Callable[[Removed], bool]
) -> Removed:
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
            candidate = settle(graph.analysis, candidate)
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
    most = max((g.least for g in allocation.groups), default=1)
    chosen = f", or as many as are chosen at a time ({most})" if most > 1 else ""
    kept = f"each group keeps {limits.floor:.0%}{chosen}" + (
        f" and a multiple of {limits.align}" if limits.align > 1 else ""
    )
    hints = ["a larger target"]
    hints += ["a smaller --align"] if limits.align > 1 else []
    hints += [f"a --floor below {limits.floor:g}"] if limits.floor > 0 else []
    taken = {g.id for g in allocation.groups}
    left_out = [g for g in graph.groups if g.prunable and g.size > g.least and g.id not in taken]
    narrow = sum(g.kind != "blocks" for g in left_out)
    others = f"to admit the {narrow} groups that --kinds, --exact-only, --include or --exclude leave out"
    hints += [others] if narrow else []
    hints += ["--kinds with 'blocks' among them"] if len(left_out) > narrow else []
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
    living = Deaths(graph.analysis).living(removed)
    for group in graph.groups:
        gone = removed[group.units]
        if gone.any() and (group.kind == "blocks" or not _is_dead(graph, group, living)):
            groups.append(GroupPlan(group.id, group.kind, group.exact, group.size, positions(~gone)))
    ratio = graph.cost.evaluate(removed).ratio(graph.cost.evaluate())
    return Plan(
        model_sha256=graph.sha256,
        target=dict(targets),
        reached={metric: round(value, 6) for metric, value in ratio.items()},
        groups=groups,
        parameters=_parameters(graph, removed),
        options=dict(options or {}),
        interface=interface_plan(Keeps(graph.analysis, removed)),
    )


def _is_dead(graph: DependencyGraph, group: Group, living: Collection[ir.Node] | None) -> bool:
    """Have all parameters of a group gone with a block or an expert?"""
    uses = graph.uses_by_key
    return living is not None and not any(uses[m.use].node in living for m in group.members)


def masks_of(use: Use, keeps: Keeps, living: Collection[ir.Node] | None) -> list[tuple[int, Mask]]:
    """Axes of a constant that shrink, with masks of what stays: nothing of axis 0 where its node is dead."""
    if living is not None and use.node not in living:
        return [(0, np.zeros(use.axes[0].size, bool))] if use.axes else []
    return [(d, mask) for d, mask in enumerate(keeps.of_use(use)) if mask is not None]


def _parameters(graph: DependencyGraph, removed: Removed) -> list[ParameterPlan]:
    keeps, living = Keeps(graph.analysis, removed), Deaths(graph.analysis).living(removed)
    variants: dict[tuple[str, int, bytes], list[str]] = {}
    for use in graph.analysis.uses.values():
        for d, mask in masks_of(use, keeps, living):
            variants.setdefault((use.value.name or "", d, mask.tobytes()), []).append(use.key)
    constants = graph.model.ir.graph.initializers.values()
    total = {v.name or "": len(v.uses()) for v in constants}
    read_elsewhere = {v.name for v in constants if v.meta.get(READ_ELSEWHERE)}
    entries = []
    for (name, d, packed), uses in variants.items():
        keep = np.frombuffer(packed, np.bool_)
        everywhere = len(uses) == total[name] and name not in read_elsewhere
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
    require_open(plan, graph.analysis)
    wanted = _wanted(graph, plan)
    gone = {key for (key, d), mask in wanted.items() if d == 0 and not mask.any()}
    dropped, kept = np.zeros(len(algebra), bool), np.zeros(len(algebra), bool)
    for (node_key, d), mask in wanted.items():
        if node_key in gone:
            continue
        rows = algebra.live(graph.uses_by_key[node_key].axes[d])
        dropped[rows[~mask]] = True
        kept[rows[mask]] = True
    for use in graph.analysis.uses.values():
        for d, axis in enumerate(use.axes):
            if use.key not in gone and (use.key, d) not in wanted and not axis.is_plain:
                kept[algebra.live(axis)] = True
    removed = dropped & ~kept
    removed[0] = False
    for group in graph.groups:
        if group.kind == "blocks":
            removed[group.units] = all(m.use in gone for m in group.members)
    _match_ends(graph, removed, gone)
    keeps, living = Keeps(graph.analysis, removed), Deaths(graph.analysis).living(removed)
    for use in graph.analysis.uses.values():
        stays = dict(masks_of(use, keeps, living))
        for d, axis in enumerate(use.axes):
            if d not in stays and (use.key, d) not in wanted:
                continue
            everything = np.ones(axis.size, bool)
            found, mask = stays.get(d, everything), wanted.get((use.key, d), everything)
            if (found != mask).any():
                message = f"the plan does not fit axis {d} of '{use.value.name}'"
                raise PlanError(
                    message,
                    where=f"{use.node.op_type} '{use.node.name}', input {use.index}",
                    because=f"it keeps {int(mask.sum())} of {axis.size} positions, "
                    f"its coupled axes keep {int(found.sum())}, or others",
                    hint="a plan made for this model",
                )
    _require_enough(graph, removed)
    require_interface(plan, keeps)
    return removed


def _match_ends(graph: DependencyGraph, removed: Removed, gone: Collection[str]) -> None:
    """Removes at one end of a removed layer what goes at the other, where no parameter is left to tell."""
    axes = graph.analysis.axes
    if all(block.instead is None or not removed[block.unit] for block in graph.analysis.blocks):
        return
    told = np.zeros(len(removed), bool)
    for use in graph.analysis.uses.values():
        if use.key not in gone:
            for axis in use.axes:
                told[graph.analysis.algebra.live(axis)] = True
    for block in graph.analysis.blocks:
        if block.instead is None or not removed[block.unit]:
            continue
        for pair in zip(axes[block.instead.name or ""], axes[block.value.name or ""], strict=True):
            rows = [graph.analysis.algebra.live(axis) for axis in pair]
            for here, there in (rows, rows[::-1]):
                if here.shape[1] == 1:
                    units = here[removed[there].any(axis=1), 0]
                    removed[units[~told[units]]] = True


def _require_enough(graph: DependencyGraph, removed: Removed) -> None:
    """Raises if an axis keeps fewer positions than its operators need, or the ends of a layer don't match."""
    for axis, count, reason in graph.analysis.facts.minimums:
        left = int(graph.analysis.algebra.alive(axis, removed).sum())
        if left < count:
            message = f"the plan keeps {left} positions where {count} are needed"
            raise PlanError(message, because=str(graph.analysis.facts.reasons[reason]))
    if (settle(graph.analysis, removed) != removed).any():
        message = "the plan removes a layer whose input and output keep different positions"
        raise PlanError(message, hint="a plan made for this model")


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
