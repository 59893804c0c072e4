"""Constants of ONNX models and arrays of a source that has them under other names, layouts and parts."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import onnx
import pytest
from graphprune.converters.carrying.matching import Matching, match
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import build, weight
from plans import changed, plan_of

import graphprune as gp
from graphprune.model import Model, load

Array = np.ndarray[Any, Any]
KEEP = [0, 2, 3, 6]


def linear(weights: dict[str, Any]) -> Model:
    body = "h = MatMul(x, up)\n a = Add(h, bias)\n r = Relu(a)\n y = MatMul(r, down)"
    return load(build("(float[n, 6] x) => (float[n, 5] y)", body, weights))


def kept(found: Matching, name: str) -> dict[int, list[int]]:
    return {axis: positions.tolist() for axis, positions in found.cut.kept[name].items()}


def test_names_shapes_and_transposes() -> None:
    up, bias, down = weight("up", (8, 6)), weight("bias", (8,)), weight("down", (5, 8))
    model = linear({"up": up.T, "bias": bias, "down": down.T})
    plan = plan_of(model, {"up": {1: KEEP}, "bias": {0: KEEP}, "down": {0: KEEP}})
    arrays = {"net.up.weight": up, "net.bias": bias, "net.down.weight": down, "step": np.array(3)}
    found = match(model, plan, arrays)
    assert found.unmatched == ()
    assert found.error == 0
    assert kept(found, "net.up.weight") == {0: KEEP}
    assert kept(found, "net.bias") == {0: KEEP}
    assert kept(found, "net.down.weight") == {1: KEEP}
    assert "step" not in found.cut.kept
    assert found.cut.how["net.bias"] == "name"
    assert found.cut.how["net.up.weight"] == "value"
    (size,) = found.cut.sizes["net.down.weight"][1]
    assert (size.group, size.kind, size.before, size.after) == ("g", "channels", 8, 2)


def test_new_numbers_go_back_through_the_transpose() -> None:
    up, bias, down = weight("up", (8, 6)), weight("bias", (8,)), weight("down", (5, 8))
    model = linear({"up": up.T, "bias": bias, "down": down.T})
    plan = plan_of(model, {"up": {1: KEEP}, "bias": {0: KEEP}, "down": {0: KEEP}})
    new = weight("new", (4, 5))
    pruned = changed(gp.apply(model, plan), down=new)
    arrays = {"up": up, "bias": bias, "down": down.astype(np.float64)}
    found = match(model, plan, arrays, pruned)
    assert set(found.cut.values) == {"down"}
    np.testing.assert_array_equal(found.cut.values["down"], new.T)
    assert found.cut.values["down"].dtype == np.float64
    assert found.unmatched == ()


@settings(max_examples=25, deadline=None)
@given(
    order=st.sampled_from(list(permutations(range(4)))),
    shape=st.tuples(*[st.integers(1, 4)] * 4),
    seed=st.integers(0, 99),
)
def test_any_order_of_axes(order: tuple[int, ...], shape: tuple[int, ...], seed: int) -> None:
    source = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    constant = np.ascontiguousarray(source.transpose(order))
    if constant.size < 2:
        return
    dims = ",".join(map(str, constant.shape))
    proto = build(f"(float[{dims}] x) => (float[{dims}] y)", "y = Mul(x, w)", {"w": constant})
    model = load(proto)
    axis = int(np.argmax(constant.shape))
    keep = list(range(0, constant.shape[axis], 2))
    found = match(model, plan_of(model, {"w": {axis: keep}}), {"other": source + 1, "kernel": source})
    assert found.unmatched == ()
    assert found.error == 0
    cut = source
    for d, positions in found.cut.kept.get("kernel", {}).items():
        cut = np.take(cut, positions, d)
    wanted = np.take(constant, keep, axis)
    assert sorted(cut.reshape(-1)) == sorted(wanted.reshape(-1))


def test_depthwise_kernels_of_keras() -> None:
    kernel = weight("kernel", (3, 3, 4, 2))  # height, width, input, multiplier
    constant = kernel.transpose(2, 3, 0, 1).reshape(8, 1, 3, 3)
    body = "y = Conv<group = 4>(x, w)"
    model = load(build("(float[n, 4, 9, 9] x) => (float[n, 8, 7, 7] y)", body, {"w": constant}))
    found = match(model, plan_of(model, {"w": {0: [0, 1, 6, 7]}}), {"depthwise/kernel": kernel})
    assert kept(found, "depthwise/kernel") == {2: [0, 3]}
    uneven = match(model, plan_of(model, {"w": {0: [0, 6, 7]}}), {"depthwise/kernel": kernel})
    assert "single elements of 'depthwise/kernel' would go" in uneven.unmatched[0].reason


def test_one_source_for_three_constants_and_three_for_one() -> None:
    parts = {name: weight(name, (4, 6)) for name in "qkv"}
    whole = np.concatenate(list(parts.values()))
    body = "q1 = MatMul(x, q)\n k1 = MatMul(x, k)\n v1 = MatMul(x, v)\n y = Sum(q1, k1, v1)"
    apart = load(
        build("(float[n, 6] x) => (float[n, 4] y)", body, {name: part.T for name, part in parts.items()})
    )
    plan = plan_of(apart, {"q": {1: [0, 2]}, "k": {1: [1, 2]}})
    found = match(apart, plan, {"in_proj_weight": whole})
    assert kept(found, "in_proj_weight") == {0: [0, 2, 5, 6, 8, 9, 10, 11]}
    joined = load(build("(float[n, 6] x) => (float[n, 12] y)", "y = MatMul(x, w)", {"w": whole.T}))
    plan = plan_of(joined, {"w": {1: [0, 2, 5, 6, 8, 9, 10, 11]}})
    found = match(joined, plan, {f"{name}.weight": part for name, part in parts.items()})
    assert kept(found, "q.weight") == {0: [0, 2]}
    assert kept(found, "k.weight") == {0: [1, 2]}
    assert "v.weight" not in found.cut.kept


def gates(repeats: bool) -> tuple[Model, dict[str, Array]]:
    rng = np.random.default_rng(1)
    arrays = {
        "weight_ih_l0": rng.standard_normal((16, 3)),
        "weight_hh_l0": rng.standard_normal((16, 4)),
        "bias_ih_l0": rng.standard_normal(16),
        "bias_hh_l0": rng.standard_normal(16),
    }
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    if repeats:  # a number that stands in several places
        arrays["weight_ih_l0"][[0, 5, 9], [0, 1, 2]] = 0.25
        arrays["weight_hh_l0"][3, 3] = 0.25
    order = np.r_[0:4, 12:16, 4:8, 8:12]  # torch: i f g o; ONNX: i o f c
    weights = {
        "w": arrays["weight_ih_l0"][order][None],
        "r": arrays["weight_hh_l0"][order][None],
        "b": np.concatenate([arrays["bias_ih_l0"][order], arrays["bias_hh_l0"][order]])[None],
    }
    body = "z, y = LSTM<hidden_size = 4>(x, w, r, b)"
    return load(build("(float[s, n, 3] x) => (float[d, n, 4] y)", body, weights)), arrays


@pytest.mark.parametrize("repeats", [False, True])
def test_gates_in_another_order(repeats: bool) -> None:
    model, arrays = gates(repeats)
    rows = [g * 4 + i for g in range(4) for i in (0, 3)]
    both = [*rows, *(16 + row for row in rows)]
    plan = plan_of(model, {"w": {1: rows}, "r": {1: rows, 2: [0, 3]}, "b": {1: both}})
    found = match(model, plan, arrays)
    assert found.unmatched == ()
    assert found.error == 0
    assert kept(found, "weight_ih_l0") == {0: rows}
    assert kept(found, "weight_hh_l0") == {0: rows, 1: [0, 3]}
    assert kept(found, "bias_ih_l0") == kept(found, "bias_hh_l0") == {0: rows}


def test_a_table_that_is_looked_up_many_times() -> None:
    table = weight("table", (9, 4))
    index = np.arange(3)[:, None] - np.arange(3)[None, :] + 4
    constant = np.ascontiguousarray(table[index].transpose(2, 0, 1)[None])
    proto = build("(float[n, 4, 3, 3] x) => (float[n, 4, 3, 3] y)", "y = Add(x, w)", {"w": constant})
    model = load(proto)
    found = match(model, plan_of(model, {"w": {1: [1, 3]}}), {"bias_table": table})
    assert kept(found, "bias_table") == {1: [1, 3]}


def test_a_function_of_an_array() -> None:
    scale = weight("scale", (8,))
    model = load(build("(float[n, 8] x) => (float[n, 8] y)", "y = Mul(x, w)", {"w": 1 + scale}))
    plan = plan_of(model, {"w": {0: KEEP}})
    new = weight("new", (4,))
    pruned = changed(load(shrunk(model)), w=new)
    found = match(model, plan, {"norm.weight": scale}, pruned)
    assert kept(found, "norm.weight") == {0: KEEP}
    np.testing.assert_allclose(found.cut.values["norm.weight"], new - 1, atol=1e-7)
    assert found.unmatched == ()


def shrunk(model: Model) -> onnx.ModelProto:
    """The same model on four channels."""
    w = model.ir.graph.initializers["w"].const_value
    assert w is not None
    return build("(float[n, 4] x) => (float[n, 4] y)", "y = Mul(x, w)", {"w": w.numpy()[KEEP]})


def test_a_multiple_of_an_array() -> None:
    table = weight("table", (4, 8))
    constant = table.T * np.float32(0.125) * np.float32(1.1)
    model = load(build("(float[n, 8] x) => (float[n, 4] y)", "y = MatMul(x, w)", {"w": constant}))
    plan = plan_of(model, {"w": {0: KEEP}})
    small = build("(float[n, 4] x) => (float[n, 4] y)", "y = MatMul(x, w)", {"w": weight("new", (4, 4))})
    pruned = load(small)
    found = match(model, plan, {"table": table, "other": table + 1}, pruned)
    assert found.unmatched == ()
    assert kept(found, "table") == {1: KEEP}
    np.testing.assert_allclose(found.cut.values["table"], weight("new", (4, 4)).T / 0.1375, rtol=1e-5)


def test_joined_vectors_with_numbers_that_repeat_and_zeros_between() -> None:
    q, v = weight("q", (8,)), weight("v", (8,))
    q[3] = v[5] = 0.5  # stands in two places, and in a third array as well
    constant = np.concatenate([q, np.zeros(8, np.float32), v])
    model = load(build("(float[n, 24] x) => (float[n, 24] y)", "y = Add(x, w)", {"w": constant}))
    rows = [*KEEP, *(8 + i for i in KEEP), *(16 + i for i in KEEP)]
    large = weight("large", (64, 8))
    large[0, 0], large[5, 5] = 0.5, q[1]
    arrays = {"attn.q_bias": q, "attn.k_bias": np.zeros(8, np.float32), "attn.v_bias": v, "large": large}
    found = match(model, plan_of(model, {"w": {0: rows}}), arrays)
    assert found.unmatched == ()
    for name in "qkv":
        assert kept(found, f"attn.{name}_bias") == {0: KEEP}
    assert "large" not in found.cut.kept


def test_uses_that_are_cut_differently() -> None:
    table = weight("table", (8, 8))
    body = "h = MatMul(x, first)\n y = MatMul(h, second)"
    weights = {"first": table, "second": table.T}
    model = load(build("(float[n, 8] x) => (float[n, 8] y)", body, weights))
    found = match(model, plan_of(model, {"first": {1: KEEP}, "second": {0: [0, 1, 2, 3]}}), {"tied": table})
    assert {each.constant for each in found.unmatched} == {"first", "second"}
    assert "its uses are cut differently" in found.unmatched[0].reason
    assert "tied" not in found.cut.kept


def test_tied_arrays_follow_each_other() -> None:
    table = weight("table", (8, 6))
    model = load(build("(float[n, 8] x) => (float[n, 6] y)", "y = MatMul(x, w)", {"w": table}))
    found = match(model, plan_of(model, {"w": {0: KEEP}}), {"embed.weight": table, "head.weight": table})
    assert kept(found, "embed.weight") == kept(found, "head.weight") == {0: KEEP}
    # Equal numbers in other memory, as some files store a tie.
    found = match(
        model, plan_of(model, {"w": {0: KEEP}}), {"embed.weight": table, "head.weight": table.copy()}
    )
    assert kept(found, "embed.weight") == kept(found, "head.weight") == {0: KEEP}


def test_what_goes_whole() -> None:
    up, bias, down = weight("up", (6, 8)), weight("bias", (8,)), weight("down", (8, 5))
    model = linear({"up": up, "bias": bias, "down": down})
    plan = plan_of(model, {"up": {0: []}, "bias": {0: []}})
    found = match(model, plan, {"up": up, "bias": bias, "down": down})
    assert found.cut.gone == {"up", "bias"}
    assert found.cut.kept == {}


def test_another_checkpoint() -> None:
    up, bias, down = weight("up", (6, 8)), weight("bias", (8,)), weight("down", (8, 5))
    model = linear({"up": up, "bias": bias, "down": down})
    plan = plan_of(model, {"up": {1: KEEP}, "bias": {0: KEEP}, "down": {0: KEEP}})
    other = {"up": weight("else", (6, 9)), "bias": weight("other", (8,))}
    unmatched = match(model, plan, other).unmatched
    reasons = {each.constant: each.reason for each in unmatched}
    assert reasons["up"] == "it is [6, 8] in the model, and 'up' is [6, 9]"
    assert reasons["bias"] == "'bias' holds other numbers"
    assert reasons["down"] == "no array of the source holds its numbers"


def test_what_an_exporter_made_up_is_not_missed() -> None:
    weights = {"one": np.ones(8, np.float32), "up": weight("up", (6, 8)), "down": weight("down", (8, 5))}
    body = "h = MatMul(x, up)\n a = Mul(h, one)\n y = MatMul(a, down)"
    model = load(build("(float[n, 6] x) => (float[n, 5] y)", body, weights))
    plan = plan_of(model, {"up": {1: KEEP}, "one": {0: KEEP}, "down": {0: KEEP}})
    found = match(model, plan, {"up": weights["up"], "down": weights["down"]})
    assert found.unmatched == ()


def test_half_precision_sources() -> None:
    up = weight("up", (8, 6)).astype(np.float16)
    model = load(
        build("(float[n, 6] x) => (float[n, 8] y)", "y = MatMul(x, w)", {"w": up.T.astype(np.float32)})
    )
    plan = plan_of(model, {"w": {1: KEEP}})
    found = match(model, plan, {"up": up})
    assert kept(found, "up") == {0: KEEP}
    narrow = build("(float16[n, 6] x) => (float16[n, 8] y)", "y = MatMul(x, w)", {"w": up.T})
    wide = weight("up", (8, 6))
    found = match(load(narrow), plan_of(load(narrow), {"w": {1: KEEP}}), {"up": wide})
    assert kept(found, "up") == {0: KEEP}
