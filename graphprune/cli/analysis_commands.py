"""`inspect` and `explain`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from graphprune.cli import tables
from graphprune.cli.output import log, show, show_json, working
from graphprune.cli.parameters import AllowIO, Declare, Dims, Json, ModelPath, parse_dims
from graphprune.graph import Explanation, analyze
from graphprune.graph_files import write_graph
from graphprune.model import load
from graphprune.report import SCHEMA_VERSION
from graphprune.report import inspect as summarise


def inspect(
    model: ModelPath,
    graph_out: Annotated[
        Path | None,
        typer.Option("--graph", metavar="FILE", help="Write the dependency graph (.dot, .graphml, .json)."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="List every group.")] = False,
    declare: Declare = None,
    allow_io: AllowIO = None,
    dim: Dims = None,
    json: Json = False,
) -> None:
    """What there is to prune: cost, groups, what is blocked and why."""
    with working("analysing"):
        graph = analyze(load(model), parse_dims(dim), declarations=declare, allow_io=allow_io or ())
        report = summarise(graph)
    if graph_out is not None:
        write_graph(graph, graph_out)
        log(f"dependency graph: {graph_out}")
    if json:
        show_json(report.to_json())
        return
    show(tables.summary(report), tables.groups(report, every=every), tables.blocked(report))
    show(tables.interface(report, every=every))
    missing = tables.missing_rules(report)
    if missing is not None:
        show(missing)


def explain(
    model: ModelPath,
    tensor: Annotated[
        str,
        typer.Argument(
            metavar="TENSOR[:AXIS]", help="A tensor and one of its axes, or a group as inspect lists it."
        ),
    ],
    declare: Declare = None,
    allow_io: AllowIO = None,
    dim: Dims = None,
    json: Json = False,
) -> None:
    """What goes with an axis, or the reason that blocks it."""
    graph = analyze(load(model), parse_dims(dim), declarations=declare, allow_io=allow_io or ())
    found = graph.explain(tensor)
    if json:
        show_json({"schema_version": SCHEMA_VERSION, **asdict(found)})
        return
    for line in _lines(found):
        show(line)


def _lines(found: Explanation) -> list[str]:
    if found.is_block:
        return [
            f"'{found.value}' goes as a whole",
            *(f"  {name}" for name, _ in found.members),
            *found.changes,
        ]
    lines = [f"'{found.value}', axis {found.axis}: {found.size} positions"]
    lines += [f"changes: {change}" for change in found.changes]
    if found.reasons:
        lines.append(f"blocked: {'; '.join(found.reasons)}")
    if found.groups:
        lines.append(f"can shrink by: {', '.join(found.groups)}")
    if not found.reasons:
        lines += [f"but not by {name}: {why}" for name, why in found.blocked.items()]
    if found.goes_with:
        lines.append(f"goes as a whole with a unit of: {', '.join(found.goes_with)}")
    if found.chain:
        lines.append("through:")
        for step in found.chain:
            source, target = (
                f"{step.source[0]}[{step.source[1]}]",
                f"{step.target[0]}[{step.target[1]}]",
            )
            lines.append(f"  {source} -> {step.op_type} '{step.node}' -> {target}")
    others = [m for m in found.members if m != (found.value, found.axis)]
    if others:
        lines.append("goes together with:")
        lines += [f"  {name}, axis {axis}" for name, axis in others]
    return lines
