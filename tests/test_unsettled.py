"""Sizes that stand still between two runs and are not fixed: clamped ones, and those that data decide."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import Array, build, initializer, replace, run

from graphprune import api
from graphprune.model import load
from graphprune.plan import Plan
from graphprune.shapes.trace import trace

CLAMPED = """
    c = Slice (x, start, end, one_axis) s = Shape (c) n = Gather (s, one) f = Cast <to = 1> (n)
    a = MatMul (c, a.w) r = Relu (a) total = ReduceSum <keepdims = 0> (r, one_axis)
    mean = Div (total, f) y = MatMul (mean, b.w)
"""
COUNTED = """
    k = Greater (x, zero) i = NonZero (k) s = Shape (i) ones = ConstantOfShape (s)
    some = Add (ones, unit) total = ReduceSum <keepdims = 1> (some) t = Reshape (total, flat)
    d = Mul (x, t) a = MatMul (d, a.w) r = Relu (a) y = MatMul (r, b.w)
"""
WEIGHTS = {"a.w": (8, 16), "b.w": (16, 4)}


def clamped() -> onnx.ModelProto:
    """A mean over at most four steps: two runs with longer inputs both divide by four."""
    numbers = {"start": [0], "end": [4], "one_axis": [1], "one": 1}
    return build("(float[batch, time, 8] x) => (float[batch, 4] y)", CLAMPED, {**WEIGHTS, **numbers})


def counted() -> onnx.ModelProto:
    """Scaled by the number of positive inputs; no dim is symbolic, and still a size moves."""
    numbers = {"zero": 0.0, "unit": 1.0, "flat": [1, 1]}
    return build("(float[1, 8] x) => (float[1, 4] y)", COUNTED, {**WEIGHTS, **numbers})


def masked(model: onnx.ModelProto, plan: Plan) -> onnx.ModelProto:
    model = onnx.ModelProto.FromString(model.SerializeToString())
    for entry in plan.parameters:
        array: Array = initializer(model, entry.name).copy()
        gone = np.setdiff1d(np.arange(entry.size), entry.keep)
        array[(slice(None),) * entry.axis + (gone,)] = 0
        replace(model, entry.name, array)
    return model


def test_clamped_axis_is_dynamic_with_all_that_is_made_from_it() -> None:
    found = trace(load(clamped()))
    assert found.shapes["c"][1] == found.nominal["c"][1] == 4
    assert [found.is_dynamic("c", axis) for axis in range(3)] == [True, True, False]
    assert ("c", 1) in found.symbolic
    assert [found.is_dynamic("r", axis) for axis in range(3)] == [True, True, False]
    assert [found.is_dynamic("y", axis) for axis in range(2)] == [True, False]


def test_clamped_number_makes_a_dynamic_axis() -> None:
    found = trace(
        load(
            build(
                "(float[batch, time, 8] x) => (float[batch, m, 8] y)",
                """
                s = Shape (x) t = Gather (s, at) few = Min (t, most)
                y = Slice (x, start, few, at)
                """,
                {"at": [1], "most": [4], "start": [0]},
            )
        )
    )
    assert found.values["few"].tolist() == [4]
    assert found.shapes["y"][1] == found.nominal["y"][1] == 4
    assert found.is_dynamic("y", 1)


def test_slice_that_clamps_nothing_stays_fixed() -> None:
    found = trace(
        load(
            build(
                "(float[batch, 8] x) => (float[batch, 4] y)",
                "c = Slice (x, start, end, axes) y = Relu (c)",
                {"start": [0], "end": [4], "axes": [1]},
            )
        )
    )
    assert [found.is_dynamic("y", axis) for axis in range(2)] == [True, False]


def test_size_that_depends_on_data_is_dynamic_in_a_model_of_fixed_sizes() -> None:
    found = trace(load(counted()))
    assert found.dims == {}
    assert found.shapes["i"] == found.nominal["i"]
    assert found.is_dynamic("i", 1)
    assert [found.is_dynamic("ones", axis) for axis in range(2)] == [False, True]
    assert not any(found.is_dynamic("r", axis) for axis in range(2))


def test_shape_that_is_an_input_is_dynamic() -> None:
    found = trace(
        load(
            build(
                "(float[1, 8] x, int64[2] sizes) => (float[a, b] y)",
                "y = Expand (x, sizes)",
                {},
            )
        )
    )
    assert found.is_dynamic("y", 0)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 9])
def test_clamped_size_is_not_folded_into_the_cut_model(length: int) -> None:
    model = clamped()
    result = api.prune(model, target={"params": 0.7}, criterion="l2")
    x = np.random.default_rng(length).standard_normal((2, length, 8)).astype(np.float32)
    (expected,), (found,) = run(masked(model, result.plan), {"x": x}), run(result.model.to_proto(), {"x": x})
    assert np.abs(expected).max() > 1e-3
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("positive", [0, 1, 5, 8])
def test_size_that_depends_on_data_is_not_folded_into_the_cut_model(positive: int) -> None:
    model = counted()
    result = api.prune(model, target={"params": 0.7}, criterion="l2")
    x = -np.abs(np.random.default_rng(positive).standard_normal((1, 8))).astype(np.float32)
    x[:, :positive] *= -1
    (expected,), (found,) = run(masked(model, result.plan), {"x": x}), run(result.model.to_proto(), {"x": x})
    assert (np.abs(expected).max() > 1e-3) == (positive > 0)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
