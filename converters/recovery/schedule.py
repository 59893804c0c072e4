"""How far a run is, and what the learning rate is there: up from zero, then down along a cosine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

#: Part of the run in which the learning rate rises.
WARM_UP = 0.05


def rate_at(progress: float) -> float:
    """Factor of the learning rate at this part of the run (Loshchilov and Hutter 2017, arXiv:1608.03983)."""
    if progress < WARM_UP:
        return progress / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - WARM_UP) / (1 - WARM_UP))))


@dataclass
class Schedule:
    """Progress by steps, by time, or by whichever ends first.

    With a limit of time the rate follows the clock: however busy the machine is, the run ends in time,
    with the rate at zero.

    Attributes:
        steps: how many there are; None: as many as the time allows.
        seconds: how long it may take; None: as long as the steps do.
        spent: seconds of the part before an interruption.
        clock: where the time comes from.
    """

    steps: int | None
    seconds: float | None
    spent: float = 0.0
    clock: Callable[[], float] = time.monotonic
    _start: float = field(init=False)

    def __post_init__(self) -> None:
        """The time begins to count."""
        self._start = self.clock()

    @property
    def elapsed(self) -> float:
        """Seconds so far, those before an interruption included."""
        return self.spent + self.clock() - self._start

    def progress(self, step: int) -> float:
        """Part of the run that is over when ``step`` steps are done, 0 to 1."""
        by_steps = step / self.steps if self.steps is not None else 0.0
        by_time = self.elapsed / self.seconds if self.seconds is not None else 0.0
        return min(1.0, max(by_steps, by_time))

    def factor(self, step: int) -> float:
        """Of the learning rate for the step after ``step`` steps: taken in its middle, so never zero."""
        middle = 0.5 / self.steps if self.steps is not None else 0.0
        return rate_at(max(min(1.0, self.progress(step) + middle), 1e-3))
