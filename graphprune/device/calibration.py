"""`calibrate-device`: measure, keep, show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.table import Table

from graphprune.device.goal import LatencyGoal
from graphprune.device.options import Tuning
from graphprune.device.profiles import Profile, keep_profile, measure_profile
from graphprune.device.store import write_json
from graphprune.device.tuning import aligned
from graphprune.errors import ModelError
from graphprune.graph import analyze
from graphprune.model import load
from graphprune.passes.allocators.limits import Limits
from graphprune.progress import Progress
from graphprune.selection import Selection


def calibrate(
    tuning: Tuning,
    dtypes: Sequence[str],
    models: Sequence[Path],
    *,
    quick: bool,
    progress: Progress,
) -> tuple[Profile, Path | None]:
    """Measures a machine, and keeps what was found for later plans.

    Args:
        tuning: the machine.
        dtypes: element types.
        models: ONNX files whose layers are timed too.
        quick: the main kinds of layers only, once.
        progress: is told how far which stage is.

    Returns:
        The profile, and where it was put; None if the cache can't be written to.

    Raises:
        ModelError: the machine, or a model, is not available.
    """
    device = tuning.device()
    profile = measure_profile(device, dtypes, quick=quick, progress=progress)
    path = _kept(profile)
    tables = {}
    for model in models:
        graph = analyze(load(model))
        groups = Selection().choose(graph)
        limits, _ = aligned(graph, Limits(), replace(tuning, auto_align=True), (), progress)
        goal = LatencyGoal(graph, device, tuning.batch, progress)
        table = goal.table(groups, limits)
        tables[model.name] = dict(sorted(table.measured.items()))
    if tables:
        profile = replace(profile, tables=tables)
        path = _kept(profile)
    return profile, path


def _kept(profile: Profile) -> Path | None:
    try:
        return keep_profile(profile)
    except OSError:  # the user can still say --out
        return None


def save(profile: Profile, path: Path) -> None:
    """Writes a profile.

    Raises:
        ModelError: the path can't be written.
    """
    try:
        write_json(path, profile.to_json())
    except OSError as error:
        message = f"cannot write the profile to '{path}'"
        raise ModelError(message, because=error.strerror, hint="a folder you can write to") from error


def table(profile: Profile) -> Table:
    """The profile for people."""
    who = profile.identity
    threads = f"threads: {who.threads}" if who.threads is not None else "threads as the runtime chooses"
    title = f"{who.device}, {who.runtime} {who.version}, {who.provider}, {threads}"
    found = Table("layer and width", "type", "multiple", "saves", "explained", "at width 128", title=title)
    for curve in profile.curves:
        steps = curve.steps
        place = int(np.argmin(np.abs(np.array(curve.widths) - 128)))
        here = f"{curve.milliseconds[place]:.3f} ms" if curve.widths[place] == 128 else ""
        saves = f"{steps.gain:.1%}" if steps.multiple > 1 else ""
        found.add_row(curve.what, curve.dtype, str(steps.multiple), saves, f"{steps.explained:.0%}", here)
    return found
