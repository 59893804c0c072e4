"""The profile as data, as JSON and as a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

from rich.table import Table

SHOWN_OPS = 8


@dataclass(frozen=True)
class Latency:
    """Milliseconds per run: the median, the 90th and 99th percentile, and the mean."""

    p50: float
    p90: float
    p99: float
    mean: float


@dataclass(frozen=True)
class OpTime:
    """Milliseconds per run that one operator type takes, and its share of all operators (0..1)."""

    op_type: str
    ms: float
    share: float


@dataclass(frozen=True)
class Run:
    """One model on one provider.

    Attributes:
        model: the file.
        provider: short name, as asked for.
        device: what it ran on.
        threads: threads within an operator; None is onnxruntime's choice.
        batch: samples in one run.
        repeat: counted runs.
        latency_ms: of one run.
        throughput_per_s: samples per second, at the mean latency.
        peak_rss_bytes: peak resident memory of a process that only loads and runs the model; None
            where the system can't tell.
        idle_rss_bytes: of the same process before it loaded the model.
        inputs: shape of each input.
        ops: time by operator type, the slowest first; empty if not asked for.
    """

    model: str
    provider: str
    device: str
    threads: int | None
    batch: int
    repeat: int
    latency_ms: Latency
    throughput_per_s: float
    peak_rss_bytes: int | None
    idle_rss_bytes: int | None
    inputs: dict[str, tuple[int, ...]]
    ops: tuple[OpTime, ...]


@dataclass(frozen=True)
class Relative:
    """Latency of ``model`` over that of ``reference``.

    Attributes:
        model: the file.
        reference: the file that it is compared with.
        latency_ratio: ratio of the medians; below one, ``model`` is faster.
        low: 10th percentile of the ratio over the rounds of the interleaving.
        high: 90th percentile.
    """

    model: str
    reference: str
    latency_ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class ProfileReport:
    """What :func:`graphprune.profile.profile` measured; ``relative`` has an entry per pair."""

    runs: tuple[Run, ...]
    relative: tuple[Relative, ...]

    def to_json(self) -> dict[str, Any]:
        """The report as a document with ``schema_version``."""
        return {"schema_version": 1, **asdict(self)}


def render(report: ProfileReport) -> Table:
    """The runs side by side."""
    names = _short_names([run.model for run in report.runs])
    first = report.runs[0]
    threads = "" if first.threads is None else f", {first.threads} threads"
    table = Table(title=f"{first.provider}: {first.device}{threads}, batch {first.batch}")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    rows: list[tuple[str, Callable[[Run], str]]] = [
        ("p50 ms", lambda run: _number(run.latency_ms.p50)),
        ("p90 ms", lambda run: _number(run.latency_ms.p90)),
        ("p99 ms", lambda run: _number(run.latency_ms.p99)),
        ("mean ms", lambda run: _number(run.latency_ms.mean)),
        ("samples/s", lambda run: _number(run.throughput_per_s)),
        ("peak memory MB", lambda run: _megabytes(run.peak_rss_bytes)),
        ("runs", lambda run: str(run.repeat)),
    ]
    for label, cell in rows:
        table.add_row(label, *(cell(run) for run in report.runs))
    if report.relative:
        ratios = {pair.model: pair for pair in report.relative if pair.reference == first.model}
        table.add_row("latency / first", "1", *(_ratio(ratios[r.model]) for r in report.runs[1:]))
    _add_ops(table, report.runs)
    return table


def _add_ops(table: Table, runs: tuple[Run, ...]) -> None:
    """The slowest operator types of any run, one row each."""
    times = [{op.op_type: op for op in run.ops} for run in runs]
    slowest = {op: max(t[op].ms for t in times if op in t) for t in times for op in t}
    shown = sorted(slowest, key=lambda op: -slowest[op])[:SHOWN_OPS]
    if shown:
        table.add_section()
    for op in shown:
        cells = (f"{_number(t[op].ms)} ({t[op].share:.0%})" if op in t else "-" for t in times)
        table.add_row(f"{op} ms", *cells)


def _short_names(models: list[str]) -> list[str]:
    """File names where they tell the models apart, else the paths as given."""
    names = [PurePath(model).name for model in models]
    return names if len(set(names)) == len(names) else models


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _megabytes(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 1e6:.1f}"


def _ratio(pair: Relative) -> str:
    return f"{pair.latency_ratio:.2f} ({pair.low:.2f}-{pair.high:.2f})"
