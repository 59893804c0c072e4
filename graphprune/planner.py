"""From scores and targets to a plan, and from a plan back to removed units."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.analysis import Use
from graphprune.axes_kept import Keeps, Mask
from graphprune.deaths import Deaths, settle
from graphprune.errors import PlanError
from graphprune.graph import DependencyGraph
from graphprune.groups import Group
from graphprune.interface_axes import interface_plan, require_interface, require_open
from graphprune.plan import GroupPlan, ParameterPlan, Plan, positions
from graphprune.storage.constants import READ_ELSEWHERE

Removed = npt.NDArray[np.bool_]


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
        model_file=None if graph.model.path is None else str(graph.model.path),
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
