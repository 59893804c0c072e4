"""Layers as matrices: rows times matrices are what onnxruntime computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import build, feeds, initializer, run
from onnx import helper

from graphprune.calibration.linear import Linear, linear_of
from graphprune.model import load

Array = npt.NDArray[np.generic]


def layer_of(proto: onnx.ModelProto) -> Linear:
    layer = linear_of(next(iter(load(proto).ir.graph)))
    assert layer is not None
    return layer


def expected_rows(layer: Linear, output: Array, bias: Array | None) -> Array:
    """What the layer makes, by hand: features last, all else in order; without the bias."""
    moved = np.moveaxis(output, layer.feature_axis, -1).reshape(-1, output.shape[layer.feature_axis])
    rows = moved - (0 if bias is None else bias)
    return np.stack(np.split(rows, layer.groups, axis=1))


def require_exact(proto: onnx.ModelProto, batch: int = 3, time: int = 5) -> None:
    """All rows give onnxruntime's output, and picked rows are those of all."""
    layer = layer_of(proto)
    names = [t.name for t in proto.graph.initializer]
    weight = initializer(proto, "w")
    bias = initializer(proto, "b") if "b" in names else None
    inputs = feeds(proto, batch=batch, time=time)
    (output,) = run(proto, inputs)
    data = inputs["x"]
    matrices = layer.matrices(weight)
    rows = layer.rows(data)
    assert rows.shape == (layer.groups, len(data) * layer.positions(output.shape), layer.features)
    assert rows.dtype == np.float32
    assert matrices.shape == (layer.groups, layer.features, weight.shape[layer.made] // layer.groups)
    np.testing.assert_allclose(rows @ matrices, expected_rows(layer, output, bias), atol=1e-5)
    np.testing.assert_array_equal(layer.weights(matrices, weight.shape), weight.astype(np.float64))

    targets = layer.targets(output)
    there = layer.positions(output.shape)
    pick = np.random.default_rng(1).integers(0, there, (len(data), 4))
    at = (np.arange(len(data))[:, None] * there + pick).ravel()
    np.testing.assert_array_equal(layer.rows(data, pick), rows[:, at])
    np.testing.assert_array_equal(layer.targets(output, pick), targets[:, at])

    # Single positions in any order; neither all samples nor as many of each.
    at = np.random.default_rng(2).permutation(len(data) * there)[: 2 * there]
    sample, position = np.divmod(at, there)
    np.testing.assert_array_equal(layer.rows_at(data, sample, position), rows[:, at])
    np.testing.assert_array_equal(layer.at(output, sample, position), np.concatenate(targets[:, at], axis=1))
    if layer.window is not None:
        assert layer.window.out_sizes(data.shape[2:]) == output.shape[2:]


def convolution(spatial: int, channels: int, made: int, kernel: int, **attributes: Any) -> onnx.ModelProto:
    """One Conv over axes of sizes 7, 8, 9."""
    sizes = ", ".join(str(7 + i) for i in range(spatial))
    given = {k: v if isinstance(v, str) else str(v) for k, v in attributes.items()}
    text = ", ".join(f'{k} = "{v}"' if k == "auto_pad" else f"{k} = {v}" for k, v in given.items())
    outputs = ", ".join(["batch", str(made), *"abc"[:spatial]])
    group = int(given.get("group", 1))
    return build(
        f"(float[batch, {channels}, {sizes}] x) => (float[{outputs}] y)",
        f"y = Conv {f'<{text}>' if text else ''} (x, w, b)",
        {"w": (made, channels // group, *(kernel,) * spatial), "b": (made,)},
    )


CONVOLUTIONS: list[tuple[int, int, int, int, dict[str, Any]]] = [
    (1, 3, 4, 3, {}),
    (1, 3, 4, 3, {"strides": [2], "pads": [0, 2]}),
    (1, 4, 6, 2, {"strides": [3], "auto_pad": "SAME_LOWER"}),
    (2, 3, 4, 3, {"pads": [1, 1, 1, 1]}),
    (2, 3, 4, 3, {"pads": [0, 2, 1, 0], "strides": [2, 1], "dilations": [1, 2]}),
    (2, 3, 4, 3, {"auto_pad": "SAME_UPPER", "strides": [2, 3]}),
    (2, 3, 4, 4, {"auto_pad": "SAME_LOWER", "strides": [3, 2]}),
    (2, 3, 4, 2, {"auto_pad": "VALID", "dilations": [2, 3]}),
    (2, 3, 4, 3, {"auto_pad": "VALID", "strides": [2, 2]}),
    (2, 4, 6, 3, {"group": 2, "pads": [1, 1, 1, 1]}),
    (2, 4, 8, 3, {"group": 4, "strides": [2, 2]}),
    (2, 4, 4, 3, {"group": 4, "pads": [1, 0, 0, 1]}),
    (2, 3, 4, 1, {}),
    (2, 4, 6, 1, {"group": 2, "strides": [2, 3]}),
    (2, 3, 4, 1, {"pads": [1, 0, 0, 2]}),
    (2, 3, 4, 1, {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    (3, 2, 3, 2, {"strides": [2, 1, 2], "pads": [1, 0, 0, 0, 1, 1]}),
    (3, 4, 4, 2, {"group": 2, "dilations": [2, 1, 3]}),
    (3, 2, 4, 1, {"strides": [2, 2, 1]}),
]


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=lambda c: f"{c[0]}d-{c[3]}-{'-'.join(c[4]) or 'plain'}")
def test_convolution(case: tuple[int, int, int, int, dict[str, Any]]) -> None:
    spatial, channels, made, kernel, attributes = case
    require_exact(convolution(spatial, channels, made, kernel, **attributes))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data())
def test_any_convolution(data: st.DataObject) -> None:
    spatial = data.draw(st.integers(1, 2))
    group, per, made = (data.draw(st.integers(1, 3)) for _ in range(3))
    kernel = data.draw(st.integers(1, 3))
    attributes: dict[str, Any] = {"strides": [data.draw(st.integers(1, 3)) for _ in range(spatial)]}
    auto = data.draw(st.sampled_from(["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    if not auto.startswith("SAME"):  # onnxruntime wants no dilation with these
        attributes["dilations"] = [data.draw(st.integers(1, 3)) for _ in range(spatial)]
    if auto == "NOTSET":
        attributes["pads"] = [data.draw(st.integers(0, 2)) for _ in range(2 * spatial)]
    else:
        attributes["auto_pad"] = auto
    require_exact(convolution(spatial, group * per, group * made, kernel, group=group, **attributes), batch=2)


DENSE = {
    "gemm": ("(float[batch, 6] x) => (float[batch, 4] y)", "y = Gemm (x, w, b)", (6, 4), (4,)),
    "gemm, turned": (
        "(float[batch, 6] x) => (float[batch, 4] y)", "y = Gemm <transB = 1> (x, w, b)", (4, 6), (4,)
    ),
    "gemm without bias": ("(float[batch, 6] x) => (float[batch, 4] y)", "y = Gemm (x, w)", (6, 4), None),
    "rows": ("(float[batch, 6] x) => (float[batch, 4] y)", "y = MatMul (x, w)", (6, 4), None),
    "tokens": ("(float[batch, time, 6] x) => (float[batch, time, 4] y)", "y = MatMul (x, w)", (6, 4), None),
    "heads": (
        "(float[batch, 2, time, 6] x) => (float[batch, 2, time, 4] y)", "y = MatMul (x, w)", (6, 4), None
    ),
    "left": ("(float[batch, 6, time] x) => (float[batch, 4, time] y)", "y = MatMul (w, x)", (4, 6), None),
    "left, 4-D": (
        "(float[batch, 2, 6, time] x) => (float[batch, 2, 4, time] y)", "y = MatMul (w, x)", (4, 6), None
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DENSE)
def test_dense(name: str) -> None:
    signature, body, weight, bias = DENSE[name]
    require_exact(build(signature, body, {"w": weight, **({"b": bias} if bias else {})}))


def node(kind: str, data: int, weight: tuple[int, ...], **attributes: Any) -> ir.Node:
    """A node whose data has this rank, with a weight of this shape."""
    shape = ["n", *(None for _ in range(data - 1))]
    inputs = ["w", "x"] if attributes.pop("left", 0) else ["x", "w"]
    proto = helper.make_model(
        helper.make_graph(
            [helper.make_node(kind, inputs, ["y"], **attributes)],
            "one",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
            [onnx.numpy_helper.from_array(np.zeros(weight, np.float32), "w")],
        ),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=9,
    )  # fmt: skip
    return next(iter(ir.serde.deserialize_model(proto).graph))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    group=st.integers(1, 4),
    per=st.integers(1, 4),
    made=st.integers(1, 4),
    kernel=st.lists(st.integers(1, 3), min_size=0, max_size=3),
    turned=st.booleans(),
)
def test_matrices_and_back(group: int, per: int, made: int, kernel: list[int], turned: bool) -> None:
    if kernel:
        shape = (group * made, per, *kernel)
        layer = linear_of(node("Conv", 2 + len(kernel), shape, group=group))
    else:
        shape = (made, per)
        layer = linear_of(node("MatMul", 3, shape, left=1) if turned else node("Gemm", 2, shape, transB=1))
    assert layer is not None
    weight = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    matrices = layer.matrices(weight)
    assert np.array_equal(layer.weights(matrices, shape), weight)
    assert np.array_equal(layer.updated(weight, matrices), weight)
    # A feature belongs to one channel: zero that channel, and exactly its rows of the matrices go.
    for channel in range(per):
        less = weight + 1
        less = np.where(np.arange(per).reshape((1, per, *[1] * len(kernel))) == channel, 0, less)
        gone = layer.features_of(np.array([channel]), shape).ravel()
        left = layer.matrices(less)
        assert not left[:, gone].any()
        assert np.delete(left, gone, axis=1).all()


@pytest.mark.parametrize(
    "other",
    [
        node("Gemm", 2, (6, 4), transA=1),
        node("Gemm", 2, (6, 4), alpha=0.5),
        node("MatMul", 3, (2, 6, 4)),
        node("MatMul", 2, (4, 6), left=1),
        node("Mul", 2, (4, 6)),
        node("ConvTranspose", 4, (4, 6, 3, 3)),
    ],
    ids=lambda n: n.op_type,
)
def test_other_forms_are_left_alone(other: ir.Node) -> None:
    assert linear_of(other) is None


def test_a_weight_that_callers_may_replace_is_data() -> None:
    proto = build("(float[n, 4] x, float[4, 3] w) => (float[n, 3] y)", "y = MatMul (x, w)", {"w": (4, 3)})
    assert linear_of(next(iter(load(proto).ir.graph))) is None
