"""Measure models, here or elsewhere: latency, throughput, memory, energy, time by operator and layer.

Latency is that of ``session.run`` with numpy arrays in and out, so on a graphics card it includes
the copies.  Several models are measured in alternation, and their ratio with them, since a ratio of
two measurements minutes apart says more about the machine than about the models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np

from graphprune.errors import ModelError, UsageError
from graphprune.profiling.feeds import declared_inputs, describe
from graphprune.profiling.local import LocalBench
from graphprune.profiling.notes import conditions_of, notes_on
from graphprune.profiling.origins import Origins
from graphprune.profiling.precision import options_for
from graphprune.profiling.providers import device_name, find_provider, short_name
from graphprune.profiling.report import (
    Conditions,
    Latency,
    LayerTime,
    OpTime,
    ProfileReport,
    Relative,
    Run,
)  # fmt: skip
from graphprune.profiling.setups import Bench, Progress, Setup
from graphprune.profiling.tables import remarks, render
from graphprune.storage.external_places import external_files

__all__ = [
    "Conditions",
    "Latency",
    "LayerTime",
    "OpTime",
    "ProfileReport",
    "Relative",
    "Run",
    "profile",
    "remarks",
    "render",
]

_TRACE_SECONDS = 1.0


def profile(
    models: Sequence[str | Path],
    *,
    provider: str = "cpu",
    batch: int | Sequence[int] = 1,
    dims: Mapping[str, int | Sequence[int]] | None = None,
    threads: int | None = None,
    repeat: int | None = None,
    warmup: int | None = None,
    ops: bool = True,
    precision: str | None = None,
    options: Mapping[str, str] | None = None,
    on: str | None = None,
    known_hosts: str | None = None,
    progress: Progress | None = None,
) -> ProfileReport:
    """Runs every model on random input and measures it.

    Args:
        models: ONNX files.
        provider: ``cpu``, ``cuda``, ``tensorrt``, ``openvino``, ``coreml``, ``qnn``, ``xnnpack``, ``dml``,
            onnxruntime's own name of another one, ``trt`` for TensorRT without onnxruntime; several with
            commas between them; or ``all`` that are there.
        batch: size of the symbolic first axes; of several, each is measured.
        dims: sizes of symbolic axes by name, likewise; else 128, and 224 for the sides of an image.
        threads: threads within an operator; None leaves the choice to onnxruntime.
        repeat: counted runs; by default what fits into three seconds for each model, 30 to 1000.
        warmup: runs before; by default until the latency is stable.
        ops: whether to measure the time by operator and layer too, in runs of their own.
        precision: ``fp32``, ``fp16`` or ``int8``, for providers that choose it (TensorRT).
        options: of the provider, as onnxruntime calls them.
        on: another machine, see docs/devices.md; None: this one.
        known_hosts: file of known host keys for ``ssh://``.
        progress: called with rounds done and rounds in all.

    Raises:
        ModelError: a model can't be loaded or run, or the provider is not available.
        DeviceError: the machine can't be reached, or lacks something.
        UsageError: an argument is out of range, or names nothing.
    """
    batches = [batch] if isinstance(batch, int) else list(batch)
    sizes = {name: [size] if isinstance(size, int) else list(size) for name, size in (dims or {}).items()}
    _check({"batch": batches, "threads": [threads], "repeat": [repeat], "warmup": [warmup], **sizes})
    if not models:
        what = "there is no model to profile"
        raise UsageError(what)
    files = [Path(model) for model in models]
    for file in files:
        if not file.is_file():
            what = f"there is no file '{file}'"
            raise ModelError(what)
        external_files(file)
    shared = {"repeat": repeat, "warmup": warmup}
    with _bench(on, known_hosts) as bench:
        information = bench.information
        found = [(name, find_provider(name, information, on)) for name in _providers(provider, information)]
        runs: list[Run] = []
        relative: list[Relative] = []
        conditions: list[Conditions] = []
        chosen = [
            (count, dict(zip(sizes, s, strict=True))) for count, *s in product(batches, *sizes.values())
        ]
        inputs = {
            (file, n): describe(declared_inputs(file), count, dims)
            for file in files
            for n, (count, dims) in enumerate(chosen)
        }
        for n, (count, named) in enumerate(chosen):
            setups = [
                Setup(
                    file, name, entry, threads, count, inputs[file, n], options_for(name, precision, options),
                    precision, named, _span([inputs[file, m] for m in range(len(chosen))], inputs[file, n]),
                )
                for name, entry in found
                for file in files
            ]  # fmt: skip
            measured = bench.measure(setups, shared, progress)
            relative += _relative(setups, measured["runs"], len(runs))
            runs += [_run(bench, s, timed, ops) for s, timed in zip(setups, measured["runs"], strict=True)]
            conditions.append(conditions_of(measured))
        versions = {name: str(information[name]) for name in ("python", "numpy", "onnxruntime")}
        where = on.partition("?")[0] if on else None
        notes = notes_on(runs, conditions, information, provider)
    return ProfileReport(tuple(runs), tuple(relative), tuple(conditions), where, versions, notes)


@contextmanager
def _bench(on: str | None, known_hosts: str | None) -> Iterator[Bench]:
    if on is None:
        yield LocalBench()
        return
    from graphprune.remote.benches import open_bench

    with open_bench(on, known_hosts=known_hosts) as bench:
        yield bench


def _check(counts: Mapping[str, Sequence[int | None]]) -> None:
    for name, values in counts.items():
        for value in values:
            if value is not None and value < 1:
                what = f"{name} must be at least 1, not {value}"
                raise UsageError(what)


def _providers(text: str, information: Mapping[str, Any]) -> list[str]:
    if text != "all":
        return [name.strip() for name in text.split(",")]
    return [short_name(entry) for entry in information["providers"] if entry != "AzureExecutionProvider"]


def _span(
    every: Sequence[list[dict[str, Any]]], usual: list[dict[str, Any]]
) -> dict[str, tuple[list[int], list[int], list[int]]]:
    """The least, the usual and the largest shape of each input."""
    found = {}
    for number, value in enumerate(usual):
        sizes = list(zip(*(inputs[number]["shape"] for inputs in every), strict=True))
        found[value["name"]] = [min(s) for s in sizes], list(value["shape"]), [max(s) for s in sizes]
    return found


def _run(bench: Bench, setup: Setup, timed: Mapping[str, Any], ops: bool) -> Run:
    milliseconds = np.array(timed["milliseconds"])
    p50, p90, p95, p99 = (float(q) for q in np.percentile(milliseconds, [50, 90, 95, 99]))
    mean = float(milliseconds.mean())
    lone = bench.alone(setup)
    layers = _layers(bench, setup) if ops else ()
    shapes = {value["name"]: tuple(value["shape"]) for value in setup.inputs}
    batch = next((shape[0] for shape in list(shapes.values())[:1] if shape), 1)
    return Run(
        model=str(setup.model),
        provider=setup.name,
        device=device_name(setup.provider, bench.information),
        threads=setup.threads,
        batch=batch,
        dims=setup.dims,
        precision=setup.precision,
        repeat=len(milliseconds),
        warmup=timed["warmup"],
        stable=timed["stable"],
        latency_ms=Latency(p50, p90, p95, p99, mean, float(milliseconds.min()), float(milliseconds.max())),
        throughput_per_s=batch * 1e3 / mean,
        load_ms=lone["load_ms"],
        peak_rss_bytes=lone["peak"],
        idle_rss_bytes=lone["idle"],
        peak_device_bytes=lone["card"],
        energy_j=timed["joules"],
        inputs=shapes,
        ops=_ops(layers),
        layers=layers,
    )


def _layers(bench: Bench, setup: Setup) -> tuple[LayerTime, ...]:
    nodes, optimized = bench.trace(setup, _TRACE_SECONDS)
    total = sum(node["ms"] for node in nodes) or 1.0
    origins = Origins(Path(str(setup.model)), optimized)
    return tuple(
        LayerTime(n["name"], n["op_type"], n["provider"], n["ms"], n["ms"] / total, origins.of(n["name"]))
        for n in nodes
    )


def _ops(layers: Sequence[LayerTime]) -> tuple[OpTime, ...]:
    """The layers' times by operator type, the slowest first."""
    times: dict[str, float] = {}
    for layer in layers:
        times[layer.op_type] = times.get(layer.op_type, 0.0) + layer.ms
    total = sum(times.values()) or 1.0
    return tuple(OpTime(op, ms, ms / total) for op, ms in sorted(times.items(), key=lambda item: -item[1]))


def _relative(setups: Sequence[Setup], measured: Sequence[Mapping[str, Any]], start: int) -> list[Relative]:
    """One entry per pair, the earlier run being the reference."""
    found = []
    for (i, before), (j, after) in combinations(enumerate(measured), 2):
        ratios = np.array(after["medians"]) / np.array(before["medians"])
        low, paired, high = (float(q) for q in np.percentile(ratios, [10, 50, 90]))
        ratio = float(np.median(after["milliseconds"]) / np.median(before["milliseconds"]))
        names = str(setups[j].model), str(setups[i].model)
        found.append(Relative(*names, start + j, start + i, ratio, paired, low, high))
    return found
