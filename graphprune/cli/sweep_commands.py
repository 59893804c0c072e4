"""`sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from graphprune.amounts import count, milliseconds, size
from graphprune.cli.command_line import command_line
from graphprune.cli.output import log, show, show_json
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
    ProviderName,
    RecipeName,
    Seed,
    Threads,
    Verify,
    parse_dims,
)
from graphprune.cli.progress import stages
from graphprune.errors import TargetError
from graphprune.family import SweepResult


def sweep(
    model: ModelPath,
    targets: Annotated[
        str,
        typer.Option(
            "--targets", metavar="AMOUNT,…", help="What may be kept: 80%,60%,40%.", show_default=False
        ),
    ],
    out_dir: Annotated[
        Path,
        typer.Option("--out-dir", metavar="DIR", help="For models, plans, sweep.json.", show_default=False),
    ],
    metric: Annotated[
        str, typer.Option("--metric", help="What the targets are about: macs, params, bytes, latency.")
    ] = "macs",
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="FILE.npz",
            help="Samples to judge by; with an array `labels`, by accuracy.",
            show_default="the calibration's held-out samples",
        ),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Measure latency, all models in alternation.")
    ] = True,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write report.html into the folder.")
    ] = True,
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
    verify: Verify = True,
    declare: Declare = None,
    allow_io: AllowIO = None,
    dim: Dims = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """A family of models at several targets in one run, and which of them are worth having."""
    from graphprune.reporting.request import ReportRequest
    from graphprune.reporting.sweep_report import write_sweep_report
    from graphprune.sweep import sweep as prune_all

    with stages("pruning") as progress:
        result = prune_all(
            model, out_dir, targets=targets.split(","), metric=metric, data=data, measure=measure,
            recipe=recipe, criterion=criterion, allocator=allocator, compensator=compensator,
            calibration=calibration, samples=samples, verify_result=verify, dims=parse_dims(dim),
            declarations=declare, allow_io=allow_io or (), seed=seed, progress=progress,
            kinds=kinds.split(",") if kinds is not None else None, exact_only=exact_only,
            include=include or (), exclude=exclude or (), align=align, floor=floor, batch=batch,
            threads=threads, provider=provider, on=on,
        )  # fmt: skip
    if report:
        write_sweep_report(result, ReportRequest(out_dir / "report.html", command_line()))
    if json:
        show_json(result.to_json())
    else:
        show(_table(result), f"judged on {result.judged_on}")
        if report:
            show(f"report: {out_dir / 'report.html'}")
    if result.not_measured is not None:
        log(f"latency was not measured: {result.not_measured}")
    for name, why in result.unreached.items():
        log(f"not reached: {name}: {why}")
    if result.unreached:
        raise typer.Exit(TargetError.exit_code)


def _table(result: SweepResult) -> Table:
    table = Table(title=f"{len(result.points) - 1} models by {result.metric}")
    table.add_column("", overflow="fold")
    for name in ("MACs", "parameters", "file", "latency", "accuracy", "same answer", "output error"):
        table.add_column(name, justify="right")
    table.add_column("not beaten in")
    for p in result.points:
        quality, latency = p.quality, "-"
        if p.latency_ms is not None and p.latency_ratio is not None:
            latency = f"{milliseconds(p.latency_ms)} ms ({p.latency_ratio:.0%})"
        shares = ["-" if s is None else f"{s:.2%}" for s in (quality.accuracy, quality.agreement)]
        table.add_row(
            p.name, f"{count(p.macs)} ({p.kept['macs']:.0%})", f"{count(p.params)} ({p.kept['params']:.0%})",
            f"{size(p.bytes)} ({p.kept['bytes']:.0%})", latency, *shares,
            "-" if quality.error is None else f"{quality.error:.3g}",
            ", ".join(cost.removesuffix("_ms") for cost in p.best_for) or "-",
        )  # fmt: skip
    return table
