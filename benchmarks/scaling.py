"""How time grows with the number of nodes: python benchmarks/scaling.py

Writes networks of 100 to 10,000 nodes (`scaling_models.py`), and a 32-layer decoder of 3,000 nodes and
realistic widths with its weights in a sparse file, and times each stage on them. The exponent is fitted to
the points from 1,000 nodes on: 1 is linear.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scaling_models import FAMILIES, Widths, decoder

import graphprune as gp
from graphprune.analysis import Analysis
from graphprune.garbage import no_collection
from graphprune.graph import DependencyGraph
from graphprune.planner import removed_units
from graphprune.rewrite import cut
from graphprune.shapes.fold_shapes import prepare

SIZES = (100, 300, 1000, 3000, 10000)
FIT_FROM = 1000
STAGES = ("load", "hash", "trace", "analysis", "groups", "plan random", "plan l2", "cut", "write")
#: A 7B decoder; its weights are one sparse file.
REALISTIC = Widths(hidden=4096, heads=32, kv_heads=8, inner=11008, vocabulary=32000)


class Clock:
    """Seconds per stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def stop(self, name: str) -> None:
        self.laps[name] = time.perf_counter() - self._last
        self._last = time.perf_counter()


def measure(path: Path, *, weights: bool) -> tuple[int, dict[str, float]]:
    """Number of nodes in the file, and seconds of every stage.

    Args:
        path: the model.
        weights: also do what reads the weights: L2 scores, and writing.
    """
    nodes = len(gp.load(path).ir.graph)
    gc.collect()
    clock = Clock()
    model = gp.load(path)
    clock.stop("load")
    digest = model.digest()
    digest.result()  # else some other stage would wait for it
    clock.stop("hash")
    with no_collection():  # as in gp.analyze
        prepared, trace = prepare(model)
        clock.stop("trace")
        analysis = Analysis(prepared, trace).run()
        clock.stop("analysis")
        graph = DependencyGraph(analysis, model.file_bytes, digest)
        clock.stop("groups")
    plan = gp.plan(graph, target={"macs": 0.5}, criterion="random")
    clock.stop("plan random")
    if weights:
        plan = gp.plan(graph, target={"macs": 0.5}, criterion="l2")
        clock.stop("plan l2")
    pruned = cut(analysis, removed_units(graph, plan))
    clock.stop("cut")
    if weights:
        pruned.save(path.with_suffix(".pruned.onnx"))
        clock.stop("write")
    return nodes, clock.laps


def best(path: Path, rounds: int, *, weights: bool) -> tuple[int, dict[str, float]]:
    """The shortest time of each stage: other work on the machine only adds."""
    runs = [measure(path, weights=weights) for _ in range(rounds)]
    return runs[0][0], {stage: min(laps[stage] for _, laps in runs) for stage in runs[0][1]}


def exponent(nodes: list[int], seconds: list[float]) -> float:
    """Slope of log(seconds) over log(nodes)."""
    return float(np.polyfit(np.log(nodes), np.log(seconds), 1)[0])


def new_table(title: str) -> Table:
    table = Table(title=title)
    for name in ("nodes", *STAGES):
        table.add_column(name, justify="right")
    return table


def row(nodes: object, laps: dict[str, float]) -> list[str]:
    return [str(nodes), *(f"{laps[stage]:.3f}" if stage in laps else "-" for stage in STAGES)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2, help="the shortest time of so many runs counts")
    parser.add_argument("--most", type=int, default=SIZES[-1], help="largest number of nodes")
    parser.add_argument("--families", nargs="*", default=[*FAMILIES], help="of networks to grow")
    options = parser.parse_args()
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        for name in options.families:
            table, points = new_table(f"{name}: seconds"), []
            for size in (n for n in SIZES if n <= options.most):
                FAMILIES[name](path, size)
                nodes, laps = best(path, options.rounds, weights=True)
                points.append((nodes, laps))
                table.add_row(*row(nodes, laps))
            fitted = [point for point in points if point[0] >= 0.9 * FIT_FROM]
            if len(fitted) > 1:
                sizes = [nodes for nodes, _ in fitted]
                slopes = {s: exponent(sizes, [laps[s] for _, laps in fitted]) for s in STAGES}
                table.add_section()
                table.add_row("exponent", *(f"{slopes[stage]:.2f}" for stage in STAGES))
            console.print(table)
        decoder(path, 0, layers=32, widths=REALISTIC, data="model.bin")
        table = new_table("32-layer decoder, hidden 4096, 5.9 G weights in a sparse file that nobody reads")
        table.add_row(*row(*best(path, options.rounds, weights=False)))
        console.print(table)


if __name__ == "__main__":
    main()
