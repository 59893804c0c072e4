"""What the zoo measures without graphprune: multiply-adds, parameters, runs, and a masked original.

Nothing here imports graphprune: what it says is not taken on trust.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx

#: (batch, sequence, past).  At the first, graphprune's nominal sizes, multiply-adds are counted: the share
#: of attention in them grows with the sequence, so a target is only met or missed at given sizes.
SIZES = ((1, 128, 128), (5, 16, 9), (2, 29, 3))
MULTIPLYING = ("Conv", "ConvTranspose", "MatMul", "Gemm", "LSTM", "GRU", "RNN", "Einsum")
FLOATING = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
SMALLEST_VOCABULARY = 64


def exporter_of(model: onnx.ModelProto) -> str:
    """Who wrote the file: both torch exporters call themselves pytorch, one adds metadata."""
    if model.producer_name == "pytorch":
        entries = (entry for node in model.graph.node for entry in node.metadata_props)
        marked = any(entry.key.startswith("pkg.torch") for entry in entries)
        return "dynamo" if marked else "legacy"
    return model.producer_name or "unnamed"


def size_of(axis: onnx.TensorShapeProto.Dimension, index: int, sizes: tuple[int, int, int]) -> int:
    """A fixed size, or the one that the axis' name and place suggest; sums of names are added up."""
    if axis.dim_value:
        return axis.dim_value
    batch, sequence, past = sizes
    total = 0
    for name in axis.dim_param.split("+"):
        word = name.strip().lower()
        if "past" in word:
            total += past
        elif any(part in word for part in ("seq", "len", "time")):
            total += sequence
        else:
            total += batch if index == 0 or word in ("batch", "b") else sequence
    return total


def feed_for(model: onnx.ModelProto, sizes: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """Random inputs at these sizes; masks are ones."""
    rng = np.random.default_rng(sizes[0] * 1000 + sizes[1])
    constants = {tensor.name for tensor in model.graph.initializer}
    feed: dict[str, np.ndarray] = {}
    for value in model.graph.input:
        if value.name in constants:
            continue
        tensor = value.type.tensor_type
        shape = [size_of(axis, index, sizes) for index, axis in enumerate(tensor.shape.dim)]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if np.issubdtype(dtype, np.floating):
            feed[value.name] = rng.standard_normal(shape).astype(dtype)
        elif "mask" in value.name or dtype == np.bool_:
            feed[value.name] = np.ones(shape, dtype)
        else:
            feed[value.name] = rng.integers(0, SMALLEST_VOCABULARY, shape).astype(dtype)
    return feed


def open_session(model: onnx.ModelProto | Path, *, optimize: bool = True) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def constants_of(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Initializers and the tensors of Constant nodes."""
    found = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = node.attribute[0].t
    return found


def values_at(model: onnx.ModelProto, names: list[str], sizes: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """What intermediate values are in one actual run."""
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    outputs = {value.name for value in model.graph.output}
    tapped.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in outputs)
    if not names:
        return {}
    arrays = open_session(tapped, optimize=False).run(names, feed_for(model, sizes))
    return dict(zip(names, arrays, strict=True))


def count_macs(model: onnx.ModelProto, sizes: tuple[int, int, int]) -> int:
    """Multiply-adds in one actual run; the operands are made outputs and their shapes read."""
    nodes = [node for node in model.graph.node if node.op_type in MULTIPLYING]
    shapes = {name: tuple(tensor.dims) for name, tensor in constants_of(model).items()}
    shapes |= {name: array.shape for name, array in feed_for(model, sizes).items()}
    wanted = [name for node in nodes for name in (*node.input, *node.output) if name]
    wanted = [name for name in dict.fromkeys(wanted) if name not in shapes]
    shapes |= {name: array.shape for name, array in values_at(model, wanted, sizes).items()}
    return sum(node_macs(node, shapes) for node in nodes)


def node_macs(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    first, second = shapes[node.input[0]], shapes.get(node.input[1] if len(node.input) > 1 else "", ())
    output = next(shapes[name] for name in node.output if name)
    if node.op_type == "Conv":  # weight (M, C/group, k...): each output element reads C/group * k
        return int(np.prod(output) * np.prod(second[1:]))
    if node.op_type == "ConvTranspose":  # weight (C, M/group, k...): each input element is spread
        return int(np.prod(first) * np.prod(second[1:]))
    if node.op_type in ("LSTM", "GRU", "RNN"):  # at each step of each sample, all of W and R
        return int(first[0] * first[1] * (np.prod(second) + np.prod(shapes[node.input[2]])))
    if node.op_type == "Einsum":
        return einsum_macs(node.attribute[0].s.decode(), [shapes[name] for name in node.input])
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return int(np.prod(output) * first[0 if transposed else -1])


def einsum_macs(equation: str, shapes: list[tuple[int, ...]]) -> int:
    """Operands are taken in one after the other; each step runs over all letters of the two at hand."""
    left, _, result = equation.replace(" ", "").partition("->")
    terms, sizes = [], dict[str, int]()
    for term, shape in zip(left.split(","), shapes, strict=True):
        spread = len(shape) - len(term.replace("...", ""))  # axes under the dots, counted from the last
        term = term.replace("...", "".join(str(k) for k in reversed(range(spread))))
        sizes |= {letter: max(n, sizes.get(letter, 1)) for letter, n in zip(term, shape, strict=True)}
        terms.append(set(term))
    kept = set(result) | {letter for letter in sizes if letter.isdigit()}
    total, here = 0, terms[0]
    for step, term in enumerate(terms[1:], 1):
        step_letters = here | term
        total += int(np.prod([sizes[letter] for letter in step_letters], dtype=np.int64))
        here = step_letters & kept.union(*terms[step + 1 :])
    return total


def count_params(model: onnx.ModelProto) -> int:
    """Elements of the floating-point constants, as they stand in the file."""
    tensors = constants_of(model).values()
    return sum(int(np.prod(tensor.dims)) for tensor in tensors if tensor.data_type in FLOATING)


def run_pruned(original: onnx.ModelProto, pruned: Path) -> dict[str, str]:
    """Open and run the pruned file at every size; the outputs keep the original's shapes."""
    session, reference = open_session(pruned), open_session(original)
    results = {}
    for sizes in SIZES:
        key, feed = "x".join(map(str, sizes)), feed_for(original, sizes)
        try:
            expected = reference.run(None, feed)
        except Exception:  # a size that the model as exported can't take says nothing about the cut
            results[key] = "original does not run"
            continue
        try:
            outputs = session.run(None, feed)
            shapes = [(a.shape, b.shape) for a, b in zip(outputs, expected, strict=True)]
            finite = all(np.isfinite(a).all() for a in outputs if a.dtype.kind == "f")
            wrong = next((f"{a} for {b}" for a, b in shapes if a != b), "")
            results[key] = wrong or ("ok" if finite else "not finite")
        except Exception as error:  # onnxruntime raises its own classes, none of them public
            results[key] = str(error).splitlines()[0][:200]
    return results


def mask(original: onnx.ModelProto, plan: dict[str, Any]) -> onnx.ModelProto | None:
    """The original with the slices that a plan removes set to zero; None where zeros can't say it.

    Zeros say it for exact groups only.  A parameter may be an initializer, a Constant node's output or
    a value that the graph computes from constants, and one entry may hold for some of its uses.
    """
    if not all(group["exact"] for group in plan["groups"] if len(group["keep"]) < group["size"]):
        return None
    masked = onnx.ModelProto()
    masked.CopyFrom(original)
    constants = constants_of(masked)
    computed = [p["name"] for p in plan["parameters"] if p["name"] not in constants]
    made = {name for node in masked.graph.node for name in node.output}
    if not set(computed) <= made:
        return None
    arrays = values_at(original, list(dict.fromkeys(computed)), SIZES[-1])
    arrays |= {
        p["name"]: onnx.numpy_helper.to_array(constants[p["name"]])
        for p in plan["parameters"]
        if p["name"] in constants
    }
    consumers = {node.output[0]: node for node in masked.graph.node}
    zeroed: dict[tuple[str, str], np.ndarray] = {}
    for parameter in plan["parameters"]:
        removed = np.setdiff1d(np.arange(parameter["size"]), parameter["keep"])
        for use in parameter.get("uses") or [""]:
            key = (parameter["name"], use)
            array = zeroed.setdefault(key, arrays[parameter["name"]].copy())
            np.moveaxis(array, parameter["axis"], 0)[removed] = 0
    for (name, use), array in zeroed.items():
        if not use:
            replace_everywhere(masked, name, array)
            continue
        output, index = use.rsplit(":", 1)
        if output not in consumers:
            return None
        new = f"{name}/zeroed/{use}"
        masked.graph.initializer.append(onnx.numpy_helper.from_array(array, new))
        consumers[output].input[int(index)] = new
    return masked


def replace_everywhere(model: onnx.ModelProto, name: str, array: np.ndarray) -> None:
    """All readers of a value read this array instead."""
    new = f"{name}/zeroed"
    model.graph.initializer.append(onnx.numpy_helper.from_array(array, new))
    for node in model.graph.node:
        for index, read in enumerate(node.input):
            if read == name:
                node.input[index] = new


def masked_error(original: onnx.ModelProto, plan_file: Path, pruned: Path) -> tuple[float, float] | None:
    """Largest difference from the masked original, and how far masking moved the outputs at all.

    Both over the largest output, at sizes that nothing was traced at.  Where the second is 0, the first
    proves nothing.
    """
    masked = mask(original, json.loads(plan_file.read_text()))
    if masked is None:
        return None
    feed = feed_for(original, SIZES[-1])
    before, expected = open_session(original).run(None, feed), open_session(masked).run(None, feed)
    if any(np.isnan(array).any() for array in expected if array.dtype.kind == "f"):
        return None  # a division by a length of zeros, for one: zeros can't say it
    outputs = open_session(pruned).run(None, feed)
    floating = [i for i, array in enumerate(expected) if array.dtype.kind == "f"]

    def apart(others: list[np.ndarray]) -> float:
        scales = [max(float(np.abs(expected[i]).max()), 1e-12) for i in floating]
        differences = [float(np.abs(expected[i] - others[i]).max()) for i in floating]
        return float(np.max(np.divide(differences, scales)))  # NaN stays NaN

    return apart(outputs), apart(before)
