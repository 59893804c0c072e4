"""Measure models on this machine: latency, throughput, peak memory, time by operator.

Latency is that of ``session.run`` with numpy arrays in and out, so on a graphics card it includes
the copies.  Several models are measured in alternation, and their ratio with them, since a ratio of
two measurements minutes apart says more about the machine than about the models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import onnxruntime as ort

from graphprune.errors import ModelError, UsageError
from graphprune.profiling.feeds import Feeds, batch_of, make_feeds
from graphprune.profiling.memory import peak_memory
from graphprune.profiling.ops import time_by_op
from graphprune.profiling.providers import Provider, device_name, find_provider, open_session
from graphprune.profiling.report import Latency, OpTime, ProfileReport, Relative, Run, render
from graphprune.profiling.timing import Timing, measure

__all__ = ["Latency", "OpTime", "ProfileReport", "Relative", "Run", "profile", "render"]


def profile(
    models: Sequence[str | Path],
    *,
    provider: str = "cpu",
    batch: int = 1,
    dims: Mapping[str, int] | None = None,
    threads: int | None = None,
    repeat: int | None = None,
    warmup: int | None = None,
    ops: bool = True,
) -> ProfileReport:
    """Runs every model on random input and measures it.

    Args:
        models: ONNX files.
        provider: ``cpu``, ``cuda``, ``tensorrt``, ``openvino``, ``coreml``, ``qnn``, ``xnnpack`` or
            ``dml``.
        batch: size of the symbolic first axes.
        dims: sizes of symbolic axes by name; else 128, and 224 for the sides of an image.
        threads: threads within an operator; None leaves the choice to onnxruntime.
        repeat: counted runs; by default what fits into three seconds for each model, 30 to 1000.
        warmup: runs before; by default until the latency is stable.
        ops: whether to measure the time by operator type too, in runs of their own.

    Raises:
        ModelError: a model can't be loaded or run, or the provider is not available.
        UsageError: an argument is out of range, or names nothing.
    """
    counts = {
        "batch": batch,
        "threads": threads,
        "repeat": repeat,
        "warmup": warmup,
        **(dims or {}),
    }
    for name, value in counts.items():
        if value is not None and value < 1:
            what = f"{name} must be at least 1, not {value}"
            raise UsageError(what)
    if not models:
        what = "there is no model to profile"
        raise UsageError(what)
    found = find_provider(provider)
    files = [Path(model) for model in models]
    sessions = [open_session(file, found, threads) for file in files]
    feeds = [make_feeds(session, batch, dims) for session in sessions]
    for file, session, arrays in zip(files, sessions, feeds, strict=True):
        _try(file, session, arrays)
    pairs = zip(sessions, feeds, strict=True)
    timings = measure([partial(session.run, None, f) for session, f in pairs], repeat, warmup)
    del sessions  # their memory is not the next measurements' business
    runs = tuple(
        _run(file, provider, found, threads, arrays, timing, ops)
        for file, arrays, timing in zip(files, feeds, timings, strict=True)
    )
    return ProfileReport(runs, _relative(runs, timings))


def _try(file: Path, session: ort.InferenceSession, feeds: Feeds) -> None:
    """One run, whose failure is about the sizes chosen for the inputs."""
    try:
        session.run(None, feeds)
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
        what = f"'{file}' does not run on inputs of the chosen sizes"
        because = str(error).splitlines()[0]
        raise ModelError(what, where=shapes, because=because, hint="--dim NAME=SIZE") from error


def _run(
    file: Path,
    name: str,
    provider: Provider,
    threads: int | None,
    feeds: Feeds,
    timing: Timing,
    ops: bool,
) -> Run:
    memory = peak_memory(file, provider, threads, feeds)
    median = float(np.median(timing.milliseconds))
    times = time_by_op(file, provider, threads, feeds, median) if ops else {}
    total = sum(times.values()) or 1.0
    p50, p90, p99 = (float(q) for q in np.percentile(timing.milliseconds, [50, 90, 99]))
    mean = float(timing.milliseconds.mean())
    return Run(
        model=str(file),
        provider=name,
        device=device_name(provider),
        threads=threads,
        batch=batch_of(feeds),
        repeat=len(timing.milliseconds),
        latency_ms=Latency(p50, p90, p99, mean),
        throughput_per_s=batch_of(feeds) * 1e3 / mean,
        peak_rss_bytes=memory.peak if memory else None,
        idle_rss_bytes=memory.idle if memory else None,
        inputs={key: array.shape for key, array in feeds.items()},
        ops=tuple(OpTime(op, ms, ms / total) for op, ms in times.items()),
    )


def _relative(runs: Sequence[Run], timings: Sequence[Timing]) -> tuple[Relative, ...]:
    """One entry per pair, the earlier model being the reference."""
    found = []
    for (reference, before), (run, after) in combinations(zip(runs, timings, strict=True), 2):
        low, high = np.percentile(after.medians / before.medians, [10, 90])
        ratio = run.latency_ms.p50 / reference.latency_ms.p50
        found.append(Relative(run.model, reference.model, ratio, float(low), float(high)))
    return tuple(found)
