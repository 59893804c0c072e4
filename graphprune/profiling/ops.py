"""Time by operator type, from onnxruntime's own profiler."""

from __future__ import annotations

import json
import tempfile
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graphprune.profiling.feeds import Feeds
from graphprune.profiling.providers import Provider, open_session

WARMUP = 3
LEAST_RUNS, MOST_RUNS, BUDGET_MS = 10, 100, 1000.0


def time_by_op(
    model: Path, provider: Provider, threads: int | None, feeds: Feeds, latency: float
) -> dict[str, float]:
    """Milliseconds per run by operator type (medians over some runs), the slowest first.

    The operators are those of the graph that onnxruntime made by fusing; the profiler costs
    time itself, so the sum is more than the latency.

    Args:
        model: the ONNX file.
        provider: where it runs.
        threads: threads within an operator.
        feeds: the inputs.
        latency: milliseconds of a run, which settles how many there are.
    """
    runs = int(min(MOST_RUNS, max(LEAST_RUNS, BUDGET_MS / latency)))
    with tempfile.TemporaryDirectory(prefix="graphprune-") as folder:
        session = open_session(model, provider, threads, trace=Path(folder) / "trace")
        for _ in range(WARMUP + runs):
            session.run(None, feeds)
        file = Path(session.end_profiling())
        events = json.loads(file.read_text(encoding="utf-8"))
    starts = sorted(int(event["ts"]) for event in events if event.get("name") == "model_run")
    kernels = own_times(event for event in events if _is_kernel(event))
    totals: dict[str, npt.NDArray[np.float64]] = {}
    for op_type, start, microseconds in kernels:
        number = bisect_right(starts, start) - 1 - WARMUP
        if number >= 0:
            totals.setdefault(op_type, np.zeros(runs))[number] += microseconds / 1e3
    medians = {op_type: float(np.median(times)) for op_type, times in totals.items()}
    return dict(sorted(medians.items(), key=lambda item: -item[1]))


def own_times(kernels: Iterable[dict[str, Any]]) -> list[tuple[str, int, int]]:
    """``(op_type, start, microseconds)`` of each kernel, without that of the kernels it called.

    ``If`` and ``Loop`` last as long as their bodies, whose kernels have events of their own.
    """
    found: list[tuple[str, int, int]] = []
    open_calls: dict[Any, list[tuple[int, int]]] = {}  # by thread: (end, index in found)
    for event in sorted(kernels, key=lambda event: (event["ts"], -event["dur"])):
        start, duration = int(event["ts"]), int(event["dur"])
        stack = open_calls.setdefault(event.get("tid"), [])
        while stack and stack[-1][0] <= start:
            stack.pop()
        if stack and start + duration <= stack[-1][0]:
            op_type, began, own = found[stack[-1][1]]
            found[stack[-1][1]] = (op_type, began, own - duration)
        found.append((event["args"]["op_name"], start, duration))
        stack.append((start + duration, len(found) - 1))
    return found


def _is_kernel(event: dict[str, Any]) -> bool:
    return event.get("cat") == "Node" and str(event.get("name", "")).endswith("_kernel_time")
