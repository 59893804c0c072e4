"""`prune`, `apply` and `demo`."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from graphprune import api
from graphprune.cli import tables
from graphprune.cli.output import log, show, show_json, working
from graphprune.cli.parameters import (
    AllowIO,
    Calibration,
    Compensate,
    Declare,
    Dims,
    Json,
    ModelPath,
    NumberOfSamples,
    OutPath,
    Seed,
    Verify,
    parse_dims,
)
from graphprune.cli.progress import stages
from graphprune.errors import ModelError, UsageError
from graphprune.passes.allocators import ALLOCATORS
from graphprune.passes.criteria import CRITERIA
from graphprune.passes.recipes import RECIPES
from graphprune.plan import Plan
from graphprune.report import SCHEMA_VERSION
from graphprune.target import parse_target

Globs = list[str] | None


def prune(
    model: ModelPath,
    out: OutPath,
    target: Annotated[
        list[str],
        typer.Option(
            "--target",
            metavar="KEY=VALUE",
            help="What may be kept: macs=50%, params=2M, bytes=20MB. [repeatable: all are met]",
            show_default=False,
        ),
    ],
    recipe: Annotated[
        str | None,
        typer.Option(
            help=f"A named combination of the next three (docs/recipes.md): {', '.join(sorted(RECIPES))}.",
            show_default="graphprune",
        ),
    ] = None,
    criterion: Annotated[
        str | None, typer.Option(help=f"Importance of a unit: {', '.join(sorted(CRITERIA))}.")
    ] = None,
    allocator: Annotated[
        str | None, typer.Option(help=f"How the budget is shared: {', '.join(sorted(ALLOCATORS))}.")
    ] = None,
    compensator: Compensate = None,
    calibration: Calibration = None,
    samples: NumberOfSamples = None,
    kinds: Annotated[
        str | None,
        typer.Option(
            metavar="KIND,…",
            help="Which may go: channels, heads, head_dim, experts, conv_groups, norm_groups; and, only if "
            "named here, blocks.",
        ),
    ] = None,
    exact_only: Annotated[
        bool, typer.Option("--exact-only", help="No group over which a norm, softmax or mean runs.")
    ] = False,
    include: Annotated[
        Globs, typer.Option(metavar="GLOB", help="Only these groups, parameters or nodes.")
    ] = None,
    exclude: Annotated[Globs, typer.Option(metavar="GLOB", help="Leave these alone.")] = None,
    align: Annotated[int, typer.Option(help="Widths are kept as multiples of this.")] = 1,
    floor: Annotated[float, typer.Option(help="Smallest kept fraction of each group.")] = 0.1,
    plan_out: Annotated[
        Path | None, typer.Option("--plan-out", metavar="FILE.json", help="Save the plan.")
    ] = None,
    verify: Verify = True,
    declare: Declare = None,
    allow_io: AllowIO = None,
    dim: Dims = None,
    seed: Seed = 0,
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
    with stages("pruning") as progress:
        result = api.prune(
            model, out, target=targets, recipe=recipe, criterion=criterion, allocator=allocator,
            compensator=compensator, calibration=calibration, samples=samples, progress=progress,
            kinds=kinds.split(",") if kinds is not None else None, exact_only=exact_only,
            include=include or (), exclude=exclude or (), align=align, floor=floor,
            plan_out=plan_out, verify_result=verify, dims=parse_dims(dim), seed=seed,
            declarations=declare, allow_io=allow_io or (),
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
    verify: Verify = True,
    declare: Declare = None,
    dim: Dims = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Cuts a model as a saved plan says (also another precision of the same model)."""
    document = Plan.load(plan)
    with stages("pruning") as progress:
        result = api.prune(
            model, out, use_plan=document, compensator=compensator, calibration=calibration,
            samples=samples, progress=progress, verify_result=verify, dims=parse_dims(dim), seed=seed,
            declarations=declare,
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
    show(tables.before_after(result.before, result.after, extra), *_footer(result))
    if recovery is not None:
        kept = recovery.pruned.after.macs / recovery.pruned.before.macs
        show(
            f"second step: cut to {kept:.0%} of the MACs without samples, accuracy "
            f"{recovery.accuracy_before:.1%}; after {recovery.result.seconds:.0f} s of training on "
            f"{recovery.result.fitted} unlabelled images {recovery.accuracy_after:.1%}",
            f"written: {recovery.result.output}",
        )


def _show(result: api.PruneResult, *, json: bool) -> None:
    if json:
        show_json(document(result))
        return
    show(tables.before_after(result.before, result.after), *_footer(result))
    log(
        f"graphprune {version('graphprune')}, onnxruntime {version('onnxruntime')}, "
        f"model sha256 {result.source_sha256}"
    )


def _footer(result: api.PruneResult) -> list[str]:
    lines = _removed(result)
    verdict = result.verdict
    if verdict is not None:
        lines.append(
            f"verified: the cut is right. On random inputs of {len(verdict.runs)} sizes the outputs equal "
            f"those of the original with the same slices masked (within {verdict.max_error:.2g}, values "
            f"up to {verdict.scale:.3g})"
        )
        if verdict.not_run:
            lines.append(f"not run, since onnxruntime does not know them: {', '.join(verdict.not_run)}")
        if verdict.statistics:
            shown = ", ".join(verdict.statistics[:3])
            more = f" and {len(verdict.statistics) - 3} more" if len(verdict.statistics) > 3 else ""
            lines.append(
                f"not the same as zeroing: these run over kept positions only, or not at all: {shown}{more}"
            )
    else:
        lines.append("not verified (--no-verify)")
    lines += _signature(result)
    lines += _accuracy(result)
    widths = any(group.kind in ("channels", "head_dim") for group in result.plan.groups)
    if widths and result.plan.options.get("align") == 1:
        lines.append("widths that are no multiple of 8 can run slower than before: --align 8, and measure")
    if result.output is not None:
        lines.append(f"written: {result.output}")
    return lines


#: What is said about the samples, by option of the plan.
_NOTES = {
    "layers_with_few_rows": (
        "few samples: layers that saw fewer rows than they have inputs: {}; their correlations count for "
        "less, and more samples would help"
    ),
    "layers_too_large": "{} layers have too many inputs for second moments: their weights stay as they are",
    "samples_at_a_time": "samples ran one at a time: the model does not take more, whatever its inputs say",
}


def _accuracy(result: api.PruneResult) -> list[str]:
    """What is known of how well the pruned model does."""
    options, lines = result.plan.options, []
    if "fallback" in options:
        reason = options["fallback"].splitlines()[0]
        lines.append(f"weights only, since the model can't be run here: {reason}")
    lines += [text.format(options[name]) for name, text in _NOTES.items() if name in options]
    if "new_biases" in options.get("allocation", {}):
        lines.append("no layer got a new bias: the target leaves no room for it")
    if result.output_errors is not None:
        before, after = result.output_errors
        kind = "made-up" if result.is_synthetic else "calibration"
        kind = f"held-out {kind}" if result.is_held_out else kind
        said = f"outputs on {kind} samples: relative squared error {before:.3g} when cut, "
        how = options.get("compensator", "compensator")
        if "rejected" in options:
            lines.append(said + "and no less with weights re-solved, which are left as they were")
        elif how == "none":
            lines.append(said + "weights as they were")
        else:
            lines.append(said + f"{after:.3g} with the kept weights re-solved ({how})")
            if not result.is_held_out:
                lines.append("that flatters: these are the samples that weights were fitted to")
    if result.output_errors is None or result.is_synthetic:
        lines.append("this says nothing about accuracy: evaluate the pruned model on your data")
    return lines


def _removed(result: api.PruneResult) -> list[str]:
    """What went, kind by kind."""
    lines = []
    kinds = Counter(group.kind for group in result.plan.groups)
    for kind, count in kinds.most_common():
        groups = [group for group in result.plan.groups if group.kind == kind]
        if kind == "blocks":
            shown = ", ".join(group.id.removesuffix("/blocks") for group in groups[:6])
            more = ", …" if count > 6 else ""
            lines.append(f"removed: {count} block{'s' if count > 1 else ''} ({shown}{more})")
            continue
        size, kept = sum(g.size for g in groups), sum(len(g.keep) for g in groups)
        lines.append(f"removed: {size - kept} of {size} {kind} in {count} group{'s' if count > 1 else ''}")
    return lines


def _signature(result: api.PruneResult) -> list[str]:
    """The inputs and outputs that shrank, axis by axis."""
    return [
        f"new signature: {e.kind} '{e.name}', axis {e.axis}: {len(e.keep)} of {e.size} positions"
        for e in result.plan.interface
    ]


def document(result: api.PruneResult) -> dict[str, Any]:
    """The result of a pruning run as JSON."""
    return {
        "schema_version": SCHEMA_VERSION,
        "output": str(result.output) if result.output is not None else None,
        "before": asdict(result.before),
        "after": asdict(result.after),
        "kept": result.after.ratio(result.before),
        "target": result.plan.target,
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
