"""Arguments and options that several commands share; each means the same everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from graphprune.errors import UsageError
from graphprune.passes.allocators import ALLOCATORS
from graphprune.passes.compensators import COMPENSATORS
from graphprune.passes.criteria import CRITERIA
from graphprune.passes.recipes import RECIPES

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
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help=f"A named combination of the next three (docs/recipes.md): {', '.join(sorted(RECIPES))}.",
        show_default="graphprune",
    ),
]
Criterion = Annotated[
    str | None,
    typer.Option("--criterion", help=f"Importance of a unit: {', '.join(sorted(CRITERIA))}."),
]
Allocator = Annotated[
    str | None,
    typer.Option("--allocator", help=f"How the budget is shared: {', '.join(sorted(ALLOCATORS))}."),
]
Kinds = Annotated[
    str | None,
    typer.Option(
        "--kinds",
        metavar="KIND,…",
        help="Which may go: channels, heads, head_dim, experts, conv_groups, norm_groups; and, only if "
        "named here, blocks.",
    ),
]
ExactOnly = Annotated[
    bool, typer.Option("--exact-only", help="No group over which a norm, softmax or mean runs.")
]
Include = Annotated[
    list[str] | None,
    typer.Option("--include", metavar="GLOB", help="Only these groups, parameters or nodes."),
]
Exclude = Annotated[list[str] | None, typer.Option("--exclude", metavar="GLOB", help="Leave these alone.")]
Floor = Annotated[float, typer.Option("--floor", help="Smallest kept fraction of each group.")]
Report = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE.html", help="Write a report: one page for a browser."),
]
ReportLatency = Annotated[
    bool, typer.Option("--report-latency", help="Measure both models for the report, layer by layer.")
]
Align = Annotated[
    str | None,
    typer.Option(
        "--align",
        metavar="K|auto",
        help="Widths are kept as multiples of this; auto: as the device likes them, layer by layer "
        "(docs/latency.md).",
        show_default="1; auto with a latency target",
    ),
]
Batch = Annotated[int, typer.Option("--batch", metavar="N", help="Batch size that latencies are for.")]
Threads = Annotated[
    int | None,
    typer.Option("--threads", metavar="N", help="Threads within an operator, for latencies."),
]
ProviderName = Annotated[
    str, typer.Option("--provider", metavar="NAME", help="Execution provider that latencies are for.")
]
On = Annotated[
    str | None,
    typer.Option("--on", metavar="WHERE", help="Where latencies are measured (docs/devices.md)."),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Go on from what a run that was interrupted has found out (docs/big.md)."),
]
ShardSize = Annotated[
    str | None,
    typer.Option(
        "--shard-size",
        metavar="SIZE",
        help="Put the weights into files beside the output, of at most this size each, such as 2GB.",
        show_default="one file, if the input has its weights beside it",
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
