"""Runs exported files in torch and in onnxruntime and prints how far apart they are, one row each.

    python benchmarks/to_torch_zoo.py FOLDER [MORE.onnx ...] [--largest-mb 400] [--backward]

The error is the largest difference over all outputs, relative to the largest number of that output.
Files are worked on one after the other in one process.
"""

from __future__ import annotations

import argparse
import gc
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from graphprune.converters import to_torch

from graphprune.errors import GraphPruneError
from graphprune.feasible_inputs import feasible_inputs
from graphprune.model import Model, load
from graphprune.shapes.sizes import Interface

SIZES = {"batch": 2, "length": 16}


@dataclass
class Row:
    """One file."""

    name: str
    error: float | None = None
    note: str = ""
    parameters: int = 0
    seconds: float = 0.0


def feeds_for(model: Model) -> dict[str, np.ndarray]:
    interface = Interface(model.ir)
    sizes = next(iter(interface.nominal({})))
    sizes |= {dim.name: SIZES[dim.role] for dim in interface.dims if dim.role in SIZES}
    return feasible_inputs(model, [sizes], 0)[0]


def differences(wanted: list[np.ndarray], found: list[torch.Tensor]) -> float:
    worst = 0.0
    for a, b in zip(wanted, (t.detach().numpy() for t in found), strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            message = f"{a.dtype}{a.shape} in onnxruntime, {b.dtype}{b.shape} in torch"
            raise ValueError(message)
        if a.size:
            x, y = a.astype(np.float64), b.astype(np.float64)
            same = (x == y) | (np.isnan(x) & np.isnan(y))
            scale = float(np.abs(x[np.isfinite(x)]).max(initial=0.0)) or 1.0
            worst = max(worst, float(np.abs(np.where(same, 0.0, x - y)).max() / scale))
    return worst


def check(path: Path, backward: bool) -> Row:
    row = Row(path.name)
    began = time.perf_counter()
    try:
        model = load(path)
        feeds = feeds_for(model)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        wanted = session.run(None, feeds)
        del session
    except Exception as error:
        row.note = f"onnxruntime: {' '.join(str(error).split())[:150]}"
        return row
    try:
        module = to_torch(model)
        row.parameters = sum(p.numel() for p in module.parameters())
        with torch.set_grad_enabled(backward):
            outputs = list(module(feeds).values())
        row.error = differences(wanted, outputs)
        if backward:
            row.note = gradients(module, outputs)
    except (GraphPruneError, ValueError, RuntimeError) as error:
        row.note = " ".join(str(error).split())[:250]
    row.seconds = time.perf_counter() - began
    return row


def gradients(module: torch.nn.Module, outputs: list[torch.Tensor]) -> str:
    """What is odd about them; nothing, if all parameters have a finite one."""
    torch.manual_seed(0)
    real = [t for t in outputs if t.is_floating_point() and t.requires_grad]
    if not real:
        return "no output has a gradient"
    sum((t * torch.randn_like(t)).sum() for t in real).backward()
    without = [name for name, p in module.initializers.items() if p.grad is None]
    bad = [
        name for name, p in module.initializers.items() if p.grad is not None and not p.grad.isfinite().all()
    ]
    notes = [f"{len(without)} without a gradient: {without[:3]}"] if without else []
    notes += [f"{len(bad)} not finite: {bad[:3]}"] if bad else []
    return "; ".join(notes)


def files_of(places: list[Path], largest: int) -> list[Path]:
    found = [f for place in places for f in (sorted(place.glob("*.onnx")) if place.is_dir() else [place])]
    sizes = {f: f.stat().st_size for f in found}
    for f in found:
        data = f.with_name(f.name + ".data")
        sizes[f] += data.stat().st_size if data.is_file() else 0
    return [f for f in found if sizes[f] <= largest * 1_000_000]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("places", nargs="+", type=Path)
    parser.add_argument("--largest-mb", type=int, default=400)
    parser.add_argument("--backward", action="store_true", help="and say which parameters get no gradient")
    arguments = parser.parse_args()
    rows = []
    for path in files_of(arguments.places, arguments.largest_mb):
        row = check(path, arguments.backward)
        rows.append(row)
        shown = "-" if row.error is None else f"{row.error:.1e}"
        print(f"| {row.name} | {shown} | {row.parameters:,} | {row.seconds:.1f} s | {row.note} |", flush=True)
        gc.collect()
    errors = sorted(row.error for row in rows if row.error is not None)
    if errors:
        print(f"{len(errors)} of {len(rows)} run; largest error {errors[-1]:.1e}, median "
              f"{errors[len(errors) // 2]:.1e}; above 1e-4: {sum(e > 1e-4 for e in errors)}")  # fmt: skip


if __name__ == "__main__":
    main()
