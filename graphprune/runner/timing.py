"""Wall-clock latency of one or several callables, fair to each.

Runs alternate in blocks (A A A, B B B, B B B, A A A, ...), so that a machine that grows slower
meanwhile slows all alike.  The first run of a block is not counted: it finds the caches full of
another model's weights.  Before it, the other model's threads get the time to fall asleep.
"""

from __future__ import annotations

import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from graphprune.runner.meters import Meters
from graphprune.runner.sessions import Refused, open_run

WINDOW, STABLE = 5, 0.05  # medians of two windows closer than this: warm
WARMUP_SECONDS, BUDGET_SECONDS = 2.0, 3.0
LEAST_RUNS, MOST_RUNS, ROUNDS = 30, 1000, 10
#: A session's idle threads wait for work that long without giving up their cores, in seconds.
SPINNING_SECONDS = 0.06


class Blockwise(ABC):
    """Something that times its runs itself, many at a time, such as another program."""

    def __call__(self) -> object:
        """Runs once, not counted; nothing to do for what starts afresh each time."""
        return None

    @abstractmethod
    def times(self, count: int) -> list[float]:
        """Milliseconds of so many runs."""


def block(run: Callable[[], object], count: int) -> list[float]:
    """Milliseconds of so many calls in a row."""
    return run.times(count) if isinstance(run, Blockwise) else [once(run) for _ in range(count)]


def once(run: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - start) / 1e6


def warm(run: Callable[[], object], count: int | None) -> tuple[int, bool | None, float]:
    """Runs until two successive windows agree, or the time is up.

    Returns:
        How many runs it took, whether the latency was stable (None: not looked at), the last latency.
    """
    if isinstance(run, Blockwise):
        return WINDOW, None, run.times(WINDOW)[-1]
    if count is not None:
        return count, None, [once(run) for _ in range(count)][-1]
    once(run)
    done = 1 + WINDOW
    before = statistics.median(once(run) for _ in range(WINDOW))
    end = time.perf_counter() + WARMUP_SECONDS
    while time.perf_counter() < end:
        now, done = statistics.median(once(run) for _ in range(WINDOW)), done + WINDOW
        if abs(now - before) <= STABLE * before:
            return done, True, now
        before = now
    return done, False, before


def alternate(
    runs: Sequence[Callable[[], object]],
    repeat: int | None = None,
    warmup: int | None = None,
    seconds: float = BUDGET_SECONDS,
    meters: Meters | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Times every callable.

    Args:
        runs: what to time.
        repeat: counted runs of each; by default what fits into the time.
        warmup: runs before; by default until the latency is stable.
        seconds: for each callable, within 30 to 1000 runs.
        meters: read at the ends of every block.
        progress: called after each round.

    Returns:
        For each callable: ``milliseconds`` of every counted run, ``medians`` by round, ``joules`` per run by
        meter, ``warmup`` runs and whether the latency was ``stable`` behind them.
    """
    warmed = [warm(run, warmup) for run in runs]
    pace = max(last for _, _, last in warmed)
    if repeat is None:
        repeat = int(min(MOST_RUNS, max(LEAST_RUNS, seconds * 1e3 / max(pace, 1e-6))))
    rounds = min(ROUNDS, repeat)
    blocks: list[list[list[float]]] = [[] for _ in runs]
    joules: list[dict[str, float]] = [{} for _ in runs]
    for number in range(rounds):
        length = repeat // rounds + (number < repeat % rounds)
        order = range(len(runs))
        for i in order if number % 2 == 0 else reversed(order):
            if len(runs) > 1:
                time.sleep(SPINNING_SECONDS)
                runs[i]()
            before = meters.joules() if meters else {}
            blocks[i].append(block(runs[i], length))
            after = meters.joules() if meters else {}
            for name in after:
                joules[i][name] = joules[i].get(name, 0.0) + after[name] - before.get(name, after[name])
        if meters:
            meters.look()
        if progress:
            progress(number + 1, rounds)
    return [
        {
            "milliseconds": [ms for block in blocks[i] for ms in block],
            "medians": [statistics.median(block) for block in blocks[i]],
            "joules": {name: total / repeat for name, total in joules[i].items()},
            "warmup": warmed[i][0],
            "stable": warmed[i][1],
        }
        for i in range(len(runs))
    ]


def measure(
    ask: dict[str, Any],
    progress: Callable[[int, int], None] | None = None,
    opened: Sequence[Callable[[], object]] | None = None,
) -> dict[str, Any]:
    """Latency of the models in ``runs``, in alternation.

    Args:
        ask: ``runs``, as for sessions; ``repeat``, ``warmup``, ``seconds`` and ``card`` concern all.
        progress: called after each round.
        opened: callables instead of ``runs``.
    """
    runs = opened if opened is not None else open_all(ask["runs"])
    meters = Meters(bool(ask.get("card")))
    try:
        seconds = ask.get("seconds") or BUDGET_SECONDS
        timed = alternate(runs, ask.get("repeat"), ask.get("warmup"), seconds, meters, progress)
    finally:
        noted = meters.close()
    return {"runs": timed, "conditions": noted}


def open_all(asks: Sequence[dict[str, Any]]) -> list[Callable[[], object]]:
    """A callable for each model; a refusal says for which one."""
    runs = []
    for number, ask in enumerate(asks):
        try:
            runs.append(open_run(ask))
        except Refused as error:
            error.number = number
            raise
    return runs
