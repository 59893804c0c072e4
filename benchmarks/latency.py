"""Measured speed-ups at half the multiply-adds, and latency targets: python benchmarks/latency.py DIR

    /path/to/python-with-torch benchmarks/latency_models.py DIR     # once: exports the networks
    pip install -e . && python benchmarks/latency.py DIR --threads 1

DIR holds NAME.onnx for each network, and NAME.SUFFIX.onnx for other tools' results. Each network is pruned to
``--target macs=50%`` with ``--align auto`` and without alignment, and to ``--target latency=50%``. Then the
original and all results take turns, at batch 1 and 8, and the ratio of each to the original is that of the
rounds' medians. What counts is the ratio: a machine that grows slower slows all alike.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

import graphprune as gp
from graphprune.cost import measure as count
from graphprune.device.options import Tuning
from graphprune.device.protocol import Device, Job

#: Result -> options of prune; latencies are those of batch 1.
VARIANTS: dict[str, dict[str, Any]] = {
    "macs=50% --align auto": {"target": {"macs": 0.5}, "align": "auto"},
    "macs=50%": {"target": {"macs": 0.5}, "align": 1},
    "latency=50%": {"target": {"latency": 0.5}, "align": "auto"},
}


def rows_of(
    name: str, folder: Path, device: Device, options: argparse.Namespace, work: Path
) -> list[dict[str, Any]]:
    dense = folder / f"{name}.onnx"
    files = {"original": dense}
    notes: dict[str, dict[str, Any]] = {}
    chosen = {"recipe": options.recipe} if options.recipe else {"criterion": options.criterion}
    for variant in options.variants:
        path = work / f"{name}.{len(files)}.onnx"
        start = time.perf_counter()
        result = gp.prune(
            dense, path, verify_result=False, threads=options.threads, provider=options.provider,
            **chosen, **VARIANTS[variant],
        )  # fmt: skip
        planned = result.plan.options.get("latency", {})
        notes[variant] = {
            "seconds": round(time.perf_counter() - start, 1), "rounds": planned.get("rounds"),
            "reached": dict(result.plan.reached),
        }  # fmt: skip
        files[variant] = path
        print(f"{name}: {variant}: {notes[variant]}", flush=True)
    for other in sorted(folder.glob(f"{name}.*.onnx")):
        files[other.name.removeprefix(f"{name}.").removesuffix(".onnx")] = other
    macs = {key: count(gp.load(path)).macs for key, path in files.items()}
    rows = []
    for batch in options.batch:
        jobs = [Job(path, batch) for path in files.values()]
        times = device.measure(jobs, seconds=options.seconds)
        base = np.array(times[0].medians)
        for key, found in zip(files, times, strict=True):
            ratios = base / np.array(found.medians)
            rows.append({
                "network": name, "result": key, "batch": batch, "macs": macs[key] / macs["original"],
                "ms": float(np.median(found.milliseconds)), "speedup": float(np.median(ratios)),
                "low": float(np.percentile(ratios, 10)), "high": float(np.percentile(ratios, 90)),
                **notes.get(key, {}),
            })  # fmt: skip
    return rows


def show(rows: list[dict[str, Any]], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for column in ("network", "result", "batch", "MACs kept", "ms", "times as fast", "10-90 %"):
        table.add_column(column, justify="left" if column in ("network", "result") else "right", no_wrap=True)
    for row in rows:
        span = f"{row['low']:.2f}-{row['high']:.2f}"
        table.add_row(
            row["network"], row["result"], str(row["batch"]), f"{row['macs']:.1%}", f"{row['ms']:.2f}",
            f"{row['speedup']:.2f}", span,
        )  # fmt: skip
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", help="names of networks; default: all in the folder")
    parser.add_argument("--variants", nargs="*", default=[*VARIANTS], choices=[*VARIANTS])
    parser.add_argument("--criterion", default="l2", help="speed is measured here, not accuracy")
    parser.add_argument("--recipe", help="instead of the criterion")
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--seconds", type=float, default=10.0, help="of measuring, per file and batch size")
    parser.add_argument("--work", type=Path, default=Path("out/latency"), help="for the pruned models")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    device = Tuning(options.provider, options.threads).device()
    names = options.only or sorted(p.stem for p in options.folder.glob("*.onnx") if "." not in p.stem)
    rows = []
    for name in names:
        found = rows_of(name, options.folder, device, options, options.work)
        show(found, name)
        rows += found
    who = device.identity
    title = f"{who.device}, {who.runtime} {who.version} {who.provider}, threads: {who.threads or 'all'}"
    show(rows, title)
    if options.json:
        document = {"identity": who.to_json(), "rows": rows}
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
