"""Arguments and options that several commands share; each means the same everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from graphprune.errors import UsageError
from graphprune.passes.compensators import COMPENSATORS

ModelPath = Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file.", show_default=False)]
OutPath = Annotated[Path, typer.Argument(metavar="OUT", help="The file to write.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="One JSON document instead of tables.")]
Dims = Annotated[
    list[str] | None,
    typer.Option("--dim", metavar="NAME=SIZE", help="Size of a symbolic dimension. [repeatable]"),
]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify/--no-verify", help="Compare the result with the masked original before it is written."
    ),
]
Declare = Annotated[
    Path | None,
    typer.Option(
        "--declare", metavar="FILE.toml", help="Axes of operators without a rule (docs/declarations.md)."
    ),
]
AllowIO = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-io",
        metavar="GLOB[:AXIS,…]",
        help="Model inputs and outputs that may shrink, but for their first axis. [repeatable]",
    ),
]
Calibration = Annotated[
    str | None,
    typer.Option(
        "--calibration",
        metavar="FILE.npz",
        help="Samples: arrays named as the model's inputs, first axis = samples; no labels needed. none: "
        "they are made up.",
        show_default="none",
    ),
]
NumberOfSamples = Annotated[
    int | None, typer.Option("--samples", metavar="N", help="Use the first N samples.", show_default="all")
]
Compensate = Annotated[
    str | None,
    typer.Option(
        "--compensator",
        help=f"What the kept weights become: {', '.join(sorted(COMPENSATORS))}.",
        show_default="as the recipe says; apply: none",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of random inputs and random scores.")]


def parse_dims(items: Sequence[str] | None) -> dict[str, int]:
    """``["batch=2"]`` as ``{"batch": 2}``.

    Raises:
        UsageError: an item is not NAME=SIZE.
    """
    found = {}
    for item in items or ():
        name, separator, size = item.rpartition("=")
        if not separator or not size.isdecimal():
            message = f"cannot read the dimension '{item}'"
            raise UsageError(message, hint="--dim batch=2")
        found[name] = int(size)
    return found
