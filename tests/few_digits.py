"""Small networks in types of few digits."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import ml_dtypes
import networks
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT
TYPES = {TensorProto.FLOAT16: np.float16, TensorProto.BFLOAT16: ml_dtypes.bfloat16}
_LAYERS = ("Conv", "MatMul", "Gemm")


def mlp(width: int = 64, *, seed: int = 0, opset: int = 22) -> onnx.ModelProto:
    """Two residual blocks with a norm each; hidden units that say much the same as others do."""
    rng = np.random.default_rng(seed)
    weights: dict[str, networks.Array] = {}
    body, x = "", "x"
    for b in ("a", "b"):
        mixed = rng.standard_normal((24, width // 3)) @ rng.standard_normal((width // 3, width)) / 40
        weights |= {
            f"{b}.up.w": (mixed + 0.02 * rng.standard_normal((24, width))).astype(np.float32),
            f"{b}.up.b": (0.1 * rng.standard_normal(width)).astype(np.float32),
            f"{b}.down.w": (rng.standard_normal((width, 24)) / 8).astype(np.float32),
            f"{b}.down.b": (0.1 * rng.standard_normal(24)).astype(np.float32),
            f"{b}.scale": (1 + 0.1 * rng.standard_normal(24)).astype(np.float32),
            f"{b}.shift": (0.1 * rng.standard_normal(24)).astype(np.float32),
        }
        body += f"""
            {b}n = LayerNormalization ({x}, {b}.scale, {b}.shift)
            {b}um = MatMul ({b}n, {b}.up.w) {b}u = Add ({b}um, {b}.up.b) {b}r = Relu ({b}u)
            {b}dm = MatMul ({b}r, {b}.down.w) {b}d = Add ({b}dm, {b}.down.b) {b}y = Add ({x}, {b}d)
        """
        x = f"{b}y"
    weights["head.w"] = (rng.standard_normal((24, 5)) / 5).astype(np.float32)
    body += f"y = MatMul ({x}, head.w)"
    return networks.build("(float[batch, 7, 24] x) => (float[batch, 7, 5] y)", body, weights, opset=opset)


def samples(count: int = 64, seed: int = 0) -> dict[str, networks.Array]:
    """For :func:`mlp`."""
    return {"x": np.random.default_rng(seed).standard_normal((count, 7, 24)).astype(np.float32)}


def in_type(model: onnx.ModelProto, dtype: int) -> onnx.ModelProto:
    """The whole model in one type."""
    copy = _copy(model)
    for tensor in copy.graph.initializer:
        _recast(tensor, dtype)
    for value in (*copy.graph.input, *copy.graph.output):
        value.type.tensor_type.elem_type = dtype
    return copy


def mixed(model: onnx.ModelProto, dtype: int) -> onnx.ModelProto:
    """Layers in one type, everything else in float32, as automatic mixed precision writes it."""
    copy = _copy(model)
    constants = {tensor.name: tensor for tensor in copy.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in copy.graph.node:
        if node.op_type not in _LAYERS:
            nodes.append(node)
            continue
        for i, name in enumerate(node.input):
            if name in constants:
                _recast(constants[name], dtype)
            else:
                node.input[i] = f"{name}/{node.output[0]}"
                nodes.append(helper.make_node("Cast", [name], [node.input[i]], to=dtype))
        result = node.output[0]
        node.output[0] = f"{result}/narrow"
        nodes += [node, helper.make_node("Cast", [node.output[0]], [result], to=FLOAT)]
    return _with_nodes(copy, nodes)


def stored(model: onnx.ModelProto, dtype: int) -> onnx.ModelProto:
    """Matrices are stored in one type, and cast to float32 before they are used."""
    copy = _copy(model)
    casts = []
    for tensor in copy.graph.initializer:
        if len(tensor.dims) > 1:
            _recast(tensor, dtype)
            name, tensor.name = tensor.name, f"{tensor.name}/stored"
            casts.append(helper.make_node("Cast", [tensor.name], [name], to=FLOAT))
    return _with_nodes(copy, [*casts, *copy.graph.node])


def dequantized(model: onnx.ModelProto, dtype: type, block: int = 0, axis: int = 1) -> onnx.ModelProto:
    """Matrices as integers or floats of few bits that are dequantized, a scale for each column or block."""
    copy = _copy(model)
    nodes, constants = [], []
    most = 7 if dtype == ml_dtypes.int4 else 127
    if dtype == ml_dtypes.float8_e4m3fn:
        most = 448
    for tensor in copy.graph.initializer:
        if len(tensor.dims) < 2:
            constants.append(tensor)
            continue
        array = numpy_helper.to_array(tensor)
        rows = len(array) // block if block else 1
        blocks = array.reshape(rows, -1, array.shape[1])
        scale = np.abs(blocks).max(axis=1) / most
        steps = (blocks / scale[:, None]).reshape(array.shape)
        steps = steps if dtype == ml_dtypes.float8_e4m3fn else np.rint(steps)
        constants.append(numpy_helper.from_array(steps.astype(dtype), f"{tensor.name}/steps"))
        scale = scale if block else scale[0]
        constants.append(numpy_helper.from_array(scale.astype(np.float32), f"{tensor.name}/scale"))
        given = {"axis": 0, "block_size": block} if block else {"axis": axis}
        names = [f"{tensor.name}/steps", f"{tensor.name}/scale"]
        nodes.append(helper.make_node("DequantizeLinear", names, [tensor.name], **given))
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(constants)
    return _with_nodes(copy, [*nodes, *copy.graph.node])


def packed(
    model: onnx.ModelProto, block: int = 16, *, bits: int = 4, points: bool = False
) -> onnx.ModelProto:
    """Products with constant matrices as MatMulNBits, as weight-only quantizers write them."""
    copy = _copy(model)
    constants = {tensor.name: tensor for tensor in copy.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    kept = dict(constants)
    for node in copy.graph.node:
        if node.op_type != "MatMul" or node.input[1] not in constants:
            nodes.append(node)
            continue
        name = node.input[1]
        array = numpy_helper.to_array(constants[name]).astype(np.float64)
        k, n = array.shape
        blocks = -(-k // block)
        rows = np.zeros((n, blocks * block))
        rows[:, :k] = array.T
        rows = rows.reshape(n, blocks, block)
        middle = 1 << (bits - 1)
        scale = np.maximum(np.abs(rows).max(axis=-1), 1e-6) / (middle - 1)
        codes = np.clip(np.rint(rows / scale[..., None]) + middle, 0, 2 * middle - 1).astype(np.uint8)
        if bits == 4:
            codes = codes[..., ::2] | (codes[..., 1::2] << 4)
        del kept[name]
        parts = {"codes": codes, "scales": scale.astype(np.float32).reshape(-1)}
        if points:
            zero = np.full((n, blocks), middle, np.uint8)
            zero = np.pad(zero, ((0, 0), (0, blocks % 2))) if bits == 4 else zero
            parts["points"] = (zero[:, ::2] | (zero[:, 1::2] << 4)) if bits == 4 else zero
        for part, values in parts.items():
            kept[f"{name}/{part}"] = numpy_helper.from_array(values, f"{name}/{part}")
        inputs = [node.input[0], *(f"{name}/{part}" for part in parts)]
        sizes = {"K": k, "N": n, "bits": bits, "block_size": block}
        nodes.append(
            helper.make_node("MatMulNBits", inputs, list(node.output), domain="com.microsoft", **sizes)
        )
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(kept.values())
    copy.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return _with_nodes(copy, nodes)


#: Name -> a way to write :func:`mlp` with few digits.
WAYS: dict[str, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
    "float16": lambda m: in_type(m, TensorProto.FLOAT16),
    "bfloat16": lambda m: in_type(m, TensorProto.BFLOAT16),
    "mixed float16": lambda m: mixed(m, TensorProto.FLOAT16),
    "mixed bfloat16": lambda m: mixed(m, TensorProto.BFLOAT16),
    "stored in float16": lambda m: stored(m, TensorProto.FLOAT16),
    "int8 weights": lambda m: dequantized(m, np.int8),
    "int4 weights in blocks": lambda m: dequantized(m, ml_dtypes.int4, block=8),
    "float8 weights": lambda m: dequantized(m, ml_dtypes.float8_e4m3fn),
    "MatMulNBits": lambda m: packed(m, 16),
    "MatMulNBits with zero points": lambda m: packed(m, 16, points=True),
    "MatMulNBits of 8 bits": lambda m: packed(m, 16, bits=8),
    "MatMulNBits in float16": lambda m: in_type(packed(m, 16), TensorProto.FLOAT16),
    "int8 weights in float16": lambda m: in_type(dequantized(m, np.int8), TensorProto.FLOAT16),
}


def types_of(model: onnx.ModelProto) -> dict[int, int]:
    """Number of constants of each type."""
    found: dict[int, int] = {}
    for tensor in model.graph.initializer:
        found[tensor.data_type] = found.get(tensor.data_type, 0) + 1
    return found


def arrays_of(model: onnx.ModelProto) -> Iterator[tuple[str, networks.Array]]:
    """Constants in float64, by name."""
    for tensor in model.graph.initializer:
        yield tensor.name, numpy_helper.to_array(tensor).astype(np.float64)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.ir_version = 10
    return copy


def _with_nodes(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    found = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(found)
    return model


def _recast(tensor: onnx.TensorProto, dtype: int) -> None:
    if tensor.data_type == FLOAT:
        array = numpy_helper.to_array(tensor).astype(TYPES[dtype])
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
