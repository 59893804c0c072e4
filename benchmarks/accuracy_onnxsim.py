"""onnxsim 0.8.1's structured pruning: a worker of accuracy.py, in a Python with onnxsim.

    pip install onnxsim==0.8.1 onnxruntime

It need not be graphprune's Python, so that nothing of graphprune is imported here.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
from accuracy_jobs import peak_mb
from onnxsim.pruning import apply_structured_pruning, apply_structured_wanda_pruning

BATCH = 64


def prune(model: Path, samples: list[dict[str, Any]], sparsity: float, style: str) -> onnx.ModelProto:
    # Read anew each time: the library changes what it is given.
    dense = onnx.load(model)
    if style == "wanda":
        pruned: onnx.ModelProto = apply_structured_wanda_pruning(dense, samples, sparsity=sparsity)
    else:
        is_global = style.endswith("global")
        pruned = apply_structured_pruning(dense, sparsity=sparsity, global_sparsity=is_global)
    return pruned


def serve(model: Path, samples: list[dict[str, Any]], style: str, answers: IO[str]) -> None:
    """Answers lines `SPARSITY PATH`: a file at the path, or an error."""
    for line in sys.stdin:
        sparsity, path = line.rstrip("\n").split(" ", 1)
        started = time.perf_counter()
        answer: dict[str, Any] = {"error": ""}
        try:
            onnx.save(prune(model, samples, float(sparsity), style), path)
        except Exception as error:
            answer["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
        answer |= {"seconds": time.perf_counter() - started, "peak_mb": peak_mb()}
        print(json.dumps(answer), file=answers, flush=True)


def main() -> None:
    # Answers go out by a way of their own: the library may print.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--style", choices=("l2", "l2 global", "wanda"), required=True)
    options = parser.parse_args()
    samples = []
    if options.style == "wanda":
        with np.load(options.calibration) as file:
            arrays = {name: file[name] for name in file.files}
        starts = range(0, len(next(iter(arrays.values()))), BATCH)
        samples = [{k: array[i : i + BATCH] for k, array in arrays.items()} for i in starts]
    serve(options.model, samples, options.style, answers)


if __name__ == "__main__":
    main()
