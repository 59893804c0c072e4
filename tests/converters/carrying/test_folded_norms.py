"""Batch norms that an exporter folded into layers, or wrote as a product and a sum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graphprune.converters.carrying.matching import Matching, match
from networks import build, weight
from plans import changed, noisy, plan_of

import graphprune as gp
from graphprune.model import Model, load

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]
KEEP = [0, 2, 3, 6]


def norm(
    name: str, size: int, roles: tuple[str, ...] = ("weight", "bias", "running_mean", "running_var")
) -> Arrays:
    arrays = {f"{name}.{role}": weight(f"{name}{i}", (size,)) for i, role in enumerate(roles[:3])}
    return {**arrays, f"{name}.{roles[3]}": weight(f"{name}.var", (size,))}


def factor(arrays: Arrays, name: str, epsilon: float) -> Array:
    return (arrays[f"{name}.weight"] / np.sqrt(arrays[f"{name}.running_var"] + epsilon)).astype(np.float32)


def offset(arrays: Arrays, name: str, epsilon: float, bias: Array | float = 0.0) -> Array:
    s = factor(arrays, name, epsilon)
    return np.asarray(arrays[f"{name}.bias"] + (bias - arrays[f"{name}.running_mean"]) * s, np.float32)


def folded(epsilon: float = 1e-5, bias: bool = False) -> tuple[Model, Arrays]:
    """Two convolutions with norms."""
    arrays: Arrays = {"conv1.weight": weight("conv1", (8, 3, 3, 3))}
    if bias:
        arrays["conv1.bias"] = weight("conv1.bias", (8,))
    arrays |= norm("bn1", 8) | {"conv2.weight": weight("conv2", (8, 8, 3, 3))} | norm("bn2", 8)
    weights = {
        "w1": arrays["conv1.weight"] * factor(arrays, "bn1", epsilon)[:, None, None, None],
        "b1": offset(arrays, "bn1", epsilon, arrays["conv1.bias"] if bias else 0.0),
        "w2": arrays["conv2.weight"] * factor(arrays, "bn2", epsilon)[:, None, None, None],
        "b2": offset(arrays, "bn2", epsilon),
    }
    body = "h = Conv(x, w1, b1)\n r = Relu(h)\n y = Conv(r, w2, b2)"
    return load(build("(float[n, 3, 9, 9] x) => (float[n, 8, 5, 5] y)", body, weights)), arrays


def kept(found: Matching, name: str) -> dict[int, list[int]]:
    return {axis: positions.tolist() for axis, positions in found.cut.kept[name].items()}


CUT = {"w1": {0: KEEP}, "b1": {0: KEEP}, "w2": {1: KEEP}}


@pytest.mark.parametrize(("epsilon", "bias"), [(1e-5, False), (1e-3, True), (1e-5, True)])
def test_all_arrays_of_a_norm_follow(epsilon: float, bias: bool) -> None:
    model, arrays = folded(epsilon, bias)
    found = match(model, plan_of(model, CUT), arrays)
    assert found.unmatched == ()
    assert found.error < 1e-6
    assert kept(found, "conv1.weight") == {0: KEEP}
    assert kept(found, "conv2.weight") == {1: KEEP}
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert kept(found, f"bn1.{name}") == {0: KEEP}
        assert f"bn2.{name}" not in found.cut.kept
    assert ("conv1.bias" in found.cut.kept) == bias
    assert found.cut.how["bn1.running_var"] == "batch norm"


@pytest.mark.parametrize("bias", [False, True])
def test_new_numbers_are_unfolded(bias: bool) -> None:
    model, arrays = folded(bias=bias)
    plan = plan_of(model, CUT)
    pruned = noisy(gp.apply(model, plan))
    found = match(model, plan, arrays, pruned)
    assert found.unmatched == ()
    assert found.error < 1e-6
    cut = {
        name: found.cut.values.get(name, np.take(array, KEEP, 0) if name in found.cut.kept else array)
        for name, array in arrays.items()
    }
    np.testing.assert_array_equal(cut["bn1.running_mean"], arrays["bn1.running_mean"][KEEP])
    np.testing.assert_array_equal(cut["bn1.weight"], arrays["bn1.weight"][KEEP])
    constants = pruned.ir.graph.initializers
    made = cut["conv1.weight"] * factor(cut, "bn1", 1e-5)[:, None, None, None]
    assert constants["w1"].const_value is not None
    np.testing.assert_allclose(made, constants["w1"].const_value.numpy(), rtol=1e-5, atol=1e-6)
    made = offset(cut, "bn1", 1e-5, cut["conv1.bias"] if bias else 0.0)
    assert constants["b1"].const_value is not None
    np.testing.assert_allclose(made, constants["b1"].const_value.numpy(), rtol=1e-5, atol=1e-6)


def test_a_channel_that_the_norm_silenced_can_be_written() -> None:
    model, arrays = folded()
    arrays["bn1.weight"][2] = 0
    s = factor(arrays, "bn1", 1e-5)
    model = changed(model, w1=arrays["conv1.weight"] * s[:, None, None, None], b1=offset(arrays, "bn1", 1e-5))
    plan = plan_of(model, CUT)
    found = match(model, plan, arrays, noisy(gp.apply(model, plan)))
    assert found.unmatched == ()
    assert found.error < 1e-6
    assert found.cut.values["bn1.weight"][1] == pytest.approx(np.sqrt(arrays["bn1.running_var"][2] + 1e-5))


def test_a_bias_that_went_into_a_norm_of_zeros() -> None:
    """Without a constant for the bias, as an exporter writes it where it is zero."""
    arrays: Arrays = {"conv.weight": weight("conv", (8, 3, 1, 1)), **norm("bn", 8)}
    arrays["bn.bias"], arrays["bn.running_mean"] = np.zeros((2, 8), np.float32)
    w = arrays["conv.weight"] * factor(arrays, "bn", 1e-5)[:, None, None, None]
    body = "h = Conv(x, w)\n y = Conv(h, down)"
    weights = {"w": w, "down": weight("down", (2, 8, 1, 1))}
    model = load(build("(float[n, 3, 5, 5] x) => (float[n, 2, 5, 5] y)", body, weights))
    arrays["down.weight"] = weights["down"]
    plan = plan_of(model, {"w": {0: KEEP}, "down": {1: KEEP}})
    assert kept(match(model, plan, arrays), "bn.running_mean") == {0: KEEP}
    pruned = noisy(gp.apply(model, plan))  # both layers get a bias
    found = match(model, plan, arrays, pruned)
    assert found.unmatched == ()
    assert set(found.cut.added) == {"down.bias"}
    node = pruned.ir.graph[0]
    assert node.inputs[2] is not None
    assert node.inputs[2].const_value is not None
    np.testing.assert_allclose(found.cut.values["bn.bias"], node.inputs[2].const_value.numpy(), rtol=1e-6)


def test_a_norm_as_product_and_sum() -> None:
    roles = ("gamma", "beta", "moving_mean", "moving_variance")
    arrays = norm("bn", 8, roles) | {"other.gamma": weight("other", (8,))}
    gamma, beta, mean, variance = (arrays[f"bn.{role}"] for role in roles)
    s = (gamma / np.sqrt(variance + 1e-3)).astype(np.float32)
    weights = {"s": s.reshape(1, 8, 1, 1), "t": (beta - mean * s).reshape(1, 8, 1, 1)}
    weights |= {"w": weight("w", (8, 3, 1, 1)), "down": weight("down", (2, 8, 1, 1))}
    body = "h = Conv(x, w)\n m = Mul(h, s)\n a = Add(m, t)\n y = Conv(a, down)"
    model = load(build("(float[n, 3, 5, 5] x) => (float[n, 2, 5, 5] y)", body, weights))
    arrays |= {"conv.kernel": weights["w"].transpose(2, 3, 1, 0), "down.kernel": weights["down"]}
    plan = plan_of(model, {"w": {0: KEEP}, "s": {1: KEEP}, "t": {1: KEEP}, "down": {1: KEEP}})
    found = match(model, plan, arrays)
    assert found.unmatched == ()
    assert [kept(found, f"bn.{role}") for role in roles] == [{0: KEEP}] * 4
    assert kept(found, "conv.kernel") == {3: KEEP}
    pruned = changed(gp.apply(model, plan), s=weight("s", (1, 4, 1, 1)), t=weight("t", (1, 4, 1, 1)))
    found = match(model, plan, arrays, pruned)
    assert found.unmatched == ()
    assert found.error < 1e-6
    assert set(found.cut.values) == {"bn.gamma", "bn.beta"}


@pytest.mark.parametrize("updates", [False, True])
def test_a_weight_of_lengths_and_directions(updates: bool) -> None:
    v, w = weight("v", (8, 6, 3)), weight("w", (6, 4, 1))
    gain = weight("gain", (8, 1, 1))
    length = np.sqrt((v.astype(np.float64) ** 2).sum((1, 2), keepdims=True))
    weights = {"w": w, "v": (gain * v / length).astype(np.float32)}
    body = "h = Conv(x, w)\n y = Conv(h, v)"
    model = load(build("(float[n, 4, 9] x) => (float[n, 8, 7] y)", body, weights))
    plan = plan_of(model, {"w": {0: [0, 2, 3]}, "v": {1: [0, 2, 3]}})
    arrays = {"first.weight": w, "conv.original0": gain, "conv.original1": v}
    pruned = gp.apply(model, plan)
    if updates:
        pruned = changed(pruned, v=weight("new", (8, 3, 3)))
    found = match(model, plan, arrays, pruned if updates else None)
    assert found.unmatched == ()
    assert found.error < 1e-6
    assert kept(found, "conv.original1") == {1: [0, 2, 3]}
    direction = found.cut.values.get("conv.original1", v[:, [0, 2, 3]])
    length = np.sqrt((direction.astype(np.float64) ** 2).sum((1, 2), keepdims=True))
    made = found.cut.values["conv.original0"] * direction / length
    constant = pruned.ir.graph.initializers["v"].const_value
    assert constant is not None
    np.testing.assert_allclose(made, constant.numpy(), rtol=1e-5, atol=1e-7)


def fresh(names: tuple[str, str]) -> tuple[Model, Arrays]:
    """Two layers with untrained norms, which are equal; the norms under these names."""
    arrays: Arrays = {}
    weights: Arrays = {}
    for i, name in enumerate(names, 1):
        arrays[f"conv{i}.weight"] = weight(f"conv{i}", (8, 8, 1, 1))
        ones, zeros = np.ones(8, np.float32), np.zeros(8, np.float32)
        arrays |= {f"{name}.weight": ones, f"{name}.bias": zeros, f"{name}.running_mean": zeros.copy()}
        arrays[f"{name}.running_var"] = ones.copy()
        weights[f"w{i}"] = arrays[f"conv{i}.weight"] * np.float32(1 / np.sqrt(1 + 1e-5))
        weights[f"b{i}"] = zeros.copy()
    body = "h = Conv(x, w1, b1)\n r = Relu(h)\n y = Conv(r, w2, b2)"
    return load(build("(float[n, 8, 5, 5] x) => (float[n, 8, 5, 5] y)", body, weights)), arrays


def test_equal_norms_are_told_by_scope_and_else_by_their_order() -> None:
    cuts = {"w1": {0: KEEP}, "b1": {0: KEEP}, "w2": {0: [0, 1], 1: KEEP}, "b2": {0: [0, 1]}}
    model, arrays = fresh(("one", "two"))
    found = match(model, plan_of(model, cuts), arrays)
    assert found.unmatched == ()
    assert kept(found, "one.weight") == kept(found, "one.running_mean") == {0: KEEP}
    assert kept(found, "two.weight") == {0: [0, 1]}
    assert found.cut.how["one.weight"] == "order"
    for node, scope in zip(model.ir.graph, ("two", "", "one"), strict=True):
        scopes = f"['', 'net', 'net.{scope}', 'batch_norm']"
        node.metadata_props["pkg.torch.onnx.name_scopes"] = scopes
    found = match(model, plan_of(model, cuts), arrays)
    assert kept(found, "two.weight") == kept(found, "two.running_var") == {0: KEEP}
    assert kept(found, "one.bias") == {0: [0, 1]}
    assert found.cut.how["one.weight"] == "batch norm"
    # As many of each: whichever norm is whose, the numbers are the same.
    model, arrays = fresh(("one", "two"))
    same = {**cuts, "w2": {0: [1, 2, 3, 4], 1: KEEP}, "b2": {0: [1, 2, 3, 4]}}
    assert match(model, plan_of(model, same), arrays).cut.how["one.weight"] == "batch norm"
