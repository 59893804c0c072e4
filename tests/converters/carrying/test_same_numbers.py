"""Arrays that numbers alone do not tell apart: cut rightly, as a smaller network shows, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphprune.converters.carrying.carry_file import carry_file
from graphprune.converters.carrying.hints import best, is_same_name
from graphprune.converters.carrying.matching import match
from graphprune.converters.carrying.safetensors_file import read_safetensors, write_safetensors
from networks import build, weight
from onnx.reference import ReferenceEvaluator
from plans import changed, plan_of

import graphprune as gp
from graphprune.errors import CarryError
from graphprune.model import Model, load
from graphprune.plan import Plan

Array = np.ndarray[Any, Any]
FIRST, SECOND = [0, 2, 3, 6], [1, 4]
X = weight("x", (3, 6))


def carried(tmp_path: Path, model: Model, plan: Plan, arrays: dict[str, Array]) -> dict[str, Array]:
    """What is written for a file with these arrays."""
    write_safetensors(tmp_path / "source.safetensors", arrays, {})
    carry_file(plan, tmp_path / "source.safetensors", tmp_path / "out.safetensors", model=model)
    return dict(read_safetensors(tmp_path / "out.safetensors")[0])


def refused(tmp_path: Path, model: Model, plan: Plan, arrays: dict[str, Array], reason: str) -> None:
    """Nothing is written, for this reason."""
    with pytest.raises(CarryError, match="cannot tell what the plan leaves") as raised:
        carried(tmp_path, model, plan, arrays)
    assert any(reason in each for _, _, each in raised.value.unmatched), raised.value.unmatched
    assert not (tmp_path / "out.safetensors").exists()


def wanted(model: Model, plan: Plan) -> Array:
    """What the pruned file computes."""
    (found,) = ReferenceEvaluator(gp.apply(model, plan).to_proto()).run(None, {"x": X})
    return np.asarray(found)


def mlp(arrays: dict[str, Array], x: Array, *names: str) -> Array:
    """Linear layers of torch with Relu between them."""
    for i, name in enumerate(names):
        x = np.maximum(x, 0) if i else x
        x = x @ arrays[f"{name}.weight"].T + arrays.get(f"{name}.bias", 0)
    return x


def three(middle: Array, name: str = "mid", **more: Array) -> Model:
    """Three layers without biases."""
    gemm = "Gemm<transB = 1>" if name != "mid" else "MatMul"
    body = f"h = MatMul(x, up)\n r = Relu(h)\n g = {gemm}(r, middle)\n q = Relu(g)\n y = MatMul(q, down)"
    weights = {"up": weight("up", (8, 6)).T, "middle": middle, "down": weight("down", (5, 8)).T}
    proto = build("(float[n, 6] x) => (float[n, 5] y)", body, {**weights, **more})
    for tensor in proto.graph.initializer:
        tensor.name = name if tensor.name == "middle" else tensor.name
    for node in proto.graph.node:
        node.input[:] = [name if each == "middle" else each for each in node.input]
    return load(proto)


def source(middle: Array, **biases: Array) -> dict[str, Array]:
    layers = {"a.weight": weight("up", (8, 6)), "b.weight": middle, "c.weight": weight("down", (5, 8))}
    return layers | {name.replace("_", "."): array for name, array in biases.items()}


def both_cut(model: Model, name: str, outputs: int) -> Plan:
    """A plan that cuts what goes into the layer in the middle and what comes out of it."""
    return plan_of(
        model, {"up": {1: FIRST}, name: {1 - outputs: FIRST, outputs: SECOND}, "down": {0: SECOND}}
    )


def test_a_bias_of_zeros_that_the_model_does_not_have(tmp_path: Path) -> None:
    middle, zeros = weight("middle", (8, 8)), np.zeros(8, np.float32)
    model = three(middle.T)
    plan = both_cut(model, "mid", 1)
    arrays = source(middle, a_bias=zeros, b_bias=zeros.copy(), c_bias=np.zeros(5, np.float32))
    found = carried(tmp_path, model, plan, arrays)
    assert [found[f"{name}.bias"].shape for name in "abc"] == [(4,), (2,), (5,)]
    np.testing.assert_allclose(mlp(found, X, "a", "b", "c"), wanted(model, plan), rtol=1e-5, atol=1e-6)


def test_only_the_inputs_of_a_layer_are_cut(tmp_path: Path) -> None:
    middle, zeros = weight("middle", (8, 8)), np.zeros(8, np.float32)
    model = three(middle.T)
    plan = plan_of(model, {"up": {1: FIRST}, "mid": {0: FIRST}})
    found = carried(tmp_path, model, plan, source(middle, b_bias=zeros))
    assert found["b.bias"].shape == (8,)
    np.testing.assert_allclose(mlp(found, X, "a", "b", "c"), wanted(model, plan), rtol=1e-5, atol=1e-6)


def test_a_trained_bias_that_the_model_does_not_have(tmp_path: Path) -> None:
    middle = weight("middle", (8, 8))
    model = three(middle.T)
    arrays = source(middle, b_bias=weight("trained", (8,)))
    refused(tmp_path, model, both_cut(model, "mid", 1), arrays, "'b.weight' beside it is cut")


def test_a_bias_of_zeros_for_several_layers_in_one(tmp_path: Path) -> None:
    model = three(weight("middle", (8, 8)).T)
    arrays = source(weight("middle", (8, 8)), b_bias=np.zeros(24, np.float32))
    refused(tmp_path, model, both_cut(model, "mid", 1), arrays, "nothing tells which axis of 'b.weight'")


def test_new_biases_where_the_model_had_none() -> None:
    middle, zeros = weight("middle", (8, 8)), np.zeros(8, np.float32)
    model = three(middle.copy(), "b.weight")
    plan = both_cut(model, "b.weight", 0)
    pruned = changed(gp.apply(model, plan), b__weight=weight("new", (2, 4)))
    found = match(model, plan, source(middle, b_bias=zeros), pruned)
    assert found.unmatched == ()
    assert found.cut.kept["b.bias"][0].tolist() == SECOND
    np.testing.assert_array_equal(found.cut.values["b.weight"], weight("new", (2, 4)))


def test_a_bias_that_a_norm_was_folded_over(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kernel, variance = weight("kernel", (8, 6, 1, 1)), rng.uniform(1, 2, 8).astype(np.float32)
    gamma, beta = weight("gamma", (8,)) + 3, weight("beta", (8,))
    factor = gamma / np.sqrt(variance + 1e-5)
    weights = {
        "w": kernel * factor[:, None, None, None],
        "b": beta,
        "down": weight("down", (5, 8, 1, 1)),
    }
    body = "h = Conv(x, w, b)\n r = Relu(h)\n y = Conv(r, down)"
    model = load(build("(float[n, 6, 2, 2] x) => (float[n, 5, 2, 2] y)", body, weights))
    plan = plan_of(model, {"w": {0: FIRST}, "b": {0: FIRST}, "down": {1: FIRST}})
    zeros = np.zeros(8, np.float32)
    arrays = {"conv.weight": kernel, "conv.bias": zeros, "bn.weight": gamma, "bn.bias": beta}
    arrays |= {"bn.running_mean": zeros.copy(), "bn.running_var": variance, "down.weight": weights["down"]}
    found = carried(tmp_path, model, plan, arrays)
    assert {n: a.shape[0] for n, a in found.items() if n != "down.weight"} == dict.fromkeys(
        [n for n in arrays if n != "down.weight"], 4
    )


def test_a_square_matrix_of_zeros(tmp_path: Path) -> None:
    zeros = np.zeros((8, 8), np.float32)
    model = three(zeros)
    refused(tmp_path, model, both_cut(model, "mid", 1), source(zeros), "nothing tells its axes apart")


def test_zeros_in_the_model_and_other_numbers_in_the_file(tmp_path: Path) -> None:
    weights = {"up": weight("up", (8, 6)).T, "shift": np.zeros(8, np.float32), "down": weight("down", (8, 5))}
    body = "h = MatMul(x, up)\n a = Add(h, shift)\n r = Relu(a)\n y = MatMul(r, down)"
    model = load(build("(float[n, 6] x) => (float[n, 5] y)", body, weights))
    plan = plan_of(model, {"up": {1: FIRST}, "shift": {0: FIRST}, "down": {0: FIRST}})
    arrays = {"l.weight": weight("up", (8, 6)), "n.beta": weight("beta", (8,)), "d.weight": weights["down"]}
    refused(tmp_path, model, plan, arrays, "no array of the source holds its numbers")


def test_the_identity_fits_in_either_order(tmp_path: Path) -> None:
    eye = np.eye(8, dtype=np.float32)
    model = three(eye)
    plan = both_cut(model, "mid", 1)
    refused(tmp_path, model, plan, source(eye), "in several orders of its axes")
    live = match(model, plan, source(eye))  # tried as the layers like it are stored, and proven by running
    assert live.cut.kept["b.weight"][0].tolist() == SECOND
    assert live.cut.kept["b.weight"][1].tolist() == FIRST
    assert all(each.needs_run for each in live.unmatched)


def test_the_name_tells_the_order_of_the_identity(tmp_path: Path) -> None:
    eye = np.eye(8, dtype=np.float32)
    model = three(eye, "b.weight")
    plan = both_cut(model, "b.weight", 0)
    found = carried(tmp_path, model, plan, source(eye))
    assert found["b.weight"].shape == (2, 4)
    np.testing.assert_allclose(mlp(found, X, "a", "b", "c"), wanted(model, plan), rtol=1e-5, atol=1e-6)


def test_a_symmetric_matrix_that_is_cut_alike_on_both_sides(tmp_path: Path) -> None:
    eye = np.eye(8, dtype=np.float32)
    model = three(eye)
    plan = plan_of(model, {"up": {1: FIRST}, "mid": {0: FIRST, 1: FIRST}, "down": {0: FIRST}})
    found = carried(tmp_path, model, plan, source(eye))
    assert found["b.weight"].shape == (4, 4)
    np.testing.assert_allclose(mlp(found, X, "a", "b", "c"), wanted(model, plan), rtol=1e-5, atol=1e-6)
    new = weight("new", (4, 4))
    updated = match(model, plan, source(eye), changed(gp.apply(model, plan), mid=new))
    assert "several orders" in updated.unmatched[0].reason


def test_one_bias_for_two_layers_that_are_summed(tmp_path: Path) -> None:
    a, b, zeros = weight("a", (8, 6)), weight("b", (8, 6)), np.zeros(8, np.float32)
    weights = {"a": a.T, "b": b.T, "bias": zeros, "down": weight("down", (5, 8)).T}
    body = "h = MatMul(x, a)\n i = Add(h, bias)\n g = MatMul(x, b)\n j = Add(g, bias)\n s = Add(i, j)\n"
    model = load(build("(float[n, 6] x) => (float[n, 5] y)", body + " y = MatMul(s, down)", weights))
    plan = plan_of(model, {"a": {1: FIRST}, "b": {1: FIRST}, "bias": {0: FIRST}, "down": {0: FIRST}})
    arrays = {"stem.weight": a, "stem.bias": zeros, "net.body.weight": b, "net.body.bias": zeros.copy()}
    arrays["c.weight"] = weight("down", (5, 8))
    found = carried(tmp_path, model, plan, arrays)
    made = (mlp(found, X, "stem") + mlp(found, X, "net.body")) @ found["c.weight"].T
    np.testing.assert_allclose(made, wanted(model, plan), rtol=1e-5, atol=1e-6)


def test_numbered_tensors_name_no_layers(tmp_path: Path) -> None:
    equal = weight("equal", (8, 8))
    weights = {"w": equal.T, "v": equal.T.copy(), "last": weight("last", (8, 8))}
    body = "h = MatMul(x, w)\n r = Relu(h)\n g = MatMul(r, v)\n q = Relu(g)\n y = MatMul(q, last)"
    proto = build("(float[n, 8] x) => (float[n, 8] y)", body, weights)
    for node in proto.graph.node:
        renamed = {"h": "input.1", "g": "input.0"}
        node.output[:] = [renamed.get(each, each) for each in node.output]
        node.input[:] = [renamed.get(each, each) for each in node.input]
    onnx.checker.check_model(proto)
    model = load(proto)
    plan = plan_of(model, {"v": {1: FIRST}, "last": {0: FIRST}})
    for names in (("l.0", "l.1"), ("0", "1")):
        arrays = {f"{names[0]}.weight": equal, f"{names[1]}.weight": equal.copy()}
        arrays["last.weight"] = weights["last"].T
        refused(tmp_path, model, plan, arrays, "only their order tells which is which")


def test_what_names_say() -> None:
    assert best(["/input.1"], ["l.0", "l.1"]) == {"l.0", "l.1"}
    assert best(["input.1"], ["0", "1"]) == {"0", "1"}
    assert best(["/1/Gemm"], ["0", "1"]) == {"1"}
    assert best(["/layers.1/Gemm"], ["model.layers.0", "model.layers.1"]) == {"model.layers.1"}
    assert best(["/encoder/add"], ["bert.encoder.deep.norm", "stem"]) == {"bert.encoder.deep.norm"}
    assert best(["/add"], ["net.body", "stem"]) == {"net.body", "stem"}
    assert not is_same_name("12", "table.12")
