"""A model that counts as large, for tests of what is done in parts."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphprune import by_parts, parts
from graphprune.calibration import by_parts as calibration

WIDTH, INNER, LAYERS = 8, 32, 6


def residual(scale: float = 1.0) -> onnx.ModelProto:
    """A stream, and branches of two products that are added to it."""
    rng = np.random.default_rng(0)
    nodes, weights, stream = [], [], "x"
    for i in range(LAYERS):
        for name, shape in (("up", (WIDTH, INNER)), ("down", (INNER, WIDTH))):
            array = rng.standard_normal(shape, np.float32) / np.sqrt(shape[0], dtype=np.float32)
            weights.append(numpy_helper.from_array(array, f"{name}_{i}"))
        weights.append(numpy_helper.from_array(np.float32(scale), f"scale_{i}"))
        nodes += [
            helper.make_node("MatMul", [stream, f"up_{i}"], [f"hidden_{i}"]),
            helper.make_node("Relu", [f"hidden_{i}"], [f"active_{i}"]),
            helper.make_node("MatMul", [f"active_{i}", f"down_{i}"], [f"branch_{i}"]),
            helper.make_node("Mul", [f"branch_{i}", f"scale_{i}"], [f"scaled_{i}"]),
            helper.make_node("Add", [stream, f"scaled_{i}"], [f"stream_{i}"]),
        ]
        stream = f"stream_{i}"
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])
    y = helper.make_tensor_value_info(stream, TensorProto.FLOAT, ["batch", WIDTH])
    graph = helper.make_graph(nodes, "residual", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of a few kilobytes are large, and a part holds one layer."""
    monkeypatch.setattr(parts, "LARGE_BYTES", 64)
    monkeypatch.setattr(parts, "BIG_BYTES", 1 << 10)
    monkeypatch.setattr(by_parts, "PART_BYTES", 2 * 4 * WIDTH * INNER + 64)
    monkeypatch.setattr(calibration, "PART_BYTES", 2 * 4 * WIDTH * INNER + 64)
