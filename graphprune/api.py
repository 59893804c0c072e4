"""The Python interface: load, analyze, plan, apply, check, and prune, which is all of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from graphprune.axes_kept import Keeps
from graphprune.calibration.samples import SampleSource
from graphprune.check import Feeds, compare_models, validate
from graphprune.clock import Clock
from graphprune.decision import bounds, decide, decide_or_fall_back
from graphprune.declarations import DeclarationSource, read_declarations
from graphprune.errors import UsageError
from graphprune.forecast import announce
from graphprune.graph import DependencyGraph, analyze
from graphprune.interface_axes import allowed_by
from graphprune.journal import open_journal
from graphprune.model import Model, Source, load
from graphprune.parts import is_big
from graphprune.passes.compensators import compensator_for
from graphprune.plan import Plan
from graphprune.planner import removed_units
from graphprune.progress import Progress
from graphprune.pruning import PruneResult as PruneResult
from graphprune.pruning import carry_out, compensated, cost_of, cut_and_leave_room, note_origin
from graphprune.reporting.report import write_report
from graphprune.reporting.request import ReportRequest
from graphprune.steady import steady
from graphprune.storage.workspace import reserved_if_any
from graphprune.storage.writing import require_apart, require_free_of_data, require_writable
from graphprune.strategy import strategy
from graphprune.target import parse_bytes


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


@steady()
def plan(
    model: Source | DependencyGraph,
    *,
    target: Mapping[str, float | str],
    recipe: str | None = None,
    criterion: str | None = None,
    allocator: str | None = None,
    calibration: SampleSource | None = None,
    samples: int | None = None,
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
    dims: Mapping[str, int] | None = None,
    declarations: DeclarationSource | None = None,
    allow_io: Collection[str] = (),
    seed: int = 0,
) -> Plan:
    """Decides what goes.

    Args:
        model: a model or its dependency graph.
        target: what may be kept: ``{"macs": 0.5}``, ``{"bytes": "20MB"}``, ``{"latency": "4ms"}``; several at
            once are all met.
        recipe: a named combination of criterion, allocator and compensator: docs/recipes.md.
        criterion: importance of a unit: a name of :data:`~graphprune.passes.criteria.CRITERIA`.
        allocator: how the budget is shared: a name of :data:`~graphprune.passes.allocators.ALLOCATORS`.
        calibration: samples without labels: an ``.npz``, a dict of arrays named as the model's inputs, or an
            iterable of such dicts; None or "none": samples are made up where the criterion needs some.
        samples: how many of them are used (None: all).
        kinds: kinds of groups that may shrink (None: all).
        exact_only: leave out groups over which a norm, softmax or mean runs.
        include: globs over group, parameter and node names; empty for all.
        exclude: globs of what to leave alone.
        align: widths are kept as multiples of this; "auto": as the machine likes them, layer by layer; None:
            "auto" with a latency target, else 1.
        floor: smallest kept fraction of each group.
        provider: execution provider that latencies are measured on.
        threads: threads within an operator, for latencies.
        batch: size of symbolic first axes, for latencies.
        on: where latencies are measured; None: this machine.
        dims: sizes for symbolic dimensions.
        declarations: operators without a rule: see :func:`~graphprune.graph.analyze`.
        allow_io: model inputs and outputs that may shrink: see :func:`~graphprune.graph.analyze`.
        seed: of everything random.

    Raises:
        UsageError: an option makes no sense.
        TargetError: the target can't be reached.
    """
    asked = strategy(
        recipe=recipe, criterion=criterion, allocator=allocator, calibration=calibration, samples=samples,
        seed=seed, dims=dims,
    )  # fmt: skip
    selection, limits, tuning = bounds(
        kinds, exact_only, include, exclude, align, floor, provider, threads, batch, on
    )
    graph = _graph(model, dims, declarations, allow_io)
    return decide(graph, asked, target, selection, limits, tuning)


@steady()
def apply(
    model: Source | DependencyGraph,
    plan: Plan,
    *,
    compensator: str = "none",
    calibration: SampleSource | None = None,
    samples: int | None = None,
    dims: Mapping[str, int] | None = None,
    declarations: DeclarationSource | None = None,
    seed: int = 0,
) -> Model:
    """The model cut as a plan says, valid by onnx.checker.

    A plan carries its declarations and the new signature of the model: neither has to be given again.

    Args:
        model: the model, or its dependency graph; not changed.
        plan: what goes.
        compensator: what the kept weights become: a name of
            :data:`~graphprune.passes.compensators.COMPENSATORS`.
        calibration: samples for it, as in :func:`plan`.
        samples: how many of them are used (None: all).
        dims: sizes for symbolic dimensions.
        declarations: operators without a rule: see :func:`~graphprune.graph.analyze`.
        seed: of everything random.

    Raises:
        PlanError: the plan does not fit the model.
        ValidationError: the result is not a valid model.
    """
    asked = strategy(compensator=compensator, calibration=calibration, samples=samples, seed=seed, dims=dims)
    graph = model if isinstance(model, DependencyGraph) else _graph_for(plan, model, dims, declarations)
    removed = removed_units(graph, plan)
    pruned = cut_and_leave_room(graph, removed)
    validate(pruned, big=is_big(graph.model))
    change = compensator_for(asked.recipe.compensator, graph, removed, pruned, plan.target)
    if change is not None:
        evidence = asked.evidence(graph)
        with evidence.substitutes.applied(pruned, Keeps(graph.analysis, removed)):
            pruned = compensated(asked, graph, change, removed, pruned, plan.target)
        validate(pruned, big=is_big(graph.model))
    note_origin(pruned, graph, plan, cost_of(pruned, dims))
    return pruned


def check(
    reference: Source, model: Source, *, data: Feeds | str | Path | None = None, seed: int = 0
) -> list[Any]:
    """How far the outputs of two models are apart: a :class:`~graphprune.check.Difference` per output."""
    return compare_models(load(reference), load(model), data, seed=seed)


@steady()
def prune(
    model: Source,
    output: str | Path | None = None,
    *,
    target: Mapping[str, float | str] | None = None,
    plan_out: str | Path | None = None,
    report: str | Path | ReportRequest | None = None,
    use_plan: Plan | None = None,
    recipe: str | None = None,
    criterion: str | None = None,
    allocator: str | None = None,
    compensator: str | None = None,
    calibration: SampleSource | None = None,
    samples: int | None = None,
    verify_result: bool = True,
    dims: Mapping[str, int] | None = None,
    declarations: DeclarationSource | None = None,
    allow_io: Collection[str] = (),
    seed: int = 0,
    progress: Progress | None = None,
    shard_size: int | str | None = None,
    resume: bool = False,
    **limits: Any,
) -> PruneResult:
    """All of it: plan, cut, validate, verify, compensate, write.

    Args:
        model: path or object; never changed.
        output: path of the pruned model; None: nothing is written.
        target: see :func:`plan`.
        plan_out: where to write the plan.
        report: where to write the HTML report, or a request that says more.
        use_plan: cut as this plan says instead of making one; no weights are changed unless a compensator
            is named.
        recipe: see :func:`plan`; "graphprune" if neither it nor a criterion is named.
        criterion: see :func:`plan`.
        allocator: see :func:`plan`.
        compensator: what the kept weights become, see :func:`apply`; None: as the recipe says.
        calibration: see :func:`plan`.
        samples: see :func:`plan`.
        verify_result: run the masking oracle (on the pure cut, before weights are changed).
        dims: sizes for symbolic dimensions.
        declarations: operators without a rule: see :func:`~graphprune.graph.analyze`.
        allow_io: model inputs and outputs that may shrink: see :func:`~graphprune.graph.analyze`.
        seed: of everything random.
        progress: is told how far which stage is: ``progress("calibrating", 3, 16)``.
        shard_size: the weights go into files beside the output, of at most so many bytes each (``"2GB"``).
        resume: go on from what a run that was interrupted has found out (docs/big.md).
        **limits: the other options of :func:`plan`: kinds, exact_only, include, exclude, align, floor,
            provider, threads, batch, on.

    Raises:
        GraphPruneError: see the errors' exit codes; nothing is written then.
    """
    clock = Clock()
    asked = strategy(
        recipe=recipe, criterion=criterion, allocator=allocator,
        compensator=compensator or ("none" if use_plan is not None else None),
        calibration=calibration, samples=samples, seed=seed, dims=dims, progress=progress,
    )  # fmt: skip
    bounds(**limits)
    shard_bytes = parse_bytes(str(shard_size)) if shard_size is not None else None
    asked_report = ReportRequest.of(report)
    page = asked_report.path if asked_report is not None else None
    from_file = isinstance(model, (str, Path))
    written = [Path(path) for path in (output, plan_out, page) if path is not None]
    sources = [Path(path) for path in (model, calibration) if isinstance(path, (str, Path))]
    sources += [declarations] if isinstance(declarations, Path) else []
    require_apart(written, sources)
    if output is not None:
        require_free_of_data(Path(output), written[1:])
    for path in written:
        require_writable(path)
    with reserved_if_any(output, keep=resume) as folder:
        source = load(model)
        require_apart(written, source.data_files)
        clock.stop("load")
        announce(source, verify=verify_result)
        if use_plan is None:
            graph = _graph(source, dims, declarations, allow_io, in_place=from_file)
        else:
            graph = _graph_for(use_plan, source, dims, declarations, allow_io, in_place=from_file)
        clock.stop("analyze")
        evidence = asked.evidence(graph)  # samples that don't fit are no reason to fall back
        question = {"target": target, "samples": samples, "dims": dims, **limits, **asked.options()}
        question |= {"seed": seed, "io": sorted(allow_io), "plan": use_plan and use_plan.sha256}
        question |= {"declarations": read_declarations(declarations).source}
        evidence.journal = open_journal(folder, source, evidence.given, question, resume=resume)
        decision = use_plan and use_plan.noting(**asked.weight_options())
        if decision is None:
            decision, asked = decide_or_fall_back(graph, asked, target or {}, limits)
        result = carry_out(
            graph, asked, decision, clock, output=output, plan_out=plan_out, followed=use_plan,
            verify_result=verify_result, seed=seed, dims=dims, shard_bytes=shard_bytes,
        )  # fmt: skip
        if asked_report is not None:
            setup = {key: limits[key] for key in ("provider", "threads", "batch", "on") if limits.get(key)}
            write_report(graph, result, asked_report, source, setup)
        return result
