"""`calibrate-device`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphprune.cli.output import log, show, show_json
from graphprune.cli.parameters import Batch, Json, On, ProviderName, Threads
from graphprune.cli.progress import stages
from graphprune.storage.writing import require_writable


def calibrate_device(
    out: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Save the profile here too.")] = None,
    models: Annotated[
        list[Path] | None,
        typer.Option("--models", metavar="MODEL", help="Time this model's layers as well. [repeatable]"),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Draw the step curves (needs matplotlib).")
    ] = None,
    use: Annotated[
        Path | None, typer.Option("--from", metavar="FILE.json", help="A saved profile, nothing is measured.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The main kinds of layers only, once.")] = False,
    half: Annotated[bool, typer.Option("--half", help="Also half precision.")] = False,
    batch: Batch = 1,
    threads: Threads = None,
    provider: ProviderName = "cpu",
    on: On = None,
    json: Json = False,
) -> None:
    """Measures which widths this device likes; --align auto and latency targets use it."""
    from graphprune.device import calibration
    from graphprune.device.options import Tuning
    from graphprune.device.plot import draw, require_plotting
    from graphprune.device.profiles import Profile

    kept: Path | None
    for path in (out, plot):
        if path is not None:
            require_writable(path)
    if plot is not None:
        require_plotting()
    if use is not None:
        profile, kept = Profile.load(use), use
    else:
        dtypes = ("float32", "float16") if half else ("float32",)
        with stages("calibrating") as progress:
            profile, kept = calibration.calibrate(
                Tuning(provider, threads, batch, on), dtypes, models or (), quick=quick, progress=progress
            )
    if out is not None:
        calibration.save(profile, out)
    if plot is not None:
        draw(profile, plot)
    if json:
        show_json(profile.to_json())
        return
    show(calibration.table(profile))
    for path in (kept, out, plot):
        if path is not None:
            log(f"{'read' if path is use else 'written'}: {path}")
