"""Models whose inputs and outputs are of unusual forms are judged by their samples like any other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from networks import build

import graphprune as gp

Array = npt.NDArray[Any]


def normal(*shape: int) -> Array:
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


def odd_models() -> dict[str, tuple[onnx.ModelProto, Mapping[str, Array]]]:
    """Outputs and inputs of unusual forms."""
    layers: dict[str, Any] = {"u": (8, 16), "v": (16, 3)}
    body = "h = MatMul (x, u) r = Relu (h)"
    last = f"{body} z = MatMul (r, v)"
    rows, scales = normal(40, 8), np.arange(1, 21, dtype=np.float32)
    plain = "float[batch, 8] x"
    later = build(
        f"({plain}) => (float[batch, 3] y)", f"{body} p = MatMul (r, v) q = Gemm (k, w) y = Add (p, q)",
        {**layers, "k": (1, 5), "w": (5, 3)},
    )  # fmt: skip
    return {
        "a class": (
            build(f"({plain}) => (int64[batch] y)", f"{last} y = ArgMax <axis = 1> (z)", layers),
            {"x": rows},
        ),
        "a sequence of different sizes": (
            build(
                f"({plain}) => (float[batch, 3] y, seq(float[batch, k]) z)",
                f"{body} y = MatMul (r, v) w = MatMul (r, c) z = SequenceConstruct (y, w)",
                {**layers, "c": (16, 5)},
            ),
            {"x": rows},
        ),
        "nothing but a sequence": (
            build(f"({plain}) => (seq(float[batch, 3]) y)", f"{last} y = SequenceConstruct (z, z)", layers),
            {"x": rows},
        ),
        "an optional": (
            build(f"({plain}) => (optional(float[batch, 3]) y)", f"{last} y = Optional (z)", layers),
            {"x": rows},
        ),
        "one number": (
            build(f"({plain}) => (float y)", f"{last} y = ReduceMean <keepdims = 0> (z)", layers),
            {"x": rows},
        ),
        "one scalar per sample": (
            build(
                "(float[n, 5, 8] x, float scale) => (float[n, 5, 3] y)",
                "s = Mul (x, scale) h = MatMul (s, u) r = Relu (h) y = MatMul (r, v)", layers,
            ),
            {"x": normal(20, 5, 8), "scale": scales},
        ),
        "an input with a default": (
            build(
                f"({plain}, float[8] d) => (float[batch, 3] y)",
                "s = Mul (x, d) h = MatMul (s, u) r = Relu (h) y = MatMul (r, v)", {**layers, "d": (8,)},
            ),
            {"x": rows},
        ),
        "masked scores": (
            build(
                f"({plain}) => (float[batch, 3] y)",
                f"{last} c = MatMul (x, w) m = Less (c, zero) y = Where (m, low, z)",
                {**layers, "w": (8, 3), "zero": 0.0, "low": float("-inf")},
            ),
            {"x": rows},
        ),
        "a constant layer": (later, {"x": rows}),
    }  # fmt: skip


@pytest.mark.parametrize("name", odd_models())
def test_unusual_inputs_and_outputs(name: str) -> None:
    model, data = odd_models()[name]
    if name == "a class":
        model.graph.node[-1].attribute.append(onnx.helper.make_attribute("keepdims", 0))
    # The oracle wants finite outputs.
    result = gp.prune(model, target={"macs": 0.6}, calibration=data, verify_result=name != "masked scores")
    assert "fallback" not in result.plan.options
    assert result.output_errors is not None
    assert all(np.isfinite(error) for error in result.output_errors)
    if name != "one number":  # one for each run of many samples: nothing to fit to
        assert result.output_errors[1] <= result.output_errors[0]


def test_a_model_that_nothing_may_leave_is_not_blamed_on_the_samples() -> None:
    model = build("(float[batch, 8] x) => (float[batch, 3] y)", "y = MatMul (x, u)", {"u": (8, 3)})
    with pytest.raises(gp.GraphPruneError, match="cannot reach macs"):
        gp.prune(model, target={"macs": 0.6}, calibration={"x": normal(20, 8)})
