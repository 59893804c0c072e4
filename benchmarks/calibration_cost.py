"""What calibration costs, against plain inference of the same samples, side by side in one run.

    python benchmarks/calibration_cost.py MODEL.onnx SAMPLES.npz [--samples 512] [--rounds 3]

Prints seconds and ratios: the least of some rounds, plain inference and moments in turn.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

import graphprune as gp
from graphprune.calibration.evidence import Evidence
from graphprune.calibration.pieces import exposing


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Measures and prints."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("model")
    parser.add_argument("samples_file")
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    graph = gp.analyze(gp.load(options.model))
    evidence = Evidence(graph, options.samples_file, limit=options.samples)
    session = exposing(graph.model, list(graph.model.ir.graph.outputs))
    names = [value.name for value in session.get_inputs()]

    def infer() -> None:
        for batch in evidence.batches:
            session.run(None, {name: batch[name] for name in names})

    def gather() -> None:
        evidence.__dict__.pop("moments", None)
        _ = evidence.moments

    infer()
    plain, moments = [], []
    for _ in range(options.rounds):
        plain.append(seconds(infer))
        moments.append(seconds(gather))
    streams = evidence.streams()
    evidence.admit([group for group in evidence.groups if group.id not in streams])
    inner = min(seconds(gather) for _ in range(options.rounds))
    table = Table(title=f"{len(evidence.samples)} samples, least of {options.rounds} rounds")
    for column in ("what", "seconds", "times plain inference"):
        table.add_column(column, justify="left" if column == "what" else "right")
    rows = (("plain inference", min(plain)), ("moments of all layers", min(moments)))
    for what, found in (*rows, ("moments, residual streams left out", inner)):
        table.add_row(what, f"{found:.2f}", f"{found / min(plain):.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
