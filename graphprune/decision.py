"""From what is asked for to a plan: criterion, allocator, and what to do where the model can't run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from graphprune.amounts import size
from graphprune.device.options import Tuning
from graphprune.device.tuning import aligned, latency_goal
from graphprune.errors import CalibrationError, DeviceError, ModelError, TargetError, UsageError
from graphprune.graph import DependencyGraph
from graphprune.passes.allocators import ALLOCATORS, Allocation, Limits
from graphprune.passes.compensators import COMPENSATORS
from graphprune.passes.compensators.room import Room
from graphprune.passes.criteria import BY_WEIGHTS, CRITERIA
from graphprune.passes.criteria.readers import shares_of_magnitude
from graphprune.passes.effect import Effect
from graphprune.plan import Plan
from graphprune.planner import make_plan
from graphprune.progress import silent
from graphprune.search import Remembered, solver
from graphprune.selection import Selection
from graphprune.strategy import Strategy, strategy
from graphprune.target import fractions

#: Models with more bytes of weights are not run unless somebody asks for it.
MOST_RUN = 1 << 31


def decide(
    graph: DependencyGraph,
    asked: Strategy,
    target: Mapping[str, float | str],
    selection: Selection,
    limits: Limits,
    tuning: Tuning | None = None,
) -> Plan:
    """Scores, shares the budget, and records what was found.

    Args:
        graph: of the model.
        asked: criterion, allocator, compensator and samples.
        target: what may be kept.
        selection: which groups may shrink.
        limits: how far.
        tuning: the machine that the plan is for; None: no latency target, and widths as ``limits`` say.

    Raises:
        TargetError: the target can't be reached.
    """
    told = asked.progress or silent
    limits, multiples = aligned(graph, limits, tuning, target, told)
    goal = latency_goal(graph, tuning, target, told)
    targets = fractions(target, graph.cost.evaluate(), goal.dense_ms if goal is not None else None)
    restriction = asked.restriction if selection.kinds is None else ""
    if selection.kinds is None:
        selection = replace(selection, kinds=asked.recipe.kinds)
    groups = selection.choose(graph)
    if restriction and not groups:
        _require_kinds(graph, asked.recipe.kinds or (), restriction)
    stand_in = None if asked.recipe.criterion in BY_WEIGHTS else asked.stand_in(graph)
    evidence = asked.evidence(graph) if stand_in is None else stand_in.evidence
    judge = CRITERIA[asked.recipe.criterion](asked.seed)
    if stand_in is None:
        evidence.admit(groups)
    else:
        stand_in.admit(groups)
    with evidence.substitutes.applied():
        scores = judge(evidence) if stand_in is None else stand_in.scores(judge, shares_of_magnitude)
        if groups and judge.additive and not any(scores[group.units].any() for group in groups):
            message = "the samples say that nothing matters: every group's score is zero"
            raise CalibrationError(message, because="all samples are zero, or the same", hint="real samples")
        allocation = Allocation(
            groups, scores, limits, graph, targets, additive=judge.additive,
            effect=Remembered(Effect(evidence) if stand_in is None else stand_in.effect),
            seed=asked.seed, room=_room(graph, asked, targets),
            progress=evidence.progress, restriction=restriction,
            latency=goal.table(groups, limits) if goal is not None else None,
        )  # fmt: skip
        allocator = ALLOCATORS[asked.recipe.allocator]
        streams = (stand_in or evidence).streams() if asked.recipe.spares_streams else None
        solve = solver(allocation, allocator, streams)
        if goal is None:
            removed = solve(None)
        else:
            others = {metric: share for metric, share in targets.items() if metric != "latency"}
            most = replace(allocation, targets=others).largest_cut
            removed = goal.meet(targets["latency"], solve, most)
    kinds = selection.kinds
    options: dict[str, Any] = {
        **asked.options(), "align": multiples or limits.align, "floor": limits.floor, "seed": asked.seed,
        "exact_only": selection.exact_only, "kinds": sorted(kinds) if kinds is not None else None,
        "include": list(selection.include), "exclude": list(selection.exclude),
    }  # fmt: skip
    if allocation.report:
        options["allocation"] = dict(allocation.report)
    options |= evidence.notes()
    if graph.analysis.declarations.source:
        options["declarations"] = dict(graph.analysis.declarations.source)
    if goal is not None:
        options["latency"] = goal.notes()
    found = make_plan(graph, removed, targets, options)
    if goal is None:
        return found
    return replace(found, reached={**found.reached, "latency": round(goal.measure(removed), 6)})


def _room(graph: DependencyGraph, asked: Strategy, targets: Collection[str]) -> Room | None:
    """Room for what the compensator adds, if a target counts it."""
    adds = COMPENSATORS[asked.recipe.compensator] is not None and not {"params", "bytes"}.isdisjoint(targets)
    return Room(graph) if adds else None


def decide_or_fall_back(
    graph: DependencyGraph, asked: Strategy, target: Mapping[str, float | str], limits: Mapping[str, Any]
) -> tuple[Plan, Strategy]:
    """The plan, and the strategy that made it.

    That is magnitude if nobody asked for more, and the model can't run or is too large to be run for hours.
    """
    selection, within, tuning = bounds(**limits)
    weights = graph.model.weight_bytes
    if asked.calibration is None and asked.is_default and weights > MOST_RUN:
        plain = strategy(criterion="l2", seed=asked.seed, progress=asked.progress)
        plain.evidence(graph).journal = asked.evidence(graph).journal
        found = decide(graph, plain, target, selection, within, tuning)
        return replace(found, options={**found.options, "large": size(weights)}), plain
    try:
        return decide(graph, asked, target, selection, within, tuning), asked
    except DeviceError:  # nothing about the model: no reason to make less of it
        raise
    except ModelError as error:
        if asked.calibration is not None or not asked.is_default:
            raise
        plain = strategy(criterion="l2", seed=asked.seed)
        found = decide(graph, plain, target, selection, within, tuning)
        return replace(found, options={**found.options, "fallback": str(error)}), plain


def _require_kinds(graph: DependencyGraph, kinds: Collection[str], restriction: str) -> None:
    """Says so if a recipe is for structures that the model has not."""
    if not any(g.kind in kinds and g.prunable for g in graph.groups):
        message = f"{restriction}, and the model has none that may go"
        hint = "another --recipe, or --kinds with those that `graphprune inspect` lists"
        raise TargetError(message, hint=hint)


def bounds(
    kinds: Collection[str] | None = None,
    exact_only: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    align: int | str | None = None,
    floor: float = 0.1,
    provider: str = "cpu",
    threads: int | None = None,
    batch: int = 1,
    on: str | None = None,
) -> tuple[Selection, Limits, Tuning]:
    """What may go, how far, and for which machine.

    Raises:
        UsageError: an option makes no sense.
    """
    if isinstance(align, str) and align.isdecimal():
        align = int(align)
    if (isinstance(align, str) and align != "auto") or (isinstance(align, int) and align < 1):
        message = f"cannot align widths to multiples of {align}"
        raise UsageError(message, hint="--align 8, or --align auto")
    if not 0.0 <= floor <= 1.0:
        message = f"a floor of {floor} is no fraction"
        raise UsageError(message, hint="--floor 0.1")
    tuning = Tuning(provider, threads, batch, on, None if align is None else align == "auto")
    fixed = align if isinstance(align, int) else 1
    return Selection(kinds, exact_only, include, exclude), Limits(floor, fixed), tuning
