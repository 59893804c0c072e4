"""Accuracy of a ResNet-56 that was cut to half its multiply-adds, before and after some minutes of `recover`.

    python benchmarks/recovery.py --kit kit/ [--out out/recovery/] [--epochs 20] [--threads 1]

Pruned with 1,024 unlabelled images, recovered with 8,192; evaluated on the test split by the kit's own
script. Prints one row of a table, with CPU time of the training.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
from accuracy_tasks import TASKS, Kit

import graphprune as gp

#: Chosen by how well calibration images and mixtures of them are answered; the test split was not read.
SETTINGS = {
    "lr": 3e-3, "augment": ("flip", "shift"), "hidden": ("auto",), "hidden_weight": 3.0, "held_out": 0.03,
    "precision": "bfloat16", "patience": 20,
}  # fmt: skip


def cpu_seconds() -> float:
    """Of this process, all threads together."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Prunes (once), recovers, evaluates, prints."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--kit", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("out/recovery"))
    parser.add_argument("--epochs", type=float)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    task, kit = TASKS["resnet56"], Kit(options.kit, options.out, options.threads)
    dense, pruned = kit.folder / task.model, options.out / "pruned.onnx"
    if not pruned.exists():
        _, plain = kit.calibration(task, task.samples)
        gp.prune(dense, pruned, target={"macs": 0.5}, calibration=plain)
    samples = options.out / "samples.npz"
    if not samples.exists():
        script = kit.folder / "make_calibration.py"
        subprocess.run(
            [sys.executable, str(script), "cifar10-8k", str(samples)], check=True, capture_output=True
        )
    recovered, before = options.out / "recovered.onnx", cpu_seconds()
    result = gp.recover(
        pruned, recovered, reference=dense, data=samples, epochs=options.epochs, minutes=options.minutes,
        threads=options.threads, checkpoint=options.out / "run.pt", **SETTINGS,
    )  # fmt: skip
    spent = cpu_seconds() - before
    found = [kit.test(task, model)[0] for model in (dense, pruned, recovered)]
    count = len(np.load(samples)["image"])
    print(f"| model | images | epochs | CPU min | wall min | {task.metric} dense | pruned | recovered |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    numbers = " | ".join([f"{result.epochs:.1f}", f"{spent / 60:.1f}", f"{result.seconds / 60:.1f}"])
    numbers += "".join(f" | {x:.2f}" for x in found)
    print(f"| {task.name} | {count:,} | {numbers} |")


if __name__ == "__main__":
    main()
