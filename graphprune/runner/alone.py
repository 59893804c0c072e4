"""Memory and load time of a model, in a process that does nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from graphprune.runner.meters import card_says
from graphprune.runner.sessions import Refused, feeds, first_line, open_session, runtime

RUNS = 3


def peak_rss() -> int | None:
    """The process's greatest resident memory so far in bytes; None where the system can't tell."""
    if sys.platform == "linux":
        # ru_maxrss would be the parent's where that is larger: exec does not reset it.
        match = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
        return int(match.group(1)) * 1024 if match else None
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def card_memory() -> float | None:
    """Bytes in use on the visible NVIDIA card, by all processes; None if there is none."""
    try:
        return float(card_says("memory.used") or "") * 2**20
    except ValueError:
        return None


def alone(ask: dict[str, Any], script: str) -> dict[str, Any]:
    """Loads and runs a model in a process of its own.

    Args:
        ask: as for a session, with ``inputs``.
        script: the file of the joined runner.

    Returns:
        Bytes resident ``idle`` before loading and at the ``peak``, bytes on the ``card`` and milliseconds of
        loading, ``load_ms``.
    """
    # Under an emulator sys.executable is not what starts a process.
    python = os.environ.get("GRAPHPRUNE_PYTHON") or sys.executable
    try:
        done = subprocess.run(
            [python, script, "--alone"],
            input=json.dumps({**ask, "path": sys.path}),
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise Refused(first_line(error), "alone") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        text = lines[-1] if lines else f"it ended with status {done.returncode}"
        raise Refused(text, "alone")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def alone_here() -> None:
    """The other side of :func:`alone`."""
    ask = json.load(sys.stdin)
    sys.path[:] = ask["path"]
    runtime()
    arrays = feeds(ask["inputs"])
    idle = peak_rss()
    before = card_memory() if ask.get("card") else None
    start = time.perf_counter()
    session = open_session(ask)
    load = (time.perf_counter() - start) * 1e3
    for _ in range(RUNS):
        session.run(None, arrays)
    after = None if before is None else card_memory()
    grown = None if before is None or after is None else int(max(0, after - before))
    print(json.dumps({"idle": idle, "peak": peak_rss(), "card": grown, "load_ms": load}))
