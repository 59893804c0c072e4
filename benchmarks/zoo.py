"""Prune every model of a folder and print what came of it, one row each.

    python benchmarks/zoo.py FOLDER [MORE.onnx ...] [--target 0.6] [--json FILE]

Each model is pruned in a process of its own, so that a crash, a hang or a lack of memory costs one
row.  graphprune is used through its public functions only, and what it says is not taken on trust:
multiply-adds are counted here, from one run of the file at fixed sizes, and the pruned file is
opened and run here at sizes that nothing was traced at.  Where every cut group is exact (a CNN, or
`--exact-only`), the masking oracle is done again here from the plan file alone: the original with
the removed slices set to zero must equal the pruned model.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx

# (batch, sequence).  At the first, graphprune's nominal sizes, multiply-adds are counted: the share
# of attention in them grows with the sequence, so a target is only met or missed at given sizes.
SIZES = ((1, 128), (5, 16), (2, 29))
MULTIPLYING = ("Conv", "ConvTranspose", "MatMul", "Gemm")


@dataclass
class Row:
    """What happened to one model; fractions are of the original, 1 = all of it."""

    model: str
    exporter: str = ""
    nodes: int = 0
    load_s: float | None = None
    analyze_s: float | None = None
    prune_s: float | None = None
    prunable_params: float | None = None
    macs_claimed: float | None = None
    macs_counted: float | None = None
    params_claimed: float | None = None
    params_counted: float | None = None
    oracle_error: float | None = None
    oracle_scale: float | None = None
    masked_error: float | None = None  # our own oracle: largest difference / output scale
    runs: dict[str, str] = field(default_factory=dict)  # size -> "ok" or the error
    peak_rss_mb: int | None = None
    error: str = ""


def exporter_of(model: onnx.ModelProto) -> str:
    """Who wrote the file: both torch exporters call themselves pytorch, one adds metadata."""
    if model.producer_name == "pytorch":
        entries = (entry for node in model.graph.node for entry in node.metadata_props)
        marked = any(entry.key.startswith("pkg.torch") for entry in entries)
        return "dynamo" if marked else "legacy"
    return model.producer_name or "unnamed"


def feed_for(model: onnx.ModelProto, batch: int, sequence: int) -> dict[str, np.ndarray]:
    """Random inputs: first symbolic axis = batch, the others = sequence."""
    rng = np.random.default_rng(batch * 1000 + sequence)
    constants = {tensor.name for tensor in model.graph.initializer}
    feed: dict[str, np.ndarray] = {}
    for value in model.graph.input:
        if value.name in constants:
            continue
        tensor = value.type.tensor_type
        shape = [
            axis.dim_value or (batch if index == 0 else sequence)
            for index, axis in enumerate(tensor.shape.dim)
        ]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if np.issubdtype(dtype, np.floating):
            feed[value.name] = rng.standard_normal(shape).astype(dtype)
        elif "mask" in value.name or dtype == np.bool_:
            feed[value.name] = np.ones(shape, dtype)
        else:
            feed[value.name] = rng.integers(0, 100, shape).astype(dtype)  # below any vocabulary
    return feed


def open_session(model: onnx.ModelProto | Path, *, optimize: bool = True) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def count_macs(model: onnx.ModelProto, batch: int, sequence: int) -> int:
    """Multiply-adds of Conv, ConvTranspose, MatMul and Gemm in one actual run.

    Nothing of graphprune is involved: the operands are made outputs of the graph, and their
    shapes read from what onnxruntime returns.
    """
    nodes = [node for node in model.graph.node if node.op_type in MULTIPLYING]
    constants = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = tuple(node.attribute[0].t.dims)
    feed = feed_for(model, batch, sequence)
    shapes = constants | {name: array.shape for name, array in feed.items()}
    wanted = [name for node in nodes for name in (*node.input[:2], node.output[0])]
    wanted = [name for name in dict.fromkeys(wanted) if name not in shapes]

    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    outputs = {value.name for value in model.graph.output}
    tapped.graph.output.extend(onnx.ValueInfoProto(name=n) for n in wanted if n not in outputs)
    session = open_session(tapped, optimize=False)
    arrays = session.run(wanted, feed) if wanted else []
    shapes |= {name: array.shape for name, array in zip(wanted, arrays, strict=True)}
    return sum(node_macs(node, shapes) for node in nodes)


def node_macs(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    first, second = shapes[node.input[0]], shapes[node.input[1]]
    output = shapes[node.output[0]]
    if node.op_type == "Conv":  # weight (M, C/group, k...): each output element reads C/group * k
        return int(np.prod(output) * np.prod(second[1:]))
    if node.op_type == "ConvTranspose":  # weight (C, M/group, k...): each input element is spread
        return int(np.prod(first) * np.prod(second[1:]))
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return int(np.prod(output) * first[0 if transposed else -1])


def count_params(model: onnx.ModelProto) -> int:
    """Elements of the floating-point initializers, as they stand in the file."""
    floating = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    return sum(int(np.prod(t.dims)) for t in model.graph.initializer if t.data_type in floating)


def run_pruned(original: onnx.ModelProto, pruned: Path) -> dict[str, str]:
    """Open and run the pruned file at every size; the outputs keep the original's shapes."""
    session, reference = open_session(pruned), open_session(original)
    results = {}
    for batch, sequence in SIZES:
        feed = feed_for(original, batch, sequence)
        try:
            outputs, expected = session.run(None, feed), reference.run(None, feed)
            shapes = [(a.shape, b.shape) for a, b in zip(outputs, expected, strict=True)]
            finite = all(np.isfinite(a).all() for a in outputs if a.dtype.kind == "f")
            wrong = next((f"{a} for {b}" for a, b in shapes if a != b), "")
            results[f"{batch}x{sequence}"] = wrong or ("ok" if finite else "not finite")
        except Exception as error:  # onnxruntime raises its own classes, none of them public
            results[f"{batch}x{sequence}"] = str(error).splitlines()[0][:200]
    return results


def mask(original: onnx.ModelProto, plan: dict[str, Any]) -> onnx.ModelProto | None:
    """The original with the plan's removed slices set to zero; None where that is not the claim.

    A group that a norm or a softmax runs over changes statistics when it is cut, so zeroing says
    something else; and a parameter that the plan names is not always an initializer of the file.
    """
    cut = [group for group in plan["groups"] if len(group["keep"]) < group["size"]]
    if not all(group["exact"] for group in cut):
        return None
    masked = onnx.ModelProto()
    masked.CopyFrom(original)
    tensors = {tensor.name: tensor for tensor in masked.graph.initializer}
    for parameter in plan["parameters"]:
        if parameter["name"] not in tensors or parameter.get("uses"):
            return None
        tensor = tensors[parameter["name"]]
        array = onnx.numpy_helper.to_array(tensor).copy()
        removed = np.setdiff1d(np.arange(parameter["size"]), parameter["keep"])
        np.moveaxis(array, parameter["axis"], 0)[removed] = 0
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return masked


def masked_error(masked: onnx.ModelProto, pruned: Path) -> float:
    """Largest difference of the outputs over the largest output, batch and sequence untraced."""
    feed = feed_for(masked, *SIZES[-1])
    expected, outputs = open_session(masked).run(None, feed), open_session(pruned).run(None, feed)
    return max(
        float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-12))
        for a, b in zip(expected, outputs, strict=True)
    )


def measure(path: Path, row: Row, target: float, options: dict[str, Any]) -> None:
    """Fill the row as far as it goes; what fails is raised after the columns before it are set."""
    import graphprune as gp

    original = onnx.load(path)
    row.exporter, row.nodes = exporter_of(original), len(original.graph.node)
    started = time.perf_counter()
    model = gp.load(path)
    row.load_s = time.perf_counter() - started
    started = time.perf_counter()
    graph = gp.analyze(model)
    row.analyze_s = time.perf_counter() - started
    row.prunable_params = graph.prunable_params_fraction()
    del graph, model

    with tempfile.TemporaryDirectory() as folder:
        out, plan_file = Path(folder) / "pruned.onnx", Path(folder) / "plan.json"
        started = time.perf_counter()
        result = gp.prune(path, out, target={"macs": target}, plan_out=plan_file, **options)
        row.prune_s = time.perf_counter() - started
        row.macs_claimed = result.plan.reached.get("macs")
        row.params_claimed = result.plan.reached.get("params")
        if result.verdict is not None:
            row.oracle_error, row.oracle_scale = result.verdict.max_error, result.verdict.scale
        pruned = onnx.load(out)
        onnx.checker.check_model(pruned, full_check=True)
        row.macs_counted = count_macs(pruned, *SIZES[0]) / count_macs(original, *SIZES[0])
        row.params_counted = count_params(pruned) / count_params(original)
        row.runs = run_pruned(original, out)
        masked = mask(original, json.loads(plan_file.read_text()))
        row.masked_error = None if masked is None else masked_error(masked, out)


def work(path: Path, target: float, options: dict[str, Any]) -> Row:
    import resource

    row = Row(path.name)
    try:
        measure(path, row, target, options)
    except Exception as error:  # the row says it; the other columns stay
        row.error = f"{type(error).__name__}: {error}"
    row.peak_rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return row


def measure_apart(path: Path, arguments: argparse.Namespace) -> Row:
    """Run one model in a process of its own."""
    command = [sys.executable, __file__, str(path), "--worker", "--target", str(arguments.target)]
    command += ["--criterion", arguments.criterion, "--allocator", arguments.allocator]
    command += ["--exact-only"] if arguments.exact_only else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=arguments.timeout, check=False)
    except subprocess.TimeoutExpired:
        return Row(path.name, error=f"no result after {arguments.timeout} s")
    try:
        return Row(**json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Row(path.name, error=f"process ended with {done.returncode}: {last[:200]}")


def cell(row: Row, name: str) -> str:
    value = getattr(row, name)
    if name == "runs":
        bad = [f"{size}: {result}" for size, result in value.items() if result != "ok"]
        return "; ".join(bad) or ("ok" if value else "-")
    if name == "error":
        return value.splitlines()[0][:90] if value else ""
    if value is None:
        return "-"
    if name in (
        "prunable_params",
        "macs_claimed",
        "macs_counted",
        "params_claimed",
        "params_counted",
    ):
        return f"{value:.1%}"
    if name.startswith(("oracle", "masked")):
        return f"{value:.1e}"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def markdown(rows: list[Row]) -> str:
    names = [f.name for f in fields(Row)]
    table = [[name.replace("_", " ") for name in names], ["---"] * len(names)]
    table += [[cell(row, name).replace("|", "\\|") for name in names] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in table)


def main() -> int:
    """Print the table; 1 when a model failed, missed the target, or does not run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("paths", nargs="+", type=Path, help="folders of .onnx files, or files")
    parser.add_argument("--target", type=float, default=0.6, help="fraction of macs to keep")
    parser.add_argument("--criterion", default="l2")
    parser.add_argument("--allocator", default="uniform")
    parser.add_argument("--exact-only", action="store_true")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds per model")
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        options = {"criterion": arguments.criterion, "allocator": arguments.allocator}
        if arguments.exact_only:
            options["exact_only"] = True
        print(json.dumps(asdict(work(arguments.paths[0], arguments.target, options))))
        return 0

    files = [f for p in arguments.paths for f in (sorted(p.glob("*.onnx")) if p.is_dir() else [p])]
    rows = []
    for number, path in enumerate(files, 1):
        rows.append(measure_apart(path, arguments))
        print(f"[{number}/{len(files)}] {path.name}: {rows[-1].error or 'ok'}", file=sys.stderr)
        if arguments.json:
            document = {"schema_version": 1, "target": arguments.target, "cpus": os.cpu_count()}
            document["rows"] = [asdict(row) for row in rows]
            arguments.json.write_text(json.dumps(document, indent=1))
    print(markdown(rows))
    good = [
        not row.error
        and set(row.runs.values()) == {"ok"}
        and row.macs_counted is not None
        and row.macs_counted <= arguments.target
        for row in rows
    ]
    print(f"{sum(good)} of {len(rows)} as they should be", file=sys.stderr)
    return int(not all(good))


if __name__ == "__main__":
    sys.exit(main())
