"""A progress bar over the stages of a long command: on a terminal only, and only past two seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from graphprune.calibration.evidence import Progress as Callback
from graphprune.cli.output import console_for_logs

#: A bar that comes and goes at once only disturbs.
_PATIENCE = 2.0


@contextmanager
def stages(text: str) -> Iterator[Callback]:
    """A callback ``(stage, done, total)`` that draws a bar per stage, with the time that it still takes."""
    console = console_for_logs()
    start = time.perf_counter()
    bars = Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
        console=console, transient=True,
    )  # fmt: skip
    tasks = {text: bars.add_task(text, total=None)}
    shown = False

    def report(stage: str, done: int, total: int) -> None:
        nonlocal shown
        if not console.is_terminal:
            return
        if not shown and time.perf_counter() - start > _PATIENCE:
            bars.start()
            shown = True
        if stage not in tasks:
            tasks[stage] = bars.add_task(stage, total=total)
        bars.update(tasks[stage], completed=done, total=total)

    try:
        yield report
    finally:
        if shown:
            bars.stop()
