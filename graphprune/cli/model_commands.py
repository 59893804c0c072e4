"""`check` and `convert`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from graphprune.cli import tables
from graphprune.cli.output import show, show_json, working
from graphprune.cli.parameters import Json, ModelPath, OutPath, Seed
from graphprune.errors import ValidationError
from graphprune.report import SCHEMA_VERSION
from graphprune.storage.writing import require_apart


def check(
    reference: Annotated[
        Path,
        typer.Argument(metavar="REFERENCE", help="The model that is right.", show_default=False),
    ],
    model: ModelPath,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="Inputs by name; else random.")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Accepted difference, as a fraction of the largest output value; 1e-4, or more where a "
            "model is in 16 bits.",
            show_default=False,
        ),
    ] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Are two models the same function? Exit 3 if not."""
    from graphprune import api
    from graphprune.model import load
    from graphprune.tolerance import between

    with working("running both models"):
        pair = load(reference), load(model)
        found = api.check(*pair, data=data, seed=seed)
        tolerance = between(*pair) if tolerance is None else tolerance
    same = all(d.within(tolerance) for d in found)
    if json:
        outputs = [{**asdict(d), "passing_tolerance": d.passing_tolerance} for d in found]
        show_json(
            {
                "schema_version": SCHEMA_VERSION,
                "same": same,
                "tolerance": tolerance,
                "outputs": outputs,
            }
        )
    else:
        show(tables.differences(found), "the same function" if same else "not the same function")
    if not same:
        worst = max(found, key=lambda d: d.passing_tolerance)
        message = f"the models differ by {worst.max_error:.3g}"
        raise ValidationError(
            message,
            where=f"output '{worst.output}', values up to {worst.scale:.3g}",
            because=f"{worst.passing_tolerance:.3g} of the largest value, more than {tolerance:g}",
            hint=f"nothing, if they are meant to differ; a tolerance of {worst.round_tolerance} would pass",
        )


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="module:factory, a .pt2, .pt, .keras, .h5, .onnx file, a SavedModel or transformers folder.",
        ),
    ],
    out: OutPath,
    framework: Annotated[
        str | None, typer.Option(help="torch, tensorflow, jax, sklearn or onnx; else told from SOURCE.")
    ] = None,
    exporter: Annotated[str, typer.Option(help="torch only: dynamo or torchscript.")] = "dynamo",
    dynamic: Annotated[
        list[str] | None,
        typer.Option(metavar="INPUT:AXIS=NAME", help="torch, jax: a further symbolic axis. [repeatable]"),
    ] = None,
    fixed_batch: Annotated[
        bool, typer.Option("--fixed-batch", help="torch, jax: only --dynamic axes are symbolic.")
    ] = False,
    inputs: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="Example inputs, arrays named as parameters.")
    ] = None,
    opset: Annotated[int | None, typer.Option(help="Opset version.")] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Load pickled objects and model code, which can run anything.")
    ] = False,
    json: Json = False,
) -> None:
    """From a framework to ONNX, compared with the source on random input."""
    from graphprune.converters import convert as to_onnx
    from graphprune.converters.dynamic import parse_dynamic
    from graphprune.converters.example import read_inputs

    require_apart([out], [] if inputs is None else [inputs])
    with working("converting"):
        report = to_onnx(
            source,
            out,
            framework=framework,
            exporter=exporter,
            dynamic=parse_dynamic(dynamic or ()),
            batch=None if fixed_batch else "batch",
            opset=opset,
            inputs=None if inputs is None else read_inputs(inputs),
            trust=trust,
        )
    if json:
        show_json(report.to_json())
        return
    show(
        f"{report.framework} ({report.exporter}), opset {report.opset}: {report.out}",
        f"largest difference from the source {report.max_abs_diff:.2g} at values up to {report.scale:.3g}",
    )
    if report.zeros:
        names = ", ".join(f"'{name}'" for name in report.zeros)
        show(f"not proven: on random input the source gives nothing but zeros for {names}")
