"""Prune every model of a folder to several targets and print what came of it, one row each.

    python benchmarks/zoo.py FOLDER [MORE.onnx ...] --results zoo.jsonl [--targets 0.6,0.3]

Each model is worked on in a process of its own, with limits of time and memory, so that a crash, a hang or a
lack of memory costs one row; rows are appended to the results file at once, and a second call goes on where
the first one ended.  graphprune is used through its public functions only, and what it says is not taken on
trust: see `zoo_check.py`.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import onnx
from zoo_check import SIZES, count_macs, count_params, exporter_of, masked_error, run_pruned
from zoo_report import report

FLOORS = (0.1, 0.02)  # the second is tried where the first does not let a target be reached
EXACT_TARGETS = (0.8, 0.9, 0.97)
#: Axes that can never shrink, whatever the rules know.
INTERFACE = (
    "model output",
    "model input",
    "it is indexed by values known only at run time",
    "a convolution's window computes the spatial axes",
)


@dataclass
class Cut:
    """One target; fractions are of the original, 1 = all of it."""

    target: float
    floor: float | None = None
    claimed: float | None = None
    counted: float | None = None
    params: float | None = None
    oracle_error: float | None = None  # relative to the output scale
    masked_error: float | None = None  # our own oracle, relative too
    masking_moved: float | None = None  # how far the outputs went when the slices were set to zero
    runs: dict[str, str] = field(default_factory=dict)
    seconds: float | None = None
    error: str = ""


@dataclass
class Row:
    """What happened to one model."""

    model: str
    exporter: str = ""
    nodes: int = 0
    params: int = 0
    load_s: float | None = None
    analyze_s: float | None = None
    prunable: float | None = None
    prunable_inside: float | None = None  # the same, without what only the interface holds
    reasons: list[tuple[str, float]] = field(default_factory=list)  # text, share of the parameters
    unruled: list[str] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)
    exact: Cut | None = None
    peak_rss_mb: int = 0
    error: str = ""


def blocked(graph: Any) -> tuple[float, list[tuple[str, float]]]:
    """Prunable share of the parameters that the interface does not hold, and what blocks the others.

    Left out are tensors each of whose axes is held by a model input or output, by an index that is read at
    run time (the rows of an embedding), or by a convolution's window.
    """
    constants = graph.model.ir.graph.initializers
    # A branch that can go as a whole does not make its parameters narrower.
    free = {m.name for g in graph.groups if g.prunable and g.kind != "blocks" for m in g.members}
    tensors = {name: v.const_value for name, v in constants.items() if v.const_value is not None}
    tensors = {name: t for name, t in tensors.items() if t.dtype.is_floating_point()}
    total = sum(t.size for t in tensors.values())
    outside, why = 0, Counter[str]()
    for name, tensor in tensors.items():
        if name in free:
            continue
        reasons: list[str] = []
        for axis, size in enumerate(tensor.shape.numpy()):
            if size > 1:
                found = graph.explain(name, axis)
                reasons += found.reasons or list(found.blocked.values()) or ["no reason given"]
        if reasons and all(reason.startswith(INTERFACE) for reason in reasons):
            outside += tensor.size
        for reason in dict.fromkeys(reasons or ["a scalar"]):
            why[reason] += tensor.size
    stuck = (1 - graph.prunable_params_fraction()) * total
    inside = 1 - max(stuck - outside, 0) / (total - outside) if total > outside else 1.0
    return inside, [(text, size / total) for text, size in why.most_common(4)]


def prune(path: Path, original: onnx.ModelProto, target: float, options: dict[str, Any]) -> Cut:
    """Prunes to one target; what fails is said in the result."""
    import graphprune as gp

    result, floors = Cut(target), FLOORS
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out, plan_file = Path(folder) / "pruned.onnx", Path(folder) / "plan.json"
        for floor in floors:
            result.floor, result.error = floor, ""
            try:
                done = gp.prune(
                    path,
                    out,
                    target={"macs": target},
                    criterion="l2",
                    plan_out=plan_file,
                    floor=floor,
                    **options,
                )
                break
            except gp.GraphPruneError as error:
                result.error = f"{type(error).__name__}: {error}"
                if type(error).__name__ != "TargetError":
                    return result
            except Exception as error:  # the row says it
                result.error = f"CRASH {type(error).__name__}: {error}"
                return result
        else:
            return result
        result.seconds = time.perf_counter() - started
        result.claimed = done.plan.reached["macs"]
        if done.verdict is not None:
            result.oracle_error = done.verdict.max_error / max(done.verdict.scale, 1e-12)
        try:
            pruned = onnx.load(out)
            onnx.checker.check_model(pruned, full_check=True)
            result.runs = run_pruned(original, out)
            found = masked_error(original, plan_file, out)
            if found is not None:
                result.masked_error, result.masking_moved = found
            result.params = count_params(pruned) / max(count_params(original), 1)
            result.counted = count_macs(pruned, SIZES[0]) / count_macs(original, SIZES[0])
        except Exception as error:
            result.error = f"CHECK {type(error).__name__}: {str(error).splitlines()[0]}"
    return result


def measure(path: Path, row: Row, targets: list[float], options: dict[str, Any]) -> None:
    """Fill the row as far as it goes; what fails is raised after the columns before it are set."""
    import graphprune as gp
    from graphprune.report import inspect

    original = onnx.load(path)
    row.exporter, row.nodes, row.params = (
        exporter_of(original),
        len(original.graph.node),
        count_params(original),
    )
    started = time.perf_counter()
    model = gp.load(path)
    row.load_s = time.perf_counter() - started
    started = time.perf_counter()
    graph = gp.analyze(model)
    row.analyze_s = time.perf_counter() - started
    row.prunable = graph.prunable_params_fraction()
    row.prunable_inside, row.reasons = blocked(graph)
    row.unruled = [f"{op.domain}.{op.op_type} x{op.count}" for op in inspect(graph).ops if not op.rule]
    del graph, model
    for target in targets:
        row.cuts.append(prune(path, original, target, options))
    if any(cut.claimed is not None and cut.masked_error is None for cut in row.cuts):
        # A statistic ran over what was cut, so zeros could not say it; a cut without any can be checked.
        for target in EXACT_TARGETS:
            row.exact = prune(path, original, target, options | {"exact_only": True})
            if not row.exact.error.startswith("TargetError"):
                break


def work(path: Path, targets: list[float], options: dict[str, Any]) -> Row:
    row = Row(path.name)
    try:
        measure(path, row, targets, options)
    except Exception as error:  # the row says it; the other columns stay
        row.error = f"{type(error).__name__}: {error}"
    row.peak_rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return row


def measure_apart(path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one model in a process of its own."""
    command = [sys.executable, __file__, str(path), "--worker", "--targets", arguments.targets]
    command += ["--criterion", arguments.criterion, "--allocator", arguments.allocator]
    limit = int(arguments.memory * 2**30)
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=arguments.timeout,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        )
    except subprocess.TimeoutExpired:
        return asdict(Row(path.name, error=f"no result after {arguments.timeout} s"))
    try:
        return dict(json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return asdict(Row(path.name, error=f"process ended with {done.returncode}: {last[:200]}"))


def main() -> int:
    """Print the table and the summary; 1 when a file is wrong or an engine failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("paths", nargs="*", type=Path, help="folders of .onnx files, or files")
    parser.add_argument("--results", type=Path, default=Path("zoo.jsonl"), help="JSON lines, appended to")
    parser.add_argument("--again", nargs="*", default=[], help="names of models whose rows are made anew")
    parser.add_argument("--targets", default="0.6,0.3", help="fractions of macs to keep")
    parser.add_argument("--criterion", default="l2")
    parser.add_argument("--allocator", default="global")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds per model")
    parser.add_argument("--memory", type=float, default=12.0, help="GiB per model")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        options = {"criterion": arguments.criterion, "allocator": arguments.allocator}
        targets = [float(text) for text in arguments.targets.split(",")]
        print(json.dumps(asdict(work(arguments.paths[0], targets, options))))
        return 0

    files = [f for p in arguments.paths for f in (sorted(p.glob("*.onnx")) if p.is_dir() else [p])]
    rows: dict[str, dict[str, Any]] = {}
    if arguments.results.exists():
        lines = arguments.results.read_text().splitlines()
        rows = {row["model"]: row for row in map(json.loads, lines) if row["model"] not in arguments.again}
    for number, path in enumerate(files, 1):
        if path.name in rows:
            continue
        rows[path.name] = row = measure_apart(path, arguments)
        with arguments.results.open("a") as results:
            results.write(json.dumps(row) + "\n")
        problem = row["error"] or "; ".join(cut["error"] for cut in row["cuts"] if cut["error"]) or "ok"
        print(f"[{number}/{len(files)}] {path.name}: {problem.splitlines()[0]}", file=sys.stderr, flush=True)
    text, fine = report(list(rows.values()))
    print(text)
    return int(not fine)


if __name__ == "__main__":
    sys.exit(main())
