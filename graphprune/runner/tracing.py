"""Time by node, from onnxruntime's own profiler."""

from __future__ import annotations

import json
import statistics
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from graphprune.runner.sessions import Refused, feeds, first_line, open_session
from graphprune.runner.timing import once

TRACE_WARMUP = 3
LEAST_TRACED, MOST_TRACED, TRACED_SECONDS = 10, 100, 1.0
ENDING = "_kernel_time"


def trace(ask: dict[str, Any], folder: str) -> tuple[dict[str, Any], str | None]:
    """Times every node of the graph that onnxruntime made of the model by fusing.

    The profiler costs time itself, so the sum is more than the latency.

    Args:
        ask: as for a session, with ``inputs``, and the ``seconds`` that it may take.
        folder: for the profiler's files.

    Returns:
        ``nodes``, see :func:`by_node`, over how many ``runs``; and the file of the optimized graph, or None.
    """
    optimized: str | None = str(Path(folder) / "optimized.onnx")
    prefix = str(Path(folder) / "trace")
    try:
        session = open_session(ask, prefix, optimized)
    except Refused:  # a graph that a provider compiled parts of can't be written
        optimized, session = None, open_session(ask, prefix)
    arrays = feeds(ask["inputs"])
    try:
        latency = [once(lambda: session.run(None, arrays)) for _ in range(TRACE_WARMUP)][-1]
        seconds = ask.get("seconds") or TRACED_SECONDS
        runs = int(min(MOST_TRACED, max(LEAST_TRACED, seconds * 1e3 / max(latency, 1e-6))))
        for _ in range(runs):
            session.run(None, arrays)
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        raise Refused(first_line(error), "run") from error
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    if optimized is not None and not Path(optimized).is_file():
        optimized = None
    return {"runs": runs, "nodes": by_node(events, runs)}, optimized


def by_node(events: list[dict[str, Any]], runs: int) -> list[dict[str, Any]]:
    """``name``, ``op_type``, ``provider`` and median ``ms`` per run of each node, the slowest first."""
    starts = sorted(int(event["ts"]) for event in events if event.get("name") == "model_run")
    kernels = (e for e in events if e.get("cat") == "Node" and str(e.get("name", "")).endswith(ENDING))
    totals: dict[tuple[str, str, str], list[float]] = {}
    for event, microseconds in own_times(kernels):
        number = bisect_right(starts, int(event["ts"])) - 1 - TRACE_WARMUP
        if number >= 0:
            args = event["args"]
            key = (event["name"][: -len(ENDING)], args["op_name"], args.get("provider", ""))
            totals.setdefault(key, [0.0] * runs)[number] += microseconds / 1e3
    found = [
        {"name": name, "op_type": op_type, "provider": provider, "ms": statistics.median(times)}
        for (name, op_type, provider), times in totals.items()
    ]
    return sorted(found, key=lambda node: -float(node["ms"]))


def own_times(kernels: Iterable[dict[str, Any]]) -> list[tuple[dict[str, Any], int]]:
    """``(event, microseconds)`` of each kernel, without that of the kernels it called.

    ``If`` and ``Loop`` last as long as their bodies, whose kernels have events of their own.
    """
    found: list[tuple[dict[str, Any], int]] = []
    open_calls: dict[Any, list[tuple[int, int]]] = {}  # by thread: (end, index in found)
    for event in sorted(kernels, key=lambda event: (event["ts"], -event["dur"])):
        start, duration = int(event["ts"]), int(event["dur"])
        stack = open_calls.setdefault(event.get("tid"), [])
        while stack and stack[-1][0] <= start:
            stack.pop()
        if stack and start + duration <= stack[-1][0]:
            caller, own = found[stack[-1][1]]
            found[stack[-1][1]] = (caller, own - duration)
        found.append((event, duration))
        stack.append((start + duration, len(found) - 1))
    return found
