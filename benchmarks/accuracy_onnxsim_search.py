"""The methods of onnxsim, as accuracy.py runs them: see accuracy_onnxsim.py.

It knows a sparsity but no budget, so the sparsity that meets the multiply-adds is searched.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from accuracy_jobs import HERE, OVERSHOOT, Job, Made, Method, environment, safe_name

import graphprune as gp
from graphprune.cost import measure

STEPS = 10
MOST = 0.999  # sparsity; 1 is refused
UNTOUCHED = 0.9999
STYLES = ("l2", "l2 global", "wanda")


class LibraryError(Exception):
    """onnxsim raised something, or died."""


class Server:
    """Asks the worker, and counts the multiply-adds of what it wrote."""

    def __init__(self, stdin: IO[str], stdout: IO[str], job: Job) -> None:
        self._stdin, self._stdout = stdin, stdout
        self._dense = self._macs(job.model)
        self.seconds = 0.0
        self.peak_mb = 0

    @staticmethod
    def _macs(path: Path) -> int:
        return measure(gp.load(path)).macs

    def kept(self, sparsity: float, path: Path) -> float:
        """Share of the multiply-adds; the pruned file lies at the path then."""
        self._stdin.write(f"{sparsity} {path}\n")
        self._stdin.flush()
        line = self._stdout.readline()
        if not line:
            message = "its process died"
            raise LibraryError(message)
        answer = json.loads(line)
        self.seconds += answer["seconds"]
        self.peak_mb = answer["peak_mb"]
        if answer["error"]:
            raise LibraryError(answer["error"])
        started = time.perf_counter()
        share = self._macs(path) / self._dense
        self.seconds += time.perf_counter() - started
        return share


@contextmanager
def served(job: Job, style: str) -> Iterator[Server]:
    python = str(job.pythons.get("onnxsim", sys.executable))
    command = [
        python,
        str(HERE / "accuracy_onnxsim.py"),
        str(job.model),
        "--calibration",
        str(job.unlabelled),
        "--style",
        style,
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=environment(job.threads),
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        yield Server(process.stdin, process.stdout, job)
        process.stdin.close()


def run(job: Job, style: str) -> list[Made]:
    """The file that is nearest to the budget; with a note instead where there is none."""
    method = f"onnxsim {style}"
    with served(job, style) as server:
        try:
            found, note = _search(server, job, safe_name(method))
        except LibraryError as error:
            found, note = None, f"failed: {error}"
        except Exception as error:  # whatever reading a broken model raises
            found, note = None, f"broken: {str(error).splitlines()[0]}"
        return [Made(method, found, server.seconds, server.peak_mb, note)]


def _search(server: Server, job: Job, name: str) -> tuple[Path | None, str]:
    low, high, tried = 0.0, MOST, []
    sparsity = MOST
    for step in range(STEPS):
        path = job.folder / f"{name}.{step}.onnx"
        share = server.kept(sparsity, path)
        if share > UNTOUCHED:
            return None, "untouched"
        if sparsity == MOST and share > job.target + OVERSHOOT:
            return None, f"not reached: {share:.1%} is the least that it keeps"
        tried.append((abs(share - job.target), share, sparsity, path))
        low, high = (low, sparsity) if share <= job.target else (sparsity, high)
        sparsity = (low + high) / 2
    met = [entry for entry in tried if entry[1] <= job.target + OVERSHOOT]
    _, _, sparsity, path = min(met)
    return path, f"sparsity {sparsity:.3f}"


def methods() -> list[Method]:
    return [Method((f"onnxsim {style}",), functools.partial(run, style=style)) for style in STYLES]
