"""`profile`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from graphprune.cli.output import console_for_logs, log, show, show_json
from graphprune.cli.parameters import Json
from graphprune.errors import UsageError


def profile(
    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL…", help="One model, or several to compare.", show_default=False),
    ],
    provider: Annotated[
        str,
        typer.Option(
            help="cpu, cuda, tensorrt, openvino, coreml, qnn, xnnpack, dml, another of onnxruntime's, trt "
            "(TensorRT itself); several with commas; all that are there."
        ),
    ] = "cpu",
    batch: Annotated[
        str, typer.Option(metavar="N[,N…]", help="Size of the symbolic first axes; of several, each.")
    ] = "1",
    threads: Annotated[int | None, typer.Option(help="Threads within an operator.")] = None,
    repeat: Annotated[int | None, typer.Option(help="Counted runs.")] = None,
    warmup: Annotated[int | None, typer.Option(help="Runs before; by default until stable.")] = None,
    ops: Annotated[bool, typer.Option("--ops/--no-ops", help="Time by operator and layer.")] = True,
    layers: Annotated[int, typer.Option(min=0, help="Show so many of the slowest layers.")] = 0,
    dim: Annotated[
        list[str] | None,
        typer.Option(
            "--dim",
            metavar="NAME=SIZE[,SIZE…]",
            help="Size of a symbolic dimension; of several, each. [repeatable]",
        ),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, fp16 or int8, where the provider chooses (trt, tensorrt).")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", metavar="KEY=VALUE", help="Of the provider, as onnxruntime calls it. [repeatable]"
        ),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            metavar="DEVICE",
            help="ssh://user@host[:port], adb:serial, docker:image, cmd:launcher; else here.",
        ),
    ] = None,
    known_hosts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Known host keys for ssh://, instead of your own.")
    ] = None,
    json: Json = False,
) -> None:
    """Latency, throughput, memory, energy, time by operator and layer, side by side for several models."""
    from graphprune.profile import profile as measure
    from graphprune.profile import remarks, render

    if console_for_logs().is_terminal:
        log("measuring")  # a moving spinner would be measured too
    report = measure(
        models, provider=provider, batch=_sizes("--batch", batch), dims=_dims(dim), threads=threads,
        repeat=repeat, warmup=warmup, ops=ops, precision=precision, options=_options(option), on=on,
        known_hosts=None if known_hosts is None else str(known_hosts),
    )  # fmt: skip
    if json:
        show_json(report.to_json())
        return
    show(render(report, layers), *remarks(report))


def _sizes(name: str, text: str) -> list[int]:
    """``1,8`` as numbers, each once."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        what = f"cannot read the sizes '{text}'"
        raise UsageError(what, where=name, hint=f"{name} 1,8")
    return list(dict.fromkeys(int(part) for part in parts))


def _dims(items: Sequence[str] | None) -> dict[str, list[int]]:
    found = {}
    for item in items or ():
        name, separator, sizes = item.rpartition("=")
        if not separator:
            what = f"cannot read the dimension '{item}'"
            raise UsageError(what, hint="--dim batch=2")
        found[name] = _sizes("--dim", sizes)
    return found


def _options(items: Sequence[str] | None) -> dict[str, str]:
    found = {}
    for item in items or ():
        key, separator, value = item.partition("=")
        if not separator:
            what = f"cannot read the option '{item}'"
            raise UsageError(what, hint="--option device_type=CPU")
        found[key] = value
    return found
