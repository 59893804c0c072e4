"""Wall-clock latency of one or several callables, fair to each.

Runs alternate in blocks (A A A, B B B, B B B, A A A, ...), so that a machine that grows slower
meanwhile slows all alike.  The first run of a block is not counted: it finds the caches full of
another model's weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Run = Callable[[], object]

WINDOW, STABLE = 5, 0.05  # medians of two windows closer than this: warm
WARMUP_SECONDS, BUDGET_SECONDS = 2.0, 3.0
LEAST_RUNS, MOST_RUNS, ROUNDS = 30, 1000, 10


@dataclass(frozen=True)
class Timing:
    """Latencies of one callable.

    Attributes:
        milliseconds: of every counted run, in order.
        medians: one per round of the interleaving.
    """

    milliseconds: npt.NDArray[np.float64]
    medians: npt.NDArray[np.float64]


def measure(runs: Sequence[Run], repeat: int | None, warmup: int | None) -> list[Timing]:
    """Times every callable.

    Args:
        runs: what to time.
        repeat: counted runs of each; by default what fits into three seconds for each, 30 to 1000.
        warmup: runs before; by default until two successive windows of five agree within 5 %, or
            two seconds have passed.
    """
    pace = max(_warm(run, warmup) for run in runs)
    if repeat is None:
        repeat = int(min(MOST_RUNS, max(LEAST_RUNS, BUDGET_SECONDS * 1e3 / max(pace, 1e-6))))
    blocks = [len(block) for block in np.array_split(np.arange(repeat), min(ROUNDS, repeat))]
    samples: list[list[list[float]]] = [[] for _ in runs]
    for number, length in enumerate(blocks):
        order = list(range(len(runs)))
        for i in order if number % 2 == 0 else reversed(order):
            if len(runs) > 1:
                runs[i]()
            samples[i].append([_once(runs[i]) for _ in range(length)])
    return [
        Timing(np.concatenate(rounds), np.array([np.median(block) for block in rounds])) for rounds in samples
    ]


def _warm(run: Run, count: int | None) -> float:
    """Runs until the latency is stable; the last latency in milliseconds."""
    last = _once(run)
    if count is not None:
        for _ in range(count - 1):
            last = _once(run)
        return last
    end = time.perf_counter() + WARMUP_SECONDS
    before = float(np.median([_once(run) for _ in range(WINDOW)]))
    while time.perf_counter() < end:
        now = float(np.median([_once(run) for _ in range(WINDOW)]))
        if abs(now - before) <= STABLE * before:
            return now
        before = now
    return before


def _once(run: Run) -> float:
    start = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - start) / 1e6
