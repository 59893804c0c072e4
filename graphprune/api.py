"""The Python interface: load, analyze, plan, apply, check, and prune, which is all of it."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graphprune.calibration.evidence import Evidence
from graphprune.check import Feeds, compare_models, validate
from graphprune.cost import Cost, measure
from graphprune.declarations import DeclarationSource
from graphprune.errors import UsageError
from graphprune.graph import DependencyGraph, analyze
from graphprune.interface_axes import allowed_by
from graphprune.model import Model, Source, load
from graphprune.oracle import Verdict, verify
from graphprune.passes.allocators import ALLOCATORS, Allocation, Limits
from graphprune.passes.criteria import CRITERIA
from graphprune.plan import Plan
from graphprune.planner import make_plan, removed_units
from graphprune.rewrite import cut
from graphprune.search import search
from graphprune.selection import Selection
from graphprune.storage.streaming import Stream
from graphprune.storage.writing import require_writable
from graphprune.target import fractions


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
    """

    before: Cost
    after: Cost
    plan: Plan
    verdict: Verdict | None
    seconds: Mapping[str, float]
    model: Model
    output: Path | None
    source_sha256: str


def _graph(
    source: Source | DependencyGraph,
    dims: Mapping[str, int] | None,
    declarations: DeclarationSource | None,
    allow_io: Collection[str],
    *,
    in_place: bool = False,
) -> DependencyGraph:
    if isinstance(source, DependencyGraph):
        if declarations is not None or allow_io:
            message = "declarations and allow_io come too late for a dependency graph"
            raise UsageError(message, hint="give them to analyze()")
        return source
    return analyze(load(source), dims, declarations=declarations, allow_io=allow_io, in_place=in_place)


def _graph_for(
    plan: Plan,
    source: Source,
    dims: Mapping[str, int] | None,
    declarations: DeclarationSource | None,
    allow_io: Collection[str] = (),
    *,
    in_place: bool = False,
) -> DependencyGraph:
    """The graph that a plan asks for: it carries its declarations, and the signature that it makes."""
    said = plan.options.get("declarations") if declarations is None else declarations
    return _graph(source, dims, said or None, [*allow_io, *allowed_by(plan)], in_place=in_place)


def plan(
    model: Source | DependencyGraph,
    *,
    target: Mapping[str, float | str],
    criterion: str = "l2",
    allocator: str = "global",
    kinds: Collection[str] | None = None,
    exact_only: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    align: int = 1,
    floor: float = 0.1,
    dims: Mapping[str, int] | None = None,
    declarations: DeclarationSource | None = None,
    allow_io: Collection[str] = (),
    seed: int = 0,
) -> Plan:
    """Decides what goes.

    Args:
        model: a model or its dependency graph.
        target: what may be kept: ``{"macs": 0.5}``, ``{"bytes": "20MB"}``; several at once are all met.
        criterion: importance of a unit: "l1", "l2" or "random".
        allocator: how the budget is shared: "global" (one ranking) or "uniform" (same fraction everywhere).
        kinds: kinds of groups that may shrink (None: all).
        exact_only: leave out groups over which a norm, softmax or mean runs.
        include: globs over group, parameter and node names; empty for all.
        exclude: globs of what to leave alone.
        align: widths are kept as multiples of this.
        floor: smallest kept fraction of each group.
        dims: sizes for symbolic dimensions.
        declarations: operators without a rule: see :func:`~graphprune.graph.analyze`.
        allow_io: model inputs and outputs that may shrink: see :func:`~graphprune.graph.analyze`.
        seed: of everything random.

    Raises:
        UsageError: an option makes no sense.
        TargetError: the target can't be reached.
    """
    graph = _graph(model, dims, declarations, allow_io)
    _check_options(criterion, allocator, align, floor)
    dense = graph.cost.evaluate()
    targets = fractions(target, dense)
    selection = Selection(kinds, exact_only, include, exclude)
    groups = selection.choose(graph)
    judge = CRITERIA[criterion](seed)
    scores = judge(Evidence(graph, seed=seed))
    allocation = Allocation(
        groups, scores, Limits(floor, align), graph, targets, additive=judge.additive, seed=seed
    )
    removed = search(allocation, ALLOCATORS[allocator])
    options: dict[str, Any] = {
        "criterion": criterion, "allocator": allocator, "align": align, "floor": floor, "seed": seed,
        "exact_only": exact_only, "kinds": sorted(kinds) if kinds is not None else None,
        "include": list(include), "exclude": list(exclude),
    }  # fmt: skip
    if allocation.report:
        options["allocation"] = dict(allocation.report)
    if graph.analysis.declarations.source:
        options["declarations"] = dict(graph.analysis.declarations.source)
    return make_plan(graph, removed, targets, options)


def _check_options(criterion: str, allocator: str, align: int, floor: float) -> None:
    for noun, name, table in (
        ("criterion", criterion, CRITERIA),
        ("allocator", allocator, ALLOCATORS),
    ):
        if name not in table:
            message = f"unknown {noun} '{name}'"
            raise UsageError(message, hint=f"one of {', '.join(sorted(table))}")
    if align < 1:
        message = f"cannot align widths to multiples of {align}"
        raise UsageError(message, hint="--align 8")
    if not 0.0 <= floor <= 1.0:
        message = f"a floor of {floor} is no fraction"
        raise UsageError(message, hint="--floor 0.1")


def apply(
    model: Source | DependencyGraph,
    plan: Plan,
    *,
    dims: Mapping[str, int] | None = None,
    declarations: DeclarationSource | None = None,
) -> Model:
    """The model cut as a plan says, valid by onnx.checker.

    A plan carries its declarations and the new signature of the model: neither has to be given again.

    Raises:
        PlanError: the plan does not fit the model.
        ValidationError: the result is not a valid model.
    """
    graph = model if isinstance(model, DependencyGraph) else _graph_for(plan, model, dims, declarations)
    pruned = cut(graph.analysis, removed_units(graph, plan))
    validate(pruned)
    return pruned


def check(
    reference: Source, model: Source, *, data: Feeds | str | Path | None = None, seed: int = 0
) -> list[Any]:
    """How far the outputs of two models are apart: a :class:`~graphprune.check.Difference` per output."""
    return compare_models(load(reference), load(model), data, seed=seed)


def prune(
    model: Source,
    output: str | Path | None = None,
    *,
    target: Mapping[str, float | str] | None = None,
    plan_out: str | Path | None = None,
    use_plan: Plan | None = None,
    verify_result: bool = True,
    dims: Mapping[str, int] | None = None,
    declarations: DeclarationSource | None = None,
    allow_io: Collection[str] = (),
    seed: int = 0,
    **options: Any,
) -> PruneResult:
    """All of it: plan, cut, validate, verify, write.

    Args:
        model: path or object; never changed.
        output: path of the pruned model; None: nothing is written.
        target: see :func:`plan`.
        plan_out: where to write the plan.
        use_plan: cut as this plan says instead of making one.
        verify_result: run the masking oracle.
        dims: sizes for symbolic dimensions.
        declarations: operators without a rule: see :func:`~graphprune.graph.analyze`.
        allow_io: model inputs and outputs that may shrink: see :func:`~graphprune.graph.analyze`.
        seed: of everything random.
        **options: further options of :func:`plan`.

    Raises:
        GraphPruneError: see the errors' exit codes; nothing is written then.
    """
    clock = _Clock()
    given = [Path(p) for p in (output, plan_out, model if isinstance(model, (str, Path)) else None) if p]
    if len({path.resolve() for path in given}) < len(given):
        message = f"two of the files are the same: {', '.join(map(str, given))}"
        raise UsageError(
            message, because="the input file is never changed", hint="another name for the output"
        )
    for path in (output, plan_out):
        if path is not None:
            require_writable(Path(path))
    source, from_file = load(model), isinstance(model, (str, Path))
    clock.stop("load")
    if use_plan is None:
        graph = _graph(source, dims, declarations, allow_io, in_place=from_file)
    else:
        graph = _graph_for(use_plan, source, dims, declarations, allow_io, in_place=from_file)
    before = graph.cost.evaluate()
    clock.stop("analyze")
    decision = use_plan
    if decision is None:
        decision = plan(graph, target=target or {}, seed=seed, **options)
    removed = removed_units(graph, decision)
    clock.stop("plan")
    pruned = cut(graph.analysis, removed)
    stream = Stream(pruned.ir)
    validate(pruned, in_session=verify_result, stream=stream)
    clock.stop("rewrite")
    verdict = verify(graph.analysis, removed, pruned, seed=seed) if verify_result else None
    clock.stop("verify")
    after = measure(pruned, dims, is_prepared=True, file_bytes=stream.size)
    decision = replace(decision, reached={k: round(v, 6) for k, v in after.ratio(before).items()})
    if output is not None:
        pruned.save(output, stream=stream)
    if plan_out is not None:
        decision.save(plan_out)
    clock.stop("write")
    written = Path(output) if output is not None else None
    return PruneResult(before, after, decision, verdict, clock.laps, pruned, written, source.sha256)


class _Clock:
    """Seconds per stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def stop(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now
