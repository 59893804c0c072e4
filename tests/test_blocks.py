"""Residual branches and layers of equal shape go as a whole."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from networks import build

import graphprune as gp
from graphprune.errors import PlanError
from graphprune.plan import ParameterPlan
from graphprune.planner import make_plan

WIDTH, INNER = 8, 12


def residual() -> onnx.ModelProto:
    """Two residual branches, the second behind a projection."""
    body = """
        h = MatMul(x, up1) r = Relu(h) d = MatMul(r, down1) e = Add(d, bias1) x1 = Add(x, e)
        g = MatMul(x1, up2) s = Relu(g) f = MatMul(s, down2) p = MatMul(x1, project) x2 = Add(p, f)
        y = MatMul(x2, head)"""
    weights = {
        "up1": (WIDTH, INNER), "down1": (INNER, WIDTH), "bias1": (WIDTH,), "up2": (WIDTH, INNER),
        "down2": (INNER, WIDTH), "project": (WIDTH, WIDTH), "head": (WIDTH, 3),
    }  # fmt: skip
    return build(f"(float[n, {WIDTH}] x) => (float[n, 3] y)", body, weights)


def chain() -> onnx.ModelProto:
    """Layers of equal shape, one after the other."""
    body = """
        a = Conv <pads=[1,1,1,1]> (x, w0, b0) a1 = Relu(a)
        b = Conv <pads=[1,1,1,1]> (a1, w1, b1) c = Relu(b)
        d = Conv <pads=[1,1,1,1]> (c, w2, b2) e = Relu(d)
        f = Conv <strides=[2,2]> (e, w3, b3)
        y = GlobalAveragePool(f)"""
    weights: dict[str, tuple[int, ...]] = {"w0": (WIDTH, 3, 3, 3), "w3": (4, WIDTH, 1, 1)}
    weights |= {f"w{i}": (WIDTH, WIDTH, 3, 3) for i in (1, 2)}
    weights |= {f"b{i}": (WIDTH,) for i in range(3)} | {"b3": (4,)}
    return build("(float[n, 3, 6, 6] x) => (float[n, 4, 1, 1] y)", body, weights)


def blocks(model: onnx.ModelProto) -> dict[str, gp.groups.Group]:
    return {g.id: g for g in gp.analyze(model).groups if g.kind == "blocks"}


def test_residual_branches_are_exact_blocks() -> None:
    found = blocks(residual())
    assert set(found) == {"up1/blocks", "up2/blocks"}
    assert all(g.exact and g.size == 1 and g.least == 0 for g in found.values())
    assert {m.name for m in found["up1/blocks"].members} == {"up1", "down1", "bias1"}


def test_layers_of_equal_shape_are_blocks_that_change_the_function() -> None:
    found = blocks(chain())
    assert set(found) == {"w1/blocks", "w2/blocks"}
    assert not any(g.exact for g in found.values())
    assert {m.name for m in found["w1/blocks"].members} == {"w1", "b1"}


def test_blocks_go_only_when_they_are_named() -> None:
    plan = gp.plan(residual(), target={"macs": 0.5}, criterion="l2")
    assert "blocks" not in {g.kind for g in plan.groups}


def test_without_a_branch_the_sum_is_its_other_operand() -> None:
    model = residual()
    result = gp.prune(model, target={"macs": 0.8}, criterion="l2", kinds=["blocks"])
    assert result.verdict is not None
    assert result.verdict.exact
    (group,) = result.plan.groups
    assert group.keep == []
    zeroed = onnx.ModelProto()
    zeroed.CopyFrom(model)
    gone = {p.name for p in result.plan.parameters}
    assert all(p.keep == [] and p.axis == 0 for p in result.plan.parameters)
    for tensor in zeroed.graph.initializer:
        if tensor.name in gone:
            array = np.zeros_like(onnx.numpy_helper.to_array(tensor))
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    x = np.random.default_rng(0).standard_normal((5, WIDTH)).astype(np.float32)
    outputs = [
        ort.InferenceSession(m.SerializeToString()).run(None, {"x": x})[0]
        for m in (zeroed, result.model.to_proto())
    ]
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-6)
    assert len(result.model.ir.graph) < len(model.graph.node)


def test_without_a_layer_its_input_takes_its_place() -> None:
    result = gp.prune(chain(), target={"macs": 0.7}, criterion="l2", kinds=["blocks"])
    assert result.verdict is not None
    kinds = [node.op_type for node in result.model.ir.graph]
    assert kinds.count("Conv") == 3
    assert kinds.count("Relu") == 2


@pytest.mark.parametrize(("model", "target"), [(residual(), 0.17), (chain(), 0.6)], ids=["residual", "chain"])
def test_blocks_and_channels_go_together_and_the_plan_says_it_all(
    model: onnx.ModelProto, target: float
) -> None:
    result = gp.prune(model, target={"macs": target}, criterion="l2", kinds=["blocks", "channels"], floor=0.8)
    assert "blocks" in {g.kind for g in result.plan.groups}
    again = gp.prune(model, use_plan=result.plan)
    assert again.model.to_proto().SerializeToString() == result.model.to_proto().SerializeToString()


def test_ends_of_a_removed_layer_keep_the_same_positions() -> None:
    model = chain()
    plan = gp.plan(model, target={"macs": 0.7}, criterion="l2", kinds=["blocks"], exclude=["w2"])
    assert {p.name for p in plan.parameters} == {"w1", "b1"}
    cut = [ParameterPlan(name, 0, WIDTH, list(range(5)), None, []) for name in ("w0", "b0")]
    with pytest.raises(PlanError, match="input and output keep different positions"):
        gp.apply(model, dataclasses.replace(plan, parameters=[*plan.parameters, *cut]))


def test_a_branch_that_is_needed_elsewhere_is_no_block() -> None:
    model = residual()
    model.graph.output.append(onnx.helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, ["n", INNER]))
    assert set(blocks(model)) == {"up2/blocks"}


def test_a_table_that_is_added_is_no_block() -> None:
    """Positions and the like: nothing of the other operand goes into it."""
    body = "t = MatMul(table, mix) s = Add(x, t) y = MatMul(s, head)"
    weights = {"table": (5, 4), "mix": (4, WIDTH), "head": (WIDTH, 3)}
    model = build(f"(float[5, {WIDTH}] x) => (float[5, 3] y)", body, weights)
    assert not blocks(model)


def test_a_layer_behind_a_removed_branch_goes_too() -> None:
    """Its input is the sum, which loses its branch in the same cut, and a statistic ends the layer."""
    body = """
        h = MatMul(x, in) g = MatMul(h, up) r = Relu(g) f = MatMul(r, down) s = Add(h, f)
        m = MatMul(s, layer) p = Softmax(m) y = MatMul(p, head)"""
    weights = {
        "in": (5, WIDTH), "up": (WIDTH, INNER), "down": (INNER, WIDTH), "layer": (WIDTH, WIDTH),
        "head": (WIDTH, 3),
    }  # fmt: skip
    model = build("(float[n, 5] x) => (float[n, 3] y)", body, weights)
    graph = gp.analyze(model)
    removed = np.zeros(len(graph.analysis.algebra), bool)
    for group in graph.groups:
        if group.kind == "blocks":
            removed[group.units] = True
    result = gp.prune(model, use_plan=make_plan(graph, removed, {}))
    assert [node.op_type for node in result.model.ir.graph] == ["MatMul", "MatMul"]
