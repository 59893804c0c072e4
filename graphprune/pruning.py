"""From a plan to a pruned model that is proven, compensated, measured and written."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from graphprune.axes_kept import Keeps
from graphprune.by_parts import verify_somehow
from graphprune.check import validate
from graphprune.clock import Clock
from graphprune.cost import Cost, measure
from graphprune.graph import DependencyGraph
from graphprune.model import Model
from graphprune.oracle import Verdict
from graphprune.origin import Origin, leave_room
from graphprune.parts import is_big
from graphprune.passes.compensators import Compensator, compensator_for
from graphprune.passes.effect import Effect
from graphprune.plan import Plan
from graphprune.planner import removed_units
from graphprune.rewrite import cut
from graphprune.storage.streaming import Stream
from graphprune.strategy import Strategy


@dataclass(frozen=True)
class PruneResult:
    """What :func:`prune` did.

    Attributes:
        before: cost of the original.
        after: cost of the pruned model, measured on it.
        plan: the decision.
        verdict: of the oracle; None with ``verify=False``.
        seconds: time per stage.
        model: the pruned model.
        output: where it was written.
        source_sha256: hash of the original.
        output_errors: relative squared error of the outputs on at most 128 of the calibration samples,
            before and after compensation; None without a compensator.
        is_synthetic: were these samples made up?
        is_held_out: was nothing fitted to these samples?
    """

    before: Cost
    after: Cost
    plan: Plan
    verdict: Verdict | None
    seconds: Mapping[str, float]
    model: Model
    output: Path | None
    source_sha256: str
    output_errors: tuple[float, float] | None = None
    is_synthetic: bool = True
    is_held_out: bool = False


def cut_and_leave_room(graph: DependencyGraph, removed: npt.NDArray[np.bool_]) -> Model:
    """The cut, as long as its file will be."""
    pruned = cut(graph.analysis, removed)
    leave_room(pruned.ir)
    return pruned


def cost_of(pruned: Model, dims: Mapping[str, int] | None, stream: Stream | None = None) -> Cost:
    """What a cut costs, measured on it."""
    size = (stream or Stream(pruned.ir)).size
    return measure(pruned, dims, is_prepared=True, file_bytes=size)


def reached(after: Cost, before: Cost) -> dict[str, float]:
    """What is kept, as a plan says it."""
    return {metric: round(value, 6) for metric, value in after.ratio(before).items()}


def compensated(
    asked: Strategy,
    graph: DependencyGraph,
    change: Compensator,
    removed: npt.NDArray[np.bool_],
    pruned: Model,
    counted: Collection[str],
) -> Model:
    """``pruned`` with new weights: of the stand-in, where the model has one."""
    stand_in = asked.stand_in(graph)
    if stand_in is None:
        return change(asked.evidence(graph), removed, pruned)
    return stand_in.compensate(change, removed, pruned, counted)


def note_origin(pruned: Model, graph: DependencyGraph, plan: Plan, cost: Cost) -> None:
    """Lets the file say which plan has made it, and of what."""
    Origin.of(plan, graph.sha256, reached(cost, graph.cost.evaluate())).note_in(pruned.ir)


def carry_out(
    graph: DependencyGraph,
    asked: Strategy,
    decision: Plan,
    clock: Clock,
    *,
    output: str | Path | None = None,
    plan_out: str | Path | None = None,
    followed: Plan | None = None,
    verify_result: bool = True,
    seed: int = 0,
    dims: Mapping[str, int] | None = None,
    shard_bytes: int | None = None,
) -> PruneResult:
    """Cuts, validates, verifies, compensates, writes.

    Args:
        graph: of the original.
        asked: what the kept weights become, and the samples for it.
        decision: what goes.
        clock: gets the time of each stage.
        output: path of the pruned model; None: nothing is written.
        plan_out: where to write the plan.
        followed: the plan that the user gave, if any: the output says that it was made by this one.
        verify_result: run the masking oracle.
        seed: of its random inputs.
        dims: sizes for symbolic dimensions.
        shard_bytes: the weights go into files of at most so many bytes.

    Raises:
        GraphPruneError: see the errors' exit codes; nothing is written then.
    """
    before, evidence = graph.cost.evaluate(), asked.evidence(graph)
    removed = removed_units(graph, decision)
    clock.stop("plan")
    pruned = cut_and_leave_room(graph, removed)
    stream = Stream(pruned.ir)
    validate(pruned, in_session=verify_result, stream=stream, big=is_big(graph.model))
    clock.stop("rewrite")
    verdict = verify_somehow(graph.analysis, removed, pruned, seed=seed) if verify_result else None
    clock.stop("verify")
    change = compensator_for(asked.recipe.compensator, graph, removed, pruned, decision.target)
    errors = None
    if change is not None:
        effect = Effect(evidence)
        with evidence.substitutes.applied(pruned, Keeps(graph.analysis, removed)):
            before_it = effect.of(pruned)
            pruned = compensated(asked, graph, change, removed, pruned, decision.target)
            after_it = effect.of(pruned)
        if np.isfinite(before_it):
            errors = (before_it, after_it)
            if not after_it <= before_it:  # weights that made it worse are not kept
                pruned, errors = cut_and_leave_room(graph, removed), (before_it, before_it)
                decision = decision.noting(compensator="none", rejected=asked.recipe.compensator)
        stand_in = asked.stand_in(graph)
        decision = decision.noting(**(evidence if stand_in is None else stand_in.evidence).notes())
        stream = Stream(pruned.ir)
        validate(pruned, in_session=verify_result, stream=stream, big=is_big(graph.model))
        clock.stop("compensate")
    elif asked.calibration is not None:  # what the cut alone did
        error = Effect(evidence).of(pruned)
        errors = (error, error) if np.isfinite(error) else None
    after = cost_of(pruned, dims, stream)
    known = dict(decision.reached)
    if followed is not None and followed.model_sha256 != graph.sha256:
        known.pop("latency", None)  # measured on another file
    decision = replace(decision, reached={**known, **reached(after, before)})
    note_origin(pruned, graph, followed or decision, after)
    if output is not None:
        with decision.ready_at(plan_out):  # so that a full disk leaves both as they were
            pruned.save(
                output, stream=Stream(pruned.ir), as_loaded=True, shard_bytes=shard_bytes,
                progress=evidence.progress,
            )  # fmt: skip
    elif plan_out is not None:
        graph.model.stamps.require_same()
        decision.save(plan_out)
    clock.stop("write")
    written = Path(output) if output is not None else None
    return PruneResult(
        before, after, decision, verdict, clock.laps, pruned, written, graph.sha256, errors,
        is_synthetic=evidence.is_synthetic, is_held_out=errors is not None and evidence.is_judged_apart,
    )  # fmt: skip
