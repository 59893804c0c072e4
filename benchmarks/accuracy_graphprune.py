"""graphprune's recipes, or single settings, in a process of their own: a worker of accuracy.py."""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Sequence
from pathlib import Path

from accuracy_jobs import Job, Made, Method, WorkerError, ask, peak_mb, safe_name

NO_DATA = " (no data)"


def settings(text: str) -> dict[str, str]:
    """The options that a method's name stands for: `criterion=l2,allocator=global`, or a recipe."""
    if "=" not in text:
        return {"recipe": text}
    return dict(part.split("=", 1) for part in text.split(","))


def run(job: Job, setting: str, *, with_data: bool) -> list[Made]:
    method = f"graphprune {setting}" + ("" if with_data else NO_DATA)
    path = job.folder / f"{safe_name(method)}.onnx"
    path.unlink(missing_ok=True)
    arguments: list[str | Path] = [job.model, path, "--target", str(job.target), "--seed", str(job.seed)]
    arguments += ["--options", json.dumps(settings(setting))]
    if with_data:
        arguments += ["--calibration", job.unlabelled]
    try:
        answer = ask("accuracy_graphprune.py", arguments, job)
    except WorkerError as error:
        return [Made(method, None, note=f"failed: {error}")]
    return [Made(method, path, answer["seconds"], answer["peak_mb"], answer["note"])]


def methods(names: Sequence[str], *, with_data: bool) -> list[Method]:
    """One method per recipe or setting."""
    suffix = "" if with_data else NO_DATA
    return [
        Method((f"graphprune {name}{suffix}",), functools.partial(run, setting=name, with_data=with_data))
        for name in names
    ]


def main() -> None:
    import graphprune as gp

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--target", type=float, required=True)
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--options", type=json.loads, default={}, help="of gp.prune, as JSON")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    options = dict(given.options)
    if given.calibration is not None:
        options["calibration"] = given.calibration
    started = time.perf_counter()
    result = gp.prune(given.model, given.output, target={"macs": given.target}, seed=given.seed, **options)
    seconds = time.perf_counter() - started
    verdict = "" if result.verdict is not None else "not verified"
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb(), "note": verdict}))


if __name__ == "__main__":
    main()
