"""Step curves as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from graphprune.device.profiles import Profile
from graphprune.errors import UsageError
from graphprune.storage.durable import file_ready_at

_COLUMNS = 3
#: Readable on white and on dark grey, and apart from each other in black and white.
_MEASURED, _LIKED = "#3b6ea5", "#d9661f"


def require_plotting() -> None:
    """Raises UsageError without matplotlib, before anything is measured."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        message = "a plot needs matplotlib"
        raise UsageError(message, hint="pip install 'graphprune[plot]'") from error


def draw(profile: Profile, path: Path) -> None:
    """Writes a picture of all curves; the ending of the path says of which format.

    Raises:
        UsageError: matplotlib is not installed, or does not know the format.
    """
    require_plotting()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = -(-len(profile.curves) // _COLUMNS)
    who = profile.identity
    # Text as text and fixed names: a small file that is the same every time.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "graphprune", "font.size": 8}):
        figure = Figure(figsize=(3.6 * _COLUMNS, 2.5 * rows), layout="constrained")
        for i, curve in enumerate(profile.curves):
            axes: Any = figure.add_subplot(rows, _COLUMNS, i + 1)
            widths, times = np.array(curve.widths), np.array(curve.milliseconds)
            axes.plot(widths, times, "-", color=_MEASURED, linewidth=0.8)
            liked = widths % curve.steps.multiple == 0
            if curve.steps.multiple > 1:
                axes.plot(widths[liked], times[liked], "o", color=_LIKED, markersize=3)
            said = f"multiples of {curve.steps.multiple}" if curve.steps.multiple > 1 else "no steps"
            axes.set_title(f"{curve.what}\n{curve.dtype}: {said}", fontsize=8)
            axes.set_ylim(0, float(np.percentile(times, 95)) * 1.25)
            axes.set_xlabel("width")
            axes.set_ylabel("ms")
        threads = "" if who.threads is None else f", {who.threads} thread{'s' if who.threads > 1 else ''}"
        figure.suptitle(f"{who.device}, {who.runtime} {who.version} {who.provider}{threads}, {profile.date}")
        try:
            with file_ready_at(path) as file:
                date = {"Date": None} if path.suffix == ".svg" else None
                figure.savefig(file, format=path.suffix.removeprefix(".") or None, metadata=date)
        except ValueError as error:
            message = f"cannot draw to '{path}'"
            raise UsageError(message, because=str(error), hint="--plot FILE.svg") from error
