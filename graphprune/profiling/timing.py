"""Wall-clock latency of callables in this process, see :mod:`graphprune.runner.timing`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphprune.runner.timing import BUDGET_SECONDS, alternate


@dataclass(frozen=True)
class Timing:
    """Latencies of one callable.

    Attributes:
        milliseconds: of every counted run, in order.
        medians: one per round of the interleaving.
    """

    milliseconds: npt.NDArray[np.float64]
    medians: npt.NDArray[np.float64]


def measure(
    runs: Sequence[Callable[[], object]],
    repeat: int | None,
    warmup: int | None,
    seconds: float = BUDGET_SECONDS,
) -> list[Timing]:
    """Times every callable, in alternation.

    Args:
        runs: what to time.
        repeat: counted runs of each; by default what fits into the time for each, 30 to 1000.
        warmup: runs before; by default until two successive windows of five agree within 5 %, or
            two seconds have passed.
        seconds: for each callable, where ``repeat`` is not given.
    """
    found = alternate(runs, repeat, warmup, seconds)
    return [Timing(np.array(run["milliseconds"]), np.array(run["medians"])) for run in found]
