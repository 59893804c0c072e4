"""What is asked of a pruner in the accuracy benchmark, and what comes back; one process per job."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
#: Peers may keep this share more than the target: uniform ratios move in coarse steps, and the next lower one
#: can be 4 % of the multiply-adds away.
OVERSHOOT = 0.01


@dataclass(frozen=True)
class Job:
    """One model and budget.

    Attributes:
        model: the dense ONNX file.
        target: share of the multiply-adds that may be kept.
        calibration: samples as an .npz file, with labels.
        unlabelled: the same without labels: all that graphprune gets.
        folder: for the pruned files.
        seed: of everything random.
        threads: of the numeric libraries (0: their own choice).
        pythons: interpreters of the peers, by name.
        files: other forms of the model that a peer needs, by name.
    """

    model: Path
    target: float
    calibration: Path
    unlabelled: Path
    folder: Path
    seed: int = 0
    threads: int = 0
    pythons: Mapping[str, Path] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Made:
    """A pruned model, or why there is none.

    Attributes:
        method: as the table names it.
        path: the file; None when there is none.
        seconds: of the job without imports, and with the search for the ratio where there has to be one.
        peak_mb: largest resident size of the process.
        note: what there is to say, such as "untouched".
    """

    method: str
    path: Path | None
    seconds: float | None = None
    peak_mb: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Method:
    """A pruner that is run once and yields one or more rows."""

    rows: tuple[str, ...]
    run: Callable[[Job], list[Made]]


def peak_mb() -> int:
    """Largest resident size of this process.

    Not from getrusage where it can be had otherwise: a child starts with its parent's peak there.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / 1024)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def environment(threads: int) -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return os.environ | (dict.fromkeys(names, str(threads)) if threads else {})


class WorkerError(Exception):
    """A worker ended without an answer; the text is the last line that it wrote to stderr."""


def ask(
    script: str, arguments: Sequence[str | Path], job: Job, python: Path | None = None, limit: float = 7200
) -> Any:
    """Runs a script of this folder; the last line that it prints is its answer in JSON."""
    command = [str(python or sys.executable), str(HERE / script), *map(str, arguments)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment(job.threads), timeout=limit
        )
    except subprocess.TimeoutExpired as error:
        message = f"not done after {limit:.0f} s"
        raise WorkerError(message) from error
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise WorkerError(lines[-1] if lines else f"exit status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def safe_name(text: str) -> str:
    """As part of a file name."""
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in text)
