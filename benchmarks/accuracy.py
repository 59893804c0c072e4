"""Accuracy without training, at equal multiply-adds: python benchmarks/accuracy.py --kit DIR --table

Every recipe of graphprune side by side with Torch-Pruning and onnxsim, one shot: no training step, and no
labels but where a method's name says so.  Multiply-adds are counted by graphprune for all of them.  Each job
has a process of its own; rows are appended to the results file as they are made, and a second call goes on
where the first one ended.  The kit is a folder with trained models, data and scripts that evaluate (see
`accuracy_tasks.py`); it is no part of the project.

Methods are chosen with `--choose`: then samples are held out from the calibration data, figures are of these,
and the test split is not touched.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import accuracy_graphprune
import accuracy_onnxsim_search
import accuracy_peers
from accuracy_jobs import Job, Made, Method
from accuracy_rows import DENSE, Results, Row, markdown
from accuracy_tasks import TASKS, Kit, Task
from graphprune.passes.recipes import DEFAULT, RECIPES

import graphprune as gp
from graphprune.cost import measure


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kit", type=Path, help="folder of the evaluation kit")
    parser.add_argument("--results", type=Path, default=Path("accuracy.jsonl"))
    parser.add_argument("--models", nargs="+", default=[*TASKS], choices=[*TASKS])
    parser.add_argument("--budgets", nargs="+", type=float, help="shares kept (default: the model's own)")
    parser.add_argument("--methods", nargs="+", default=["*"], help="globs over the names of methods")
    parser.add_argument("--recipes", nargs="*", help="recipes, or settings as criterion=l2,allocator=global")
    parser.add_argument(
        "--no-data", nargs="*", default=[DEFAULT], metavar="RECIPE", help="these without data as well"
    )
    parser.add_argument("--choose", action="store_true", help="figures on held-out samples instead of test")
    parser.add_argument("--samples", type=int, help="calibration samples (default: the model's own)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true", help="make rows anew")
    parser.add_argument("--threads", type=int, default=0, help="of every process (0: its own choice)")
    parser.add_argument("--torch-python", type=Path, help="Python with torch and torch-pruning")
    parser.add_argument("--onnxsim-python", type=Path, help="Python with onnxsim")
    parser.add_argument("--keep", type=Path, help="keep the pruned files in this folder")
    parser.add_argument("--table", action="store_true", help="print the tables of what is in the results")
    parser.add_argument("--brief", action="store_true", help="best scope and BatchNorm samples of peers only")
    return parser.parse_args()


def methods(options: argparse.Namespace) -> list[Method]:
    """All whose name matches and whose Python is there."""
    names = [*RECIPES] if options.recipes is None else options.recipes
    data_free = [name for name in names if name in RECIPES and RECIPES[name].data_free]
    found = accuracy_graphprune.methods([n for n in names if n not in data_free], with_data=True)
    without = dict.fromkeys([*data_free, *options.no_data])
    found += accuracy_graphprune.methods([*without], with_data=False)
    if options.torch_python:
        found += accuracy_peers.methods()
    if options.onnxsim_python:
        found += accuracy_onnxsim_search.methods()
    return [m for m in found if any(fnmatch(row, glob) for row in m.rows for glob in options.methods)]


class Bench:
    """Runs methods and evaluates what they made.

    Args:
        options: of the command line.
        cache: for calibration samples and pruned files.
    """

    def __init__(self, options: argparse.Namespace, cache: Path) -> None:
        self._options, self._cache = options, cache
        self._kit = Kit(options.kit, cache, options.threads)
        self._macs: dict[Path, int] = {}

    def blank(self, task: Task, budget: float, method: str) -> Row:
        options = self._options
        samples = options.samples or (task.choosing if options.choose else task.samples)
        if options.choose and samples > task.choosing:
            message = f"{task.name}: samples from {task.choosing} on are held out"
            raise SystemExit(message)
        metric = "" if options.choose else task.metric
        return Row(task.name, budget, method, options.choose, samples, options.seed, metric)

    def job(self, task: Task, blank: Row) -> Job:
        options = self._options
        labelled, plain = self._kit.calibration(task, blank.samples)
        folder = (options.keep or self._cache) / f"{task.name}-{blank.budget:g}"
        folder.mkdir(parents=True, exist_ok=True)
        pythons = {"torch": options.torch_python, "onnxsim": options.onnxsim_python}
        files = {"torch-pruning": self._kit.folder / task.torch_model} if task.torch_model else {}
        return Job(
            self._kit.folder / task.model, blank.budget, labelled, plain, folder.resolve(), options.seed,
            options.threads, {name: path for name, path in pythons.items() if path}, files,
        )  # fmt: skip

    def macs(self, path: Path) -> int:
        return measure(gp.load(path)).macs

    def row(self, task: Task, blank: Row, made: Made) -> Row:
        """With its figures; a file that can't be evaluated is said to be broken."""
        row = replace(blank, seconds=made.seconds, peak_mb=made.peak_mb, note=made.note)
        if made.path is None:
            return row
        dense = self._kit.folder / task.model
        if dense not in self._macs:
            self._macs[dense] = self.macs(dense)
        try:
            row = replace(row, macs=self.macs(made.path) / self._macs[dense])
            if row.choosing:
                return replace(row, held_out=self._kit.held_out(task, made.path))
            value, parts = self._kit.test(task, made.path)
        except Exception as error:  # whatever onnxruntime raises for a broken file
            return replace(row, note=f"broken: {str(error).splitlines()[0]}")
        return replace(row, value=value, parts=parts)


def work(options: argparse.Namespace, results: Results, cache: Path) -> Iterator[Row]:
    """Makes the rows that are missing."""
    bench, chosen = Bench(options, cache), methods(options)
    for task in (TASKS[name] for name in options.models):
        dense = bench.blank(task, 1.0, DENSE)
        if options.fresh or dense.key not in results.rows:
            yield bench.row(task, dense, Made(DENSE, options.kit.resolve() / task.model))
        for budget in options.budgets or task.budgets:
            for method in chosen:
                blanks = {name: bench.blank(task, budget, name) for name in method.rows}
                if not options.fresh and all(blank.key in results.rows for blank in blanks.values()):
                    continue
                for made in method.run(bench.job(task, next(iter(blanks.values())))):
                    yield bench.row(task, blanks[made.method], made)


def main() -> None:
    options = parse()
    results = Results(options.results)
    if options.kit is not None:
        with tempfile.TemporaryDirectory() as cache:
            for row in work(options, results, Path(cache)):
                results.add(row)
                figure = row.held_out or row.value or row.note
                print(f"{row.model} {row.budget:.1%} {row.method}: {figure}", file=sys.stderr, flush=True)
    elif not options.table:
        message = "nothing to do: --kit DIR makes rows, --table prints them"
        raise SystemExit(message)
    if options.table:
        print(markdown(results.rows.values(), brief=options.brief))


if __name__ == "__main__":
    main()
