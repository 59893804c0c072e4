"""How far a long command is: bars on a terminal past two seconds; elsewhere a line every ten."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TaskProgressColumn, TextColumn
from rich.text import Text

from graphprune.cli.output import console_for_logs, log
from graphprune.progress import Progress as Callback

#: A bar that comes and goes at once only disturbs.
_PATIENCE = 2.0
#: Seconds between lines in a log.
_INTERVAL = 10.0


class Remaining(ProgressColumn):
    """The time that a stage still takes, if its steps go on taking what they took on average.

    The bar of rich forgets steps that are older than half a minute, and one step may take longer.
    """

    def render(self, task: Task) -> Text:
        """Hours, minutes and seconds, as soon as one step is done."""
        left = remaining(task)
        if left is None:
            return Text("")
        minutes, seconds = divmod(round(left), 60)
        hours, minutes = divmod(minutes, 60)
        return Text(f"{hours}:{minutes:02d}:{seconds:02d}", style="progress.remaining")


def remaining(task: Task) -> float | None:
    """Seconds that a stage still takes; None if nobody can know yet, or it is over."""
    spent, now = task.fields.get("spent"), task.elapsed
    if task.total is None or not 0 < task.completed < task.total or spent is None or now is None:
        return None
    return float(max(spent / task.completed * (task.total - task.completed) - (now - spent), 0.0))


class _Bars:
    """One bar per stage."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._done: dict[str, int] = {}
        self._now = ""

    def show(self, stage: str, done: int, total: int) -> None:
        if stage != self._now:
            self.finish()
            self._now = stage
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total)
        task = self._tasks[stage]
        if done < self._done.get(stage, 0):  # it begins again
            self._bars.reset(task)
        self._done[stage] = done
        spent = self._bars.tasks[task].elapsed
        self._bars.update(task, completed=done, total=total, spent=spent)

    def finish(self) -> None:
        """The stage that was shown last is over, even if some of its steps were not needed.

        If it is not, since it waits for another one, it will be shown again as far as it is.
        """
        if self._done.get(self._now):
            task = self._tasks[self._now]
            self._bars.update(task, completed=self._bars.tasks[task].total)


class _Lines:
    """Says every few seconds how far the work is, from a thread of its own: a step may take long."""

    def __init__(self, text: str) -> None:
        self._stage, self._done, self._total = text, 0, 0
        self._start = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._say, daemon=True)
        self._thread.start()

    def show(self, stage: str, done: int, total: int) -> None:
        self._stage, self._done, self._total = stage, done, total

    def finish(self) -> None:
        self._over.set()
        self._thread.join()

    def _say(self) -> None:
        while not self._over.wait(_INTERVAL):
            far = f", {self._done} of {self._total}" if self._total else ""
            log(f"{time.monotonic() - self._start:.0f} s: {self._stage}{far}")


@contextmanager
def stages(text: str) -> Iterator[Callback]:
    """A callback ``(stage, done, total)``.

    On a terminal it draws a bar per stage, with the time that it still takes; elsewhere it prints lines.
    """
    if not console_for_logs().is_terminal:
        lines = _Lines(text)
        try:
            yield lines.show
        finally:
            lines.finish()
        return
    with _drawn(text) as report:
        yield report


@contextmanager
def _drawn(text: str) -> Iterator[Callback]:
    console = console_for_logs()
    start = time.perf_counter()
    bars = Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), Remaining(),
        console=console, transient=True,
    )  # fmt: skip
    bars.add_task(text, total=None)
    each = _Bars(bars)
    shown = False

    def report(stage: str, done: int, total: int) -> None:
        nonlocal shown
        if not shown and time.perf_counter() - start > _PATIENCE:
            bars.start()
            shown = True
        each.show(stage, done, total)

    try:
        yield report
        each.finish()
    finally:
        if shown:
            bars.stop()
