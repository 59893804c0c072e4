"""The report of a sweep."""

from __future__ import annotations

from graphprune.family import SweepResult
from graphprune.planner import removed_units
from graphprune.reporting.content import structure
from graphprune.reporting.group_map import blocked, group_map
from graphprune.reporting.markup import join, tag
from graphprune.reporting.page import Section, page
from graphprune.reporting.pareto import pareto
from graphprune.reporting.report import origin
from graphprune.reporting.request import ReportRequest
from graphprune.reporting.svg import legend
from graphprune.reporting.widths import picture_of
from graphprune.storage.text_files import write_text


def write_sweep_report(result: SweepResult, request: ReportRequest) -> None:
    """Writes the report; the file appears whole or not at all.

    Raises:
        ModelError: the path can't be written.
    """
    names = [point.name for point in result.points[1:]]
    cuts = [structure(result.graph, removed_units(result.graph, r.plan)) for r in result.results]
    pictures = [
        (
            tag("h3", f"{result.metric} {name}"),
            tag(
                "div", picture_of(found.layers, f"Widths of {len(found.layers)} layers at {name}"),
                class_="scroll", tabindex="0", role="region", aria_label=f"Widths at {name}",
            ),
        )
        for name, found in zip(names, cuts, strict=True)
    ]  # fmt: skip
    meaning = legend(("kept", "kept"), ("removed", "removed"), ("blocked", "kept, since it can't shrink"))
    smallest = min(range(len(cuts)), key=lambda i: result.points[i + 1].macs)
    family = join(
        pareto(result.points, result.judged_on),
        [(tag("p", f"Not reached: {name}"), tag("pre", why)) for name, why in result.unreached.items()],
    )
    sections = [
        Section("family", "The family", family),
        Section("widths", "Widths of the layers", join(meaning, pictures)),
        Section("groups", f"Dependency groups, at {names[smallest]}", group_map(cuts[smallest])),
        Section("blocked", "What is blocked, and why", blocked(cuts[smallest])),
    ]
    source = result.graph.model.path
    made = [
        tag("details", tag("summary", f"{result.metric} {name}"), origin(r, request.command, source))
        for name, r in zip(names, result.results, strict=True)
    ]
    sections.append(Section("origin", "How it was made", join(made)))
    title = f"{source.name if source is not None else 'model'} at {len(names)} sizes"
    write_text(request.path, page(title, sections), "the report")
