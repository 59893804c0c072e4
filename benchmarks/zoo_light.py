"""The "light" networks that ship inside the onnx wheel: old opsets, weights made by ConstantOfShape nodes."""

from __future__ import annotations

import fnmatch
import importlib.util
from pathlib import Path

import numpy as np
import onnx
from zoo_spec import SEED


def light_files() -> list[Path]:
    """Those in the installed wheel; found without importing the test package, which needs pytest."""
    found = importlib.util.find_spec("onnx")
    root = Path(found.origin).parent if found is not None and found.origin else Path()
    return sorted(root.glob("backend/test/data/light/light_*.onnx"))


def with_random_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with an initializer in place of each ConstantOfShape node.

    Weights of one value hide every wrong index, and give NaN or an output that ignores the image.
    """
    rng = np.random.default_rng(SEED)
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    role = {name: (node.op_type, i) for node in model.graph.node for i, name in enumerate(node.input)}
    kept = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape" or node.input[0] not in constants:
            kept.append(node)
            continue
        shape = tuple(int(n) for n in constants[node.input[0]])
        (name,) = node.output
        if role.get(name) in (("BatchNormalization", 1), ("BatchNormalization", 4)):
            value = rng.uniform(0.75, 1.5, shape)
        elif len(shape) > 1:
            value = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        else:
            value = 0.02 * rng.standard_normal(shape)
        model.graph.initializer.append(onnx.numpy_helper.from_array(value.astype(np.float32), name))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    show_logits(model)
    set_statistics(model, rng)
    return model


def show_logits(model: onnx.ModelProto) -> None:
    """Takes the softmax off the end: that of an untrained network hides differences."""
    last = model.graph.node[-1]
    if last.op_type == "Softmax":
        model.graph.output[0].name = last.input[0]
        model.graph.node.remove(last)


def set_statistics(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Takes the statistics of each BatchNormalization from one image, in their order."""
    import onnxruntime

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    (data,) = (value for value in model.graph.input if value.name not in tensors)
    shape = [axis.dim_value for axis in data.type.tensor_type.shape.dim]
    feed = {data.name: rng.standard_normal(shape).astype(np.float32)}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    for node in [node for node in model.graph.node if node.op_type == "BatchNormalization"]:
        part = onnx.ModelProto()
        part.CopyFrom(model)
        del part.graph.output[:]
        part.graph.output.append(onnx.ValueInfoProto(name=node.input[0]))
        session = onnxruntime.InferenceSession(part.SerializeToString(), options)
        (x,) = session.run(None, feed)
        for name, value in ((node.input[3], x.mean((0, 2, 3))), (node.input[4], x.var((0, 2, 3)) + 1e-3)):
            tensors[name].CopyFrom(onnx.numpy_helper.from_array(value.astype(np.float32), name))


def write_light(folder: Path, globs: list[str], force: bool) -> None:
    """Each network as it is, and with random weights."""
    for source in light_files():
        for kind in ("wheel", "random.wheel"):
            path = folder / f"{source.stem}.{kind}.onnx"
            if not any(fnmatch.fnmatch(path.name, glob) for glob in globs) or (path.exists() and not force):
                continue
            model = onnx.load(source)
            onnx.save(model if kind == "wheel" else with_random_weights(model), path)
            print(f"{path.name:44}   copied from the onnx wheel", flush=True)
