"""How long `inspect` takes once everything is imported: python benchmarks/inspect_time.py MODEL…"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

import graphprune as gp
from graphprune.report import inspect

ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", type=Path)
    table = Table(title=f"seconds, median of {ROUNDS} runs in one process")
    for name in ("model", "MB", "nodes in file", "load", "analyze", "report", "inspect in all"):
        table.add_column(name, justify="left" if name == "model" else "right")
    for path in parser.parse_args().models:
        laps: list[tuple[float, float, float]] = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            model = gp.load(path)
            loaded = time.perf_counter()
            graph = gp.analyze(model)
            analyzed = time.perf_counter()
            inspect(graph)
            laps.append((loaded - start, analyzed - loaded, time.perf_counter() - analyzed))
        load, analyze, report = (statistics.median(lap[i] for lap in laps) for i in range(3))
        total = statistics.median(sum(lap) for lap in laps)
        size = path.stat().st_size / 1e6
        nodes = _nodes(path)
        numbers = [f"{size:.0f}", str(nodes), *(f"{t:.2f}" for t in (load, analyze, report, total))]
        table.add_row(path.name, *numbers)
    Console().print(table)


def _nodes(path: Path) -> int:
    import onnx

    return len(onnx.load(path, load_external_data=False).graph.node)


if __name__ == "__main__":
    main()
