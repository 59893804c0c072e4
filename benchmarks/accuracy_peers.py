"""The methods of Torch-Pruning, as accuracy.py runs them: see accuracy_torch_pruning.py."""

from __future__ import annotations

import functools
from pathlib import Path

from accuracy_jobs import Job, Made, Method, WorkerError, ask, safe_name

IMPORTANCES = ("magnitude", "lamp", "taylor", "bn-scale", "fpgm")
SCOPES = ("global", "local")
#: What the worker calls its files, and the ends of the methods' names.
VARIANTS = {"": "", "bn": " + BatchNorm", "bn-augmented": " + BatchNorm (augmented)"}


def name(importance: str, scope: str, variant: str) -> str:
    labels = " with labels" if importance == "taylor" else ""
    return f"torch-pruning {importance} {scope}{labels}{VARIANTS[variant]}"


def run(job: Job, importance: str, scope: str) -> list[Made]:
    """Pruned, and pruned with new BatchNorm statistics from plain or augmented samples."""
    rows = [name(importance, scope, variant) for variant in VARIANTS]
    if "torch-pruning" not in job.files:
        return [Made(row, None, note="it has no torch module for this file") for row in rows]
    arguments: list[str | Path] = [job.files["torch-pruning"], "--calibration", job.calibration]
    arguments += ["--target", str(job.target), "--importance", importance, "--scope", scope]
    start = f"{safe_name(name(importance, scope, ''))}-"
    arguments += ["--out", job.folder / start, "--seed", str(job.seed)]
    try:
        answer = ask("accuracy_torch_pruning.py", arguments, job, job.pythons.get("torch"))
    except WorkerError as error:
        return [Made(row, None, note=f"failed: {error}") for row in rows]
    note = f"parity {answer['parity']:.1e}"
    return [
        Made(name(importance, scope, f["variant"]), Path(f["path"]), f["seconds"], f["peak_mb"], note)
        for f in answer["files"]
    ]


def methods() -> list[Method]:
    return [
        Method(
            tuple(name(importance, scope, variant) for variant in VARIANTS),
            functools.partial(run, importance=importance, scope=scope),
        )
        for importance in IMPORTANCES
        for scope in SCOPES
    ]
