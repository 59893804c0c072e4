"""``carry``: a plan applied to the source framework's own weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from graphprune.amounts import count
from graphprune.cli.output import log, show, show_json, working
from graphprune.cli.parameters import Json, OutPath
from graphprune.cli.tables import shape
from graphprune.converters.carrying.carry_report import SCHEMA_VERSION, CarryReport
from graphprune.errors import CarryError
from graphprune.storage.writing import require_apart

_SHOWN = 30


def carry(
    plan: Annotated[
        Path, typer.Argument(metavar="PLAN", help="A plan that prune wrote.", show_default=False)
    ],
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A .safetensors file (or *.safetensors.index.json), weights that torch saved, a .keras "
            "file, or module:factory.",
            show_default=False,
        ),
    ],
    out: OutPath,
    model: Annotated[
        Path | None,
        typer.Option(metavar="MODEL.onnx", help="The model before pruning.", show_default="as the plan says"),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="PRUNED.onnx", help="The pruned model: its updated weights are carried too."),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", help="Example inputs of a torch module, named as its parameters."),
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Load a pickled torch module, which can run anything.")
    ] = False,
    json: Json = False,
) -> None:
    """Applies a plan to the source framework's own weights."""
    from graphprune.converters.carrying.carry import carry as carry_home
    from graphprune.converters.example import read_inputs

    require_apart([out], [] if inputs is None else [inputs])
    try:
        with working("carrying"):
            example = None if inputs is None else read_inputs(inputs)
            report = carry_home(plan, source, out, model=model, weights=weights, inputs=example, trust=trust)
    except CarryError as error:
        for constant, use, reason in error.unmatched[:_SHOWN]:
            log(f"not matched: {constant}{f' at {use}' if use else ''}: {reason}")
        if len(error.unmatched) > _SHOWN:
            log(f"not matched: {len(error.unmatched) - _SHOWN} more")
        raise
    if json:
        show_json(_document(report, source, out))
    elif isinstance(report, CarryReport):
        show(_arrays(report), *_lines(report))
    else:
        show(*_live_lines(report, out))


def _document(report: Any, source: str, out: Path) -> dict[str, Any]:
    if isinstance(report, CarryReport):
        return report.to_json()
    fields = asdict(report) if is_dataclass(report) and not isinstance(report, type) else {}
    return {"schema_version": SCHEMA_VERSION, "source": source, "out": str(out), **fields}


def _arrays(report: CarryReport) -> Table:
    table = Table(title=f"arrays of {report.source}")
    table.add_column("array", overflow="fold")
    for name in ("before", "after", "found by"):
        table.add_column(name)
    for array in report.arrays:
        before = "-" if array.before is None else shape(array.before)
        after = "gone" if array.after is None else shape(array.after)
        table.add_row(array.name, before, after, array.how + (", new numbers" if array.is_updated else ""))
    return table


def _lines(report: CarryReport) -> list[str]:
    return [
        _parameters(report.parameters),
        f"proof: constants made of the carried arrays equal those of the pruned model (within "
        f"{report.error:.2g} of their size)",
        *report.notes,
        f"written: {report.out}",
    ]


def _live_lines(report: Any, out: Path) -> list[str]:
    """What a live network's report says; each framework has its own."""
    lines = [_parameters(report.parameters)]
    lines += [f"{each.name}: {each.before} -> {each.after}" for each in getattr(report, "mended", ())]
    lines.append(
        f"proof: on random inputs the outputs equal those of the pruned model (within {report.error:.2g} of "
        "their size)"
    )
    return [*lines, *report.notes, f"written: {out}"]


def _parameters(parameters: Sequence[int]) -> str:
    before, after = parameters
    return f"parameters: {count(before)} before, {count(after)} after ({after / max(before, 1):.1%})"
