"""A family of models at several targets: analysed, calibrated and measured once."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from graphprune.axes_kept import Keeps
from graphprune.calibration.samples import SampleSource
from graphprune.clock import Clock
from graphprune.decision import bounds, decide_or_fall_back
from graphprune.declarations import DeclarationSource
from graphprune.device.sizes import axes_of
from graphprune.errors import DeviceError, ModelError, TargetError, UsageError
from graphprune.family import Point, SweepResult, best
from graphprune.graph import DependencyGraph, analyze
from graphprune.model import Source, load
from graphprune.passes.effect import Effect
from graphprune.planner import removed_units
from graphprune.profile import profile
from graphprune.progress import Progress
from graphprune.pruning import PruneResult, carry_out
from graphprune.quality import Judge, Quality
from graphprune.steady import steady
from graphprune.storage.text_files import write_text
from graphprune.storage.workspace import reserved
from graphprune.strategy import Strategy, strategy
from graphprune.target import parse_target


@steady()
def sweep(
    model: Source,
    out_dir: str | Path,
    *,
    targets: Sequence[str | float],
    metric: str = "macs",
    data: SampleSource | None = None,
    measure: bool = True,
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
    **limits: Any,
) -> SweepResult:
    """Prunes a model to several targets; every file appears whole or not at all.

    Args:
        model: path or object; never changed.
        out_dir: folder for the models, their plans and ``sweep.json``; made if it is not there.
        targets: what may be kept: ``["80%", "60%"]``, fractions, or amounts such as ``"20MB"``.
        metric: of the targets: macs, params, bytes or latency.
        data: samples that nothing is fitted to, with ``labels`` for accuracy; None: the calibration's
            held-out samples, or made-up ones, say how far the outputs moved.
        measure: measure latency, all models in alternation.
        recipe: see :func:`graphprune.plan`, as all that follows.
        criterion: see there.
        allocator: see there.
        compensator: see there.
        calibration: see there.
        samples: see there.
        verify_result: run the masking oracle on each.
        dims: see there.
        declarations: see there.
        allow_io: see there.
        seed: see there.
        progress: is told how far which stage is.
        **limits: the other options of :func:`graphprune.plan`.

    Raises:
        TargetError: not one of the targets can be reached.
        GraphPruneError: see the errors' exit codes.
    """
    asked = strategy(
        recipe=recipe, criterion=criterion, allocator=allocator, compensator=compensator,
        calibration=calibration, samples=samples, seed=seed, dims=dims, progress=progress,
    )  # fmt: skip
    bounds(**limits)
    amounts = _amounts(targets, metric)
    source = load(model)
    folder = _folder(Path(out_dir))
    stem = source.path.stem if source.path is not None else "model"
    outputs = {name: folder / f"{stem}-{metric}-{_file_name(name)}.onnx" for name in amounts}
    _require_apart(outputs, source.path)
    graph = analyze(source, dims, declarations=declarations, allow_io=allow_io)
    judge = Judge(source, data) if data is not None else None
    asked.evidence(graph)
    with reserved(folder / "sweep.json"):
        results: dict[str, PruneResult] = {}
        qualities: list[Quality] = []
        unreached: dict[str, TargetError] = {}
        for name, amount in amounts.items():
            output, clock = outputs[name], Clock()
            try:
                decision, asked = decide_or_fall_back(graph, asked, {metric: amount}, limits)
                found = carry_out(
                    graph, asked, decision, clock, output=output, plan_out=output.with_suffix(".plan.json"),
                    verify_result=verify_result, seed=seed, dims=dims,
                )  # fmt: skip
            except TargetError as error:
                unreached[name] = error
                continue
            qualities.append(judge.of(found.model) if judge is not None else _moved(asked, graph, found))
            results[name] = replace(found, model=load(output))  # the weights may stay on disk
        if not results:
            raise next(iter(unreached.values()))
        original = source.path
        if original is None:
            original = folder / f"{stem}-original.onnx"
            source.save(original)
        points = [_original(original, next(iter(results.values())), judge)]
        points += [
            _point(name, r, quality) for (name, r), quality in zip(results.items(), qualities, strict=True)
        ]
        result = SweepResult(
            metric, best(points), tuple(results.values()), {n: str(e) for n, e in unreached.items()}, graph,
            _judged_on(judge, next(iter(results.values()))), graph.sha256,
        )  # fmt: skip
        _save(result, folder)  # whatever happens while it is measured
        if measure:
            setup = {key: limits[key] for key in ("provider", "threads", "batch", "on") if limits.get(key)}
            result = _timed(result, setup)
            _save(result, folder)
        return result


def _save(result: SweepResult, folder: Path) -> None:
    write_text(folder / "sweep.json", json.dumps(result.to_json(), indent=1) + "\n", "the result")


def _timed(result: SweepResult, setup: Mapping[str, Any]) -> SweepResult:
    """With the latency of all models, their runs in alternation."""
    files = [point.output for point in result.points]
    try:
        timed = profile(files, dims=axes_of(result.graph, setup.get("batch", 1)), ops=False, **setup)
    except DeviceError as error:
        hint = "all models are written, their latencies are missing: graphprune profile measures them"
        raise DeviceError(error.what, where=error.where, because=error.because, hint=hint) from error
    except ModelError as error:  # operators that the runtime does not know
        return replace(result, not_measured=str(error))
    ratios = {pair.run: pair.paired_ratio for pair in timed.relative if pair.reference_run == 0}
    points = [
        replace(point, latency_ms=run.latency_ms.p50, latency_ratio=ratios.get(i, 1.0))
        for i, (point, run) in enumerate(zip(result.points, timed.runs, strict=True))
    ]
    return replace(result, points=best(points))


def _amounts(targets: Sequence[str | float], metric: str) -> dict[str, float | str]:
    """Each target by the name that it was given."""
    found: dict[str, float | str] = {}
    for target in targets:
        name = target.strip() if isinstance(target, str) else f"{target:.10g}"
        if not name:
            continue
        if name in found:
            message = f"two targets of {name}"
            raise UsageError(message, hint="each once: --targets 80%,60%,40%")
        found[name] = parse_target(f"{metric}={name}")[1] if isinstance(target, str) else target
    if not found:
        message = "no targets given"
        raise UsageError(message, hint="--targets 80%,60%,40%")
    return found


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"cannot make the folder '{path}'"
        raise ModelError(message, because=error.strerror, hint="--out-dir DIR where you can write") from error
    return path


def _require_apart(outputs: Mapping[str, Path], source: Path | None) -> None:
    """No file is written twice, and none over the original."""
    taken = [] if source is None else [source.resolve()]
    for name, path in outputs.items():
        if path.resolve() in taken:
            message = f"the target {name} would be written to '{path}', which is taken"
            raise UsageError(message, hint="another folder, or targets that differ by more than a sign")
        taken.append(path.resolve())


def _file_name(target: str) -> str:
    """``80%`` as ``80``: names that every file system takes."""
    kept = "".join(sign if sign.isalnum() or sign in ".-_" else "" for sign in target)
    return kept.strip(".") or "target"


def _original(path: Path, result: PruneResult, judge: Judge | None) -> Point:
    cost, quality = result.before, Quality(0, None, None, 0.0)
    if judge is not None:
        quality = judge.of(load(path))
    return Point(
        "original", str(path), cost.macs, cost.params, cost.bytes, dict.fromkeys(cost.ratio(cost), 1.0),
        None, None, quality, None,
    )  # fmt: skip


def _point(name: str, result: PruneResult, quality: Quality) -> Point:
    cost = result.after
    return Point(
        name, str(result.output), cost.macs, cost.params, cost.bytes, cost.ratio(result.before), None, None,
        quality, result.plan.sha256,
    )  # fmt: skip


def _moved(asked: Strategy, graph: DependencyGraph, found: PruneResult) -> Quality:
    """How far the outputs moved on the samples that judge: measured while pruning, or now."""
    evidence = asked.evidence(graph)
    if found.output_errors is not None:
        error = found.output_errors[1]
    else:
        removed = removed_units(graph, found.plan)
        try:
            with evidence.substitutes.applied(found.model, Keeps(graph.analysis, removed)):
                error = Effect(evidence).of(found.model)
        except ModelError:  # it can't be run here
            return Quality(0, None, None, None)
    return Quality(evidence.judges[1], None, None, error if np.isfinite(error) else None)


def _judged_on(judge: Judge | None, result: PruneResult) -> str:
    if judge is not None:
        return "the data"
    kind = "made-up" if result.is_synthetic else "calibration"
    return f"held-out {kind} samples" if result.is_held_out else f"{kind} samples"
