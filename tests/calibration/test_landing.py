"""Where a layer's output goes: biases, sums, and what must not be followed."""

from __future__ import annotations

import onnx
from networks import build
from onnx import helper

from graphprune import analyze, load
from graphprune.calibration.evidence import Consumer, Evidence


def consumers(model: onnx.ModelProto) -> dict[str | None, Consumer]:
    """By output."""
    return {c.layer.output.name: c for c in Evidence(analyze(load(model))).consumers}


def of(body: str, outputs: str = "float[batch, 6] y", **weights: tuple[int, ...]) -> onnx.ModelProto:
    shapes = {"u": (6, 6), "v": (6, 6), "b": (6,), "c": (6,)} | weights
    used = {name: shape for name, shape in shapes.items() if f"{name})" in body or f"{name}," in body}
    return build(f"(float[batch, 6] x) => ({outputs})", body, used)


def test_biases_and_the_sum_behind_them() -> None:
    found = consumers(of("p = MatMul (x, u) q = Add (b, p) r = Add (q, c) y = Add (x, r)"))["p"].landing
    assert [index for _, index in found.biases] == [0, 1]
    assert found.value.name == "y"
    assert [v.name for v in found.others] == ["x"]
    assert found.term is not None
    assert found.term.name == "r"


def test_the_nearest_operand_comes_first() -> None:
    found = consumers(of("p = MatMul (x, u) m = Relu (x) q = Add (p, m) y = Add (x, q)"))["p"].landing
    assert [v.name for v in found.others] == ["m", "x"]


def test_nothing_is_followed_past_another_reader() -> None:
    found = consumers(of("p = MatMul (x, u) q = Add (p, b) r = Relu (p) y = Add (q, r)"))["p"].landing
    assert (found.value.name, found.biases, found.others) == ("p", (), ())
    found = consumers(of("p = MatMul (x, u) y = Add (p, b)", "float[batch, 6] p, float[batch, 6] y"))[
        "p"
    ].landing
    assert found.value.name == "p"
    found = consumers(of("p = MatMul (x, u) y = Add (p, p)"))["p"].landing
    assert found.value.name == "p"


def test_nothing_is_followed_into_a_body() -> None:
    """A branch runs perhaps never: its sum is not the layer's."""
    model = of("p = MatMul (x, u) y = Identity (p)")
    del model.graph.node[-1]
    bias = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(model.graph.initializer[0])[0], "b")
    model.graph.initializer.append(bias)
    model.graph.input.append(helper.make_tensor_value_info("flag", onnx.TensorProto.BOOL, [1]))
    bodies = {}
    for branch, inputs in {"then_branch": ["p", "b"], "else_branch": ["x", "b"]}.items():
        value = helper.make_tensor_value_info(f"{branch}_sum", onnx.TensorProto.FLOAT, ["batch", 6])
        node = helper.make_node("Add", inputs, [f"{branch}_sum"], name=branch)
        bodies[branch] = helper.make_graph([node], branch, [], [value])
    model.graph.node.append(helper.make_node("If", ["flag"], ["y"], name="If", **bodies))
    found = consumers(model)["p"].landing
    assert (found.value.name, found.biases, found.importance) == ("p", (), None)
