"""What alternation is for: a machine that slows down in the middle of a comparison.

    python benchmarks/interleaving.py model.onnx pruned.onnx [--slowdown 2.0]

Every run takes longer by a factor after half of the time, as on a processor that grew hot.  The ratio of the
two models is then taken three ways: one after the other, as most scripts do; from the medians of alternating
runs; and from the ratios round by round, as `profile` does.  The ratio without a slow-down comes first.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import onnxruntime as ort

from graphprune.profiling.feeds import make_feeds
from graphprune.runner.timing import alternate, once


class Machine:
    """Runs things, from some moment on more slowly."""

    def __init__(self, factor: float) -> None:
        self.factor, self.slow = factor, False

    def run(self, call: Callable[[], object]) -> None:
        start = time.perf_counter()
        call()
        if self.slow:
            end = start + (time.perf_counter() - start) * self.factor
            while time.perf_counter() < end:
                pass


def opened(model: Path) -> Callable[[], object]:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return partial(session.run, None, make_feeds(session, 1, None))


def compare(runs: list[Callable[[], object]], machine: Machine, repeat: int) -> dict[str, float]:
    calls = [partial(machine.run, run) for run in runs]
    machine.slow = False
    for call in calls * 10:
        call()
    first = [once(calls[0]) for _ in range(repeat)]
    machine.slow = machine.factor > 1
    second = [once(calls[1]) for _ in range(repeat)]
    machine.slow = False

    def slower(done: int, rounds: int) -> None:
        machine.slow = machine.factor > 1 and done >= rounds // 2

    a, b = alternate(calls, repeat=repeat, warmup=5, progress=slower)
    ratios = [y / x for x, y in zip(a["medians"], b["medians"], strict=True)]
    return {
        "one after the other": statistics.median(second) / statistics.median(first),
        "alternating, medians": statistics.median(b["milliseconds"]) / statistics.median(a["milliseconds"]),
        "alternating, by round": statistics.median(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs=2, type=Path)
    parser.add_argument("--slowdown", type=float, default=2.0)
    parser.add_argument("--repeat", type=int, default=100)
    options = parser.parse_args()
    runs = [opened(model) for model in options.models]
    calm = compare(runs, Machine(1.0), options.repeat)
    hot = compare(runs, Machine(options.slowdown), options.repeat)
    print(f"{'latency of the second over the first':40} {'steady':>8} {'slowed':>8} {'error':>8}")
    for way, ratio in calm.items():
        print(f"{way:40} {ratio:8.3f} {hot[way]:8.3f} {hot[way] / ratio - 1:+8.1%}")


if __name__ == "__main__":
    main()
