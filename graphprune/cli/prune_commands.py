"""`prune`, `apply` and `demo`."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from graphprune import api
from graphprune.cli import tables
from graphprune.cli.command_line import command_line
from graphprune.cli.output import log, show, show_json, working
from graphprune.cli.parameters import (
    Align,
    Allocator,
    AllowIO,
    Batch,
    Calibration,
    Compensate,
    Criterion,
    Declare,
    Dims,
    ExactOnly,
    Exclude,
    Floor,
    Include,
    Json,
    Kinds,
    ModelPath,
    NumberOfSamples,
    On,
    OutPath,
    ProviderName,
    RecipeName,
    Report,
    ReportLatency,
    Resume,
    Seed,
    ShardSize,
    Threads,
    Verify,
    parse_dims,
)
from graphprune.cli.progress import stages
from graphprune.errors import ModelError, UsageError
from graphprune.plan import Plan
from graphprune.report import SCHEMA_VERSION
from graphprune.reporting.request import ReportRequest
from graphprune.reporting.sentences import sentences
from graphprune.storage.writing import require_apart
from graphprune.target import parse_target


def prune(
    model: ModelPath,
    out: OutPath,
    target: Annotated[
        list[str],
        typer.Option(
            "--target",
            metavar="KEY=VALUE",
            help="What may be kept: macs=50%, params=2M, bytes=20MB, latency=4ms. [repeatable: all are met]",
            show_default=False,
        ),
    ],
    recipe: RecipeName = None,
    criterion: Criterion = None,
    allocator: Allocator = None,
    compensator: Compensate = None,
    calibration: Calibration = None,
    samples: NumberOfSamples = None,
    kinds: Kinds = None,
    exact_only: ExactOnly = False,
    include: Include = None,
    exclude: Exclude = None,
    align: Align = None,
    floor: Floor = 0.1,
    batch: Batch = 1,
    threads: Threads = None,
    provider: ProviderName = "cpu",
    on: On = None,
    plan_out: Annotated[
        Path | None, typer.Option("--plan-out", metavar="FILE.json", help="Save the plan.")
    ] = None,
    report: Report = None,
    report_latency: ReportLatency = False,
    verify: Verify = True,
    declare: Declare = None,
    allow_io: AllowIO = None,
    dim: Dims = None,
    seed: Seed = 0,
    shard_size: ShardSize = None,
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Prunes a model to a target: plan, rewrite, verify, write."""
    targets: dict[str, float | str] = {}
    for item in target:
        metric, amount = parse_target(item)
        if metric in targets:
            message = f"two targets for '{metric}'"
            raise UsageError(message, hint="one --target per metric")
        targets[metric] = amount
    if on is not None and "latency" not in targets and align != "auto" and not report_latency:
        because = "nothing is measured without a latency target, --align auto or --report-latency"
        log(f"--on {on} is not used: {because}")
    with stages("pruning") as progress:
        result = api.prune(
            model, out, target=targets, recipe=recipe, criterion=criterion, allocator=allocator,
            compensator=compensator, calibration=calibration, samples=samples, progress=progress,
            kinds=kinds.split(",") if kinds is not None else None, exact_only=exact_only,
            include=include or (), exclude=exclude or (), align=align, floor=floor,
            batch=batch, threads=threads, provider=provider, on=on, plan_out=plan_out,
            report=_request(report, report_latency), verify_result=verify,
            dims=parse_dims(dim), seed=seed, declarations=declare, allow_io=allow_io or (),
            shard_size=shard_size, resume=resume,
        )  # fmt: skip
    _show(result, json=json)


def apply(
    plan: Annotated[
        Path, typer.Argument(metavar="PLAN", help="A plan that prune wrote.", show_default=False)
    ],
    model: ModelPath,
    out: OutPath,
    compensator: Compensate = None,
    calibration: Calibration = None,
    samples: NumberOfSamples = None,
    report: Report = None,
    report_latency: ReportLatency = False,
    verify: Verify = True,
    declare: Declare = None,
    dim: Dims = None,
    seed: Seed = 0,
    shard_size: ShardSize = None,
    json: Json = False,
) -> None:
    """Cuts a model as a saved plan says (also another precision of the same model)."""
    document = Plan.load(plan)
    require_apart([path for path in (out, report) if path is not None], [plan])
    with stages("pruning") as progress:
        result = api.prune(
            model, out, use_plan=document, compensator=compensator, calibration=calibration,
            report=_request(report, report_latency), samples=samples, progress=progress,
            verify_result=verify, dims=parse_dims(dim), seed=seed,
            declarations=declare, shard_size=shard_size,
        )  # fmt: skip
    if result.source_sha256 != document.model_sha256:
        log("note: the plan was made for another file; its parameters fit this one")
    _show(result, json=json)


def demo(
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write the pruned model.")] = Path(
        "out/digits_pruned.onnx"
    ),
    recover: Annotated[
        bool,
        typer.Option("--recover", help="Second step, needs torch: cut deeper, then train on images."),
    ] = False,
    json: Json = False,
) -> None:
    """Prunes the bundled trained model to half its MACs, and shows what became of it."""
    from graphprune.converters.recovery import require_torch
    from graphprune.demo import recover_demo, run_demo

    if recover:
        require_torch()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"cannot make the folder '{out.parent}'"
        raise ModelError(
            message, because=error.strerror, hint="--out FILE in a folder you can write to"
        ) from error
    with working("pruning the bundled model"):
        report = run_demo(out)
    recovery = None
    if recover:
        with stages("recovering") as progress:
            recovery = recover_demo(out.with_stem(f"{out.stem}_recovered"), progress)
    if json:
        second = {} if recovery is None else {"recovery": recovery.to_json()}
        show_json({"schema_version": SCHEMA_VERSION, **report.to_json(), **second})
        return
    gain = report.accuracy_after - report.accuracy_before
    accuracy = (f"{report.accuracy_before:.1%}", f"{report.accuracy_after:.1%}", f"{gain:+.1%}")
    latency = (f"{report.latency_ms_before:.3f} ms", f"{report.latency_ms_after:.3f} ms")
    extra = [
        ("accuracy on 360 test images", *accuracy),
        ("latency of 64 images (p50, 1 thread)", *latency, f"{report.latency_ratio:.1%}"),
    ]
    result = report.result
    show(tables.before_after(result.before, result.after, extra), *sentences(result))
    if recovery is not None:
        kept = recovery.pruned.after.macs / recovery.pruned.before.macs
        show(
            f"second step: cut to {kept:.0%} of the MACs without samples, accuracy "
            f"{recovery.accuracy_before:.1%}; after {recovery.result.seconds:.0f} s of training on "
            f"{recovery.result.fitted} unlabelled images {recovery.accuracy_after:.1%}",
            f"written: {recovery.result.output}",
        )


def _request(path: Path | None, latency: bool) -> ReportRequest | None:
    if path is None:
        if latency:
            message = "--report-latency without a report"
            raise UsageError(message, hint="--report FILE.html")
        return None
    return ReportRequest(path, command_line(), latency)


def _show(result: api.PruneResult, *, json: bool) -> None:
    if json:
        show_json(document(result))
        return
    show(tables.before_after(result.before, result.after), *sentences(result))
    log(
        f"graphprune {version('graphprune')}, onnxruntime {version('onnxruntime')}, "
        f"model sha256 {result.source_sha256}"
    )


def document(result: api.PruneResult) -> dict[str, Any]:
    """The result of a pruning run as JSON."""
    return {
        "schema_version": SCHEMA_VERSION,
        "output": str(result.output) if result.output is not None else None,
        "before": asdict(result.before),
        "after": asdict(result.after),
        "kept": result.after.ratio(result.before),
        "target": result.plan.target,
        "reached": dict(result.plan.reached),
        "groups": [asdict(g) for g in result.plan.groups],
        "interface": [asdict(e) for e in result.plan.interface],
        "verify": asdict(result.verdict) if result.verdict is not None else None,
        "seconds": dict(result.seconds),
        "options": dict(result.plan.options),
        "output_errors": list(result.output_errors) if result.output_errors is not None else None,
        "samples_are_made_up": result.is_synthetic,
        "samples_are_held_out": result.is_held_out,
        "model_sha256": result.source_sha256,
    }
