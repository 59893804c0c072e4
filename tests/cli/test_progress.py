"""Bars on a terminal: every stage ends at its end, and says how long it will take."""

from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console
from rich.progress import Progress, Task

from graphprune.cli import progress as module
from graphprune.progress import counted


class Clock:
    """Seconds that pass when a test says so, and the bars that go by them."""

    def __init__(self) -> None:
        self.now = 100.0
        self.made: list[Progress] = []

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    yours = Clock()

    class Recorded(Progress):
        def __init__(self, *columns: object, **options: object) -> None:
            super().__init__(*columns, get_time=yours, **options)  # type: ignore[arg-type]
            yours.made.append(self)

    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(module, "Progress", Recorded)
    monkeypatch.setattr(module, "console_for_logs", lambda: screen)
    return yours


def task(clock: Clock, name: str) -> Task:
    (bars,) = clock.made
    return next(t for t in bars.tasks if t.description == name)


def test_each_stage_ends_at_its_end(clock: Clock) -> None:
    with module.stages("pruning") as report:
        for _ in counted(report, "calibrating", range(3)):
            assert task(clock, "calibrating").percentage < 100
        assert task(clock, "calibrating").percentage == 100
        report("measuring", 2, 64)  # and then it has enough
        report("solving", 0, 5)
        assert task(clock, "measuring").percentage == 100
        report("solving", 4, 5)
    assert task(clock, "solving").percentage == 100


def test_a_stage_that_waits_for_another_goes_on(clock: Clock) -> None:
    with module.stages("pruning") as report:
        report("scoring", 0, 4)
        clock.now += 10
        report("scoring", 1, 4)
        report("calibrating", 0, 2)
        report("calibrating", 2, 2)
        report("scoring", 2, 4)
        assert task(clock, "scoring").completed == 2
        assert task(clock, "scoring").elapsed == 10
        report("scoring", 0, 8)  # once more
        assert (task(clock, "scoring").completed, task(clock, "scoring").total) == (0, 8)
        assert task(clock, "scoring").elapsed == 0


def test_the_time_that_is_left_of_long_steps(clock: Clock) -> None:
    """A step may take minutes."""
    with module.stages("pruning") as report:
        report("solving", 0, 4)
        assert module.remaining(task(clock, "solving")) is None
        clock.now += 120
        report("solving", 1, 4)
        assert module.remaining(task(clock, "solving")) == 360
        clock.now += 60
        assert module.remaining(task(clock, "solving")) == 300
        assert str(module.Remaining().render(task(clock, "solving"))) == "0:05:00"
        clock.now += 1e4
        assert module.remaining(task(clock, "solving")) == 0
        report("solving", 4, 4)
        assert module.remaining(task(clock, "solving")) is None


def test_nothing_is_drawn_where_nobody_looks(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), force_terminal=False)
    monkeypatch.setattr(module, "console_for_logs", lambda: screen)
    monkeypatch.setattr(module, "_PATIENCE", -1.0)
    with module.stages("pruning") as report:
        report("solving", 1, 4)
    assert screen.file.getvalue() == ""  # type: ignore[attr-defined]


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    enough = threading.Event()

    def log(text: str) -> None:
        said.append(text)
        if len(said) >= 2:
            enough.set()

    monkeypatch.setattr(module, "console_for_logs", lambda: Console(file=io.StringIO(), force_terminal=False))
    monkeypatch.setattr(module, "log", log)
    monkeypatch.setattr(module, "_INTERVAL", 0.01)
    with module.stages("pruning") as report:
        report("solving", 3, 7)
        assert enough.wait(30)
    lines = len(said)
    assert said[-1].endswith(" s: solving, 3 of 7")
    assert len(said) == lines  # nothing more once the work is over


def test_a_short_run_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with module.stages("pruning") as report:
        report("solving", 0, 7)
    assert capsys.readouterr().err == ""
