"""The report of a pruning run: from the graph and the result to one HTML file."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from graphprune.amounts import count, size
from graphprune.cost import Cost
from graphprune.device.sizes import axes_of
from graphprune.errors import ModelError
from graphprune.graph import DependencyGraph
from graphprune.model import Model
from graphprune.origin import Origin
from graphprune.planner import removed_units
from graphprune.pruning import PruneResult
from graphprune.reporting.content import structure
from graphprune.reporting.group_map import blocked, group_map
from graphprune.reporting.latency import Latencies, latency
from graphprune.reporting.markup import Markup, code, join, table, tag
from graphprune.reporting.measured import measured
from graphprune.reporting.page import Section, page
from graphprune.reporting.request import ReportRequest
from graphprune.reporting.sentences import sentences
from graphprune.reporting.svg import number, picture
from graphprune.reporting.widths import widths
from graphprune.storage.text_files import write_text
from graphprune.version import VERSION

_LIBRARIES = ("onnxruntime", "onnx", "onnx-ir", "numpy")


def write_report(
    graph: DependencyGraph,
    result: PruneResult,
    request: ReportRequest,
    source: Model,
    setup: Mapping[str, Any] | None = None,
) -> None:
    """Writes the report; the file appears whole or not at all.

    Args:
        graph: of the original.
        result: what was done.
        request: where to, and whether to measure.
        source: the original.
        setup: where latency is measured, if it is: provider, threads, batch, on.

    Raises:
        ModelError: the path can't be written, or a model that is to be measured does not run.
    """
    wanted = request.latency or "latency" in result.plan.target
    latencies = _latencies(graph, result, source, setup or {}) if wanted else None
    write_text(request.path, report(graph, result, request, latencies), "the report")


def _latencies(
    graph: DependencyGraph, result: PruneResult, source: Model, setup: Mapping[str, Any]
) -> Latencies:
    """Of both models, at the sizes that their costs are counted at."""
    sizes = axes_of(graph, setup.get("batch", 1))
    try:
        return measured(source, result.model, result.output, sizes, setup)
    except ModelError as error:
        if result.output is None:
            raise
        hint = f"'{result.output}' is written, only the report is missing: again, or without --report"
        raise type(error)(error.what, where=error.where, because=error.because, hint=hint) from error


def report(
    graph: DependencyGraph, result: PruneResult, request: ReportRequest, latencies: Latencies | None = None
) -> str:
    """The document."""
    found = structure(graph, removed_units(graph, result.plan))
    source = graph.model.path
    sections = [
        Section("summary", "Before and after", _summary(result)),
        Section("widths", "Widths of the layers", widths(found.layers)),
    ]
    if latencies is not None:
        sections.append(Section("latency", "Latency", latency(latencies)))
    sections += [
        Section("groups", "Dependency groups", group_map(found)),
        Section("blocked", "What is blocked, and why", blocked(found)),
        Section("origin", "How it was made", origin(result, request.command, source)),
    ]
    return page(f"{source.name if source is not None else 'model'}, pruned", sections)


def _summary(result: PruneResult) -> Markup:
    return join(
        before_after(result.before, result.after),
        tag("ul", [tag("li", line) for line in sentences(result)]),
    )


def before_after(before: Cost, after: Cost) -> Markup:
    """Cost of both models, with a bar of what stays."""
    ratio = after.ratio(before)
    rows = [
        (name, _bar(ratio[key]), show(getattr(before, key)), show(getattr(after, key)), f"{ratio[key]:.1%}")
        for name, key, show in (
            ("MACs", "macs", count),
            ("parameters", "params", count),
            ("file", "bytes", size),
        )
    ]
    head = ("cost", "share", "before", "after", "kept")
    return table(head, rows, caption="Cost of the original and of the pruned model", numbers=2)


def _bar(share: float) -> Markup:
    kept = 200 * min(max(share, 0.0), 1.0)
    return picture(
        202, 16,
        tag("rect", x=1, y=2, width=number(kept), height=12, class_="kept"),
        tag("rect", x=number(1 + kept), y=2, width=number(200 - kept), height=12, class_="removed"),
        label=None,
    )  # fmt: skip


def origin(result: PruneResult, command: str | None, source: Path | None) -> Markup:
    """Everything that is needed to do it again."""
    noted = Origin.read(result.model.ir)  # with a given plan, that one's
    rows: list[tuple[str, Any]] = [
        ("original", code(str(source)) if source is not None else "an object in memory"),
        ("SHA-256 of the original", code(result.source_sha256)),
        ("written", code(str(result.output)) if result.output is not None else "nothing"),
        ("SHA-256 of the plan", code(noted.plan_sha256 if noted is not None else result.plan.sha256)),
        ("target", _amounts(result.plan.target)),
        ("reached", _amounts(result.plan.reached)),
        ("graphprune", VERSION),
        *((name, version(name)) for name in _LIBRARIES),
        ("Python", platform.python_version()),
        ("machine", f"{platform.system()} {platform.machine()}"),
    ]
    options = [
        (name, "not given" if value is None else code(json.dumps(value)))
        for name, value in sorted(result.plan.options.items())
    ]
    seconds = [(stage, f"{spent:.2f}") for stage, spent in result.seconds.items()]
    return join(
        tag("p", "The exact command:")
        if command
        else tag("p", "Called from Python, with the options below."),
        tag("pre", code(command), tabindex="0") if command else None,
        _facts("Files and versions", rows),
        tag("details", tag("summary", "Options"), _facts("Options, as the plan records them", options)),
        tag("details", tag("summary", "Seconds per stage"), _facts("Seconds per stage", seconds)),
    )


def _facts(caption: str, rows: Sequence[tuple[str, Any]]) -> Markup:
    return table(("what", "value"), rows, caption=caption, numbers=9)


def _amounts(shares: Any) -> str:
    return ", ".join(f"{name} {share:.1%}" for name, share in shares.items()) or "none"
