"""The profile as tables for people."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import takewhile
from pathlib import PurePath

from rich.table import Table

from graphprune.amounts import several
from graphprune.profiling.report import Conditions, ProfileReport, Relative, Run

SHOWN_OPS, SHOWN_PARTS = 8, 3
DRIFT = 0.05  # worth a line


def render(report: ProfileReport, layers: int = 0) -> Table:
    """The runs side by side.

    Args:
        report: what was measured.
        layers: how many of the slowest layers to show.
    """
    runs = report.runs
    first = runs[0]
    threads = "" if first.threads is None else f", {several(first.threads, 'thread')}"
    table = Table(title=f"{_title(report)}{threads}{_common(runs, 'batch')}")
    table.add_column("")
    for name in _headings(runs):
        table.add_column(name, justify="right", overflow="fold")
    rows: list[tuple[str, Callable[[Run], str]]] = [
        ("p50 ms", lambda run: _number(run.latency_ms.p50)),
        ("p90 ms", lambda run: _number(run.latency_ms.p90)),
        ("p99 ms", lambda run: _number(run.latency_ms.p99)),
        ("mean ms", lambda run: _number(run.latency_ms.mean)),
        ("samples/s", lambda run: _number(run.throughput_per_s)),
        ("load ms", lambda run: "unknown" if run.load_ms is None else _number(run.load_ms)),
        ("peak memory MB", lambda run: _megabytes(run.peak_rss_bytes)),
    ]
    if any(run.peak_device_bytes is not None for run in runs):
        rows.append(("card memory MB", lambda run: _megabytes(run.peak_device_bytes)))
    for meter in sorted({meter for run in runs for meter in run.energy_j}):
        rows.append((f"{meter} mJ", partial(_millijoules, meter)))
    rows.append(("runs", lambda run: str(run.repeat)))
    for label, cell in rows:
        table.add_row(label, *(cell(run) for run in runs))
    if report.relative:
        ratios = {pair.run: pair for pair in report.relative if _is_first(pair, report)}
        cells = [_ratio(ratios[number]) if number in ratios else "1" for number in range(len(runs))]
        table.add_row("latency / first", *cells)
    _add_ops(table, runs)
    _add_layers(table, runs, layers)
    return table


def _millijoules(meter: str, run: Run) -> str:
    return _number(1e3 * run.energy_j[meter]) if meter in run.energy_j else "unknown"


def _title(report: ProfileReport) -> str:
    found = ", ".join(dict.fromkeys(f"{run.provider}: {run.device}" for run in report.runs))
    return f"{found}, on {report.on}" if report.on else found


def _common(runs: tuple[Run, ...], what: str) -> str:
    """A size that all runs share."""
    sizes = {getattr(run, what) for run in runs}
    return f", {what} {sizes.pop()}" if len(sizes) == 1 else ""


def _headings(runs: tuple[Run, ...]) -> list[str]:
    """Whatever tells the runs apart."""
    files = _short_names(list(dict.fromkeys(run.model for run in runs)))
    short = dict(zip(dict.fromkeys(run.model for run in runs), files, strict=True))
    several = [
        len({text(run) for run in runs}) > 1
        for text in (lambda r: r.provider, lambda r: r.batch, lambda r: str(r.dims))
    ]
    found = []
    for run in runs:
        parts = [short[run.model]]
        if several[0]:
            parts.append(run.provider)
        if several[1]:
            parts.append(f"batch {run.batch}")
        if several[2]:
            parts += [f"{name}={size}" for name, size in run.dims.items()]
        found.append("\n".join(parts))
    return found


def _is_first(pair: Relative, report: ProfileReport) -> bool:
    """Is the reference the first run of its set of sizes?"""
    return not any(other.run == pair.reference_run for other in report.relative)


def remarks(report: ProfileReport) -> list[str]:
    """What disturbed the measurement, and what could not be measured: a line each."""
    lines = [line for conditions in report.conditions for line in _remarks(conditions)]
    lines += [
        f"{run.model}: not stable after {run.warmup} runs" for run in report.runs if run.stable is False
    ]
    lines += report.notes
    return list(dict.fromkeys(lines))


def _remarks(conditions: Conditions) -> list[str]:
    """What disturbed a measurement."""
    found = []
    if abs(conditions.drift) > DRIFT:
        found.append(f"the first model's latency drifted by {conditions.drift:+.0%} while it was measured")
    if conditions.mhz is not None and conditions.mhz[2] < (1 - DRIFT) * conditions.mhz[0]:
        found.append(f"the clock fell from {conditions.mhz[0]:.0f} to {conditions.mhz[2]:.0f} MHz")
    if conditions.celsius is not None and conditions.celsius[2] > conditions.celsius[0] + 10:
        found.append(
            f"the processor grew warmer, from {conditions.celsius[0]:.0f} to {conditions.celsius[2]:.0f} °C"
        )
    if conditions.throttled:
        found.append(f"the processor throttled itself {conditions.throttled} times")
    return found


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


def _add_layers(table: Table, runs: tuple[Run, ...], count: int) -> None:
    """The slowest layers of any run, by the nodes of the file that they come from."""
    times = [{layer.origins or (layer.name,): layer for layer in run.layers} for run in runs]
    slowest = {key: max(t[key].ms for t in times if key in t) for t in times for key in t}
    shown = sorted(slowest, key=lambda key: -slowest[key])[:count]
    names = [name for key in slowest for name in key]
    prefix = _shared_start(names)
    if shown:
        table.add_section()
    for key in shown:
        cells = (f"{_number(t[key].ms)} ({t[key].share:.0%})" if key in t else "-" for t in times)
        table.add_row(f"{_layer_label(key, prefix)} ms", *cells)


def _layer_label(origins: tuple[str, ...], prefix: str) -> str:
    """``block1/conv + bn + relu``: the first node without what all share, the others by their last part."""
    first, *others = origins
    parts = [part.rstrip("/").rpartition("/")[2] for part in others]
    if len(parts) > SHOWN_PARTS:
        parts = [*parts[: SHOWN_PARTS - 1], f"{len(parts) - SHOWN_PARTS + 1} more"]
    return " + ".join([first.removeprefix(prefix), *parts])


def _shared_start(names: list[str]) -> str:
    """The folders that all names begin with."""
    parts = [name.split("/")[:-1] for name in names]
    same = takewhile(lambda level: len(set(level)) == 1, zip(*parts, strict=False))
    return "".join(f"{level[0]}/" for level in same)


def _short_names(models: list[str]) -> list[str]:
    """File names where they tell the models apart, else the paths as given."""
    names = [PurePath(model).name for model in models]
    return names if len(set(names)) == len(names) else models


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _megabytes(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 1e6:.1f}"


def _ratio(pair: Relative) -> str:
    return f"{pair.paired_ratio:.2f} ({pair.low:.2f}-{pair.high:.2f})"
