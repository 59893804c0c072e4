"""The profile as data and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Latency:
    """Milliseconds per run: percentiles, the mean, the least and the most."""

    p50: float
    p90: float
    p95: float
    p99: float
    mean: float
    least: float
    most: float


@dataclass(frozen=True)
class OpTime:
    """Milliseconds per run that one operator type takes, and its share of all operators (0..1)."""

    op_type: str
    ms: float
    share: float


@dataclass(frozen=True)
class LayerTime:
    """Milliseconds per run of one node of the graph that the runtime made of the model.

    Attributes:
        name: as the runtime calls it.
        op_type: of the runtime's node.
        provider: on which it ran.
        ms: median over some runs, while the profiler watches.
        share: of all nodes (0..1).
        origins: nodes of the file that it computes, by name (by first output where they have none).
    """

    name: str
    op_type: str
    provider: str
    ms: float
    share: float
    origins: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """One model on one provider, at one set of sizes.

    Attributes:
        model: the file.
        provider: short name, as asked for.
        device: what it ran on.
        threads: threads within an operator; None is the runtime's choice.
        batch: samples in one run.
        dims: sizes given to symbolic axes by name.
        precision: what the provider was asked to compute in; None: as the model is.
        repeat: counted runs.
        warmup: runs before.
        stable: whether the latency was stable behind them; None if their number was given.
        latency_ms: of one run.
        throughput_per_s: samples per second, at the mean latency.
        load_ms: from the file to a session that can run, in a fresh process.
        peak_rss_bytes: peak resident memory of a process that only loads and runs the model; None
            where the system can't tell.
        idle_rss_bytes: of the same process before it loaded the model.
        peak_device_bytes: memory that the model took on the graphics card; None where there is none.
        energy_j: joules per run by meter: ``processor`` (all of it, whoever used it), ``card``.
        inputs: shape of each input.
        ops: time by operator type, the slowest first; empty if not asked for.
        layers: time by node, the slowest first; likewise.
    """

    model: str
    provider: str
    device: str
    threads: int | None
    batch: int
    dims: dict[str, int]
    precision: str | None
    repeat: int
    warmup: int
    stable: bool | None
    latency_ms: Latency
    throughput_per_s: float
    load_ms: float | None
    peak_rss_bytes: int | None
    idle_rss_bytes: int | None
    peak_device_bytes: int | None
    energy_j: dict[str, float]
    inputs: dict[str, tuple[int, ...]]
    ops: tuple[OpTime, ...]
    layers: tuple[LayerTime, ...]


@dataclass(frozen=True)
class Relative:
    """Latency of one run of the report over that of an earlier one, its reference.

    Attributes:
        model: the file.
        reference: the file that it is compared with.
        run: index of the run.
        reference_run: index of the reference.
        latency_ratio: ratio of the medians; below one, ``model`` is faster.
        paired_ratio: median of the ratios by round; a machine that changes speed in between changes
            the ratio of the medians, but not this one.
        low: 10th percentile of the ratio over the rounds of the interleaving.
        high: 90th percentile.
    """

    model: str
    reference: str
    run: int
    reference_run: int
    latency_ratio: float
    paired_ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Conditions:
    """What the machine did while the runs of one set of sizes alternated.

    Attributes:
        drift: latency of the first run in the last third of the rounds over that in the first third, less 1.
        mhz: the processor's mean clock: first, last and lowest; None where the system hides it.
        celsius: the hottest sensor: first, last and highest; likewise.
        throttled: how often the processor throttled itself, as far as it counts.
    """

    drift: float
    mhz: tuple[float, float, float] | None
    celsius: tuple[float, float, float] | None
    throttled: int


@dataclass(frozen=True)
class ProfileReport:
    """What :func:`graphprune.profile.profile` measured.

    Attributes:
        runs: by sizes, then by provider, then by model.
        relative: an entry per pair of runs at the same sizes.
        conditions: an entry per set of sizes.
        on: the address of the machine; None: this one.
        runtime: versions there, by name.
        notes: what could not be measured, one line each, with what it needs.
    """

    runs: tuple[Run, ...]
    relative: tuple[Relative, ...]
    conditions: tuple[Conditions, ...]
    on: str | None
    runtime: dict[str, str]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The report as a document with ``schema_version``."""
        return {"schema_version": 1, **asdict(self)}
