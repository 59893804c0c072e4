"""Models that take one sample at a time without saying so; and models that only look as if they did."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
from networks import build, feeds

import graphprune as gp
from graphprune import analyze, load
from graphprune.calibration.evidence import Evidence

LAYERS: dict[str, Any] = {"u": (6, 16), "v": (16, 3)}
BODY = "h = MatMul (x, u) r = Relu (h)"
FIXED = build(
    "(float[batch, 4, 6] x) => (float[batch, 4, 3] y)", f"{BODY} q = Reshape (r, shape) y = MatMul (q, v)",
    {**LAYERS, "shape": [1, 4, 16]},
)  # fmt: skip
#: Two samples become one of twice the length, and every token looks at those of both.
MIXED = build(
    "(float[batch, 4, 6] x) => (float[n, t, 3] y)",
    f"{BODY} q = Reshape (r, shape) k = Transpose <perm = [0, 2, 1]> (q) s = MatMul (q, k) "
    "p = Softmax (s) z = MatMul (p, q) y = MatMul (z, v)",
    {**LAYERS, "shape": [1, -1, 16]},
)
#: The same without anything that mixes: right all the same, but nobody could tell the samples' rows apart.
LONG = build(
    "(float[batch, 4, 6] x) => (float[n, t, 3] y)", f"{BODY} q = Reshape (r, shape) y = MatMul (q, v)",
    {**LAYERS, "shape": [1, -1, 16]},
)  # fmt: skip
PLAIN = build("(float[batch, 4, 6] x) => (float[batch, 4, 3] y)", f"{BODY} y = MatMul (r, v)", LAYERS)
NUMBER = build(
    "(float[batch, 4, 6] x) => (float y)",
    f"{BODY} z = MatMul (r, v) y = ReduceMean <keepdims = 0> (z)",
    LAYERS,
)
STATE = build(
    "(float[batch, 4, 6] x) => (float[batch, 4, 3] y, float[4, batch, 16] s)",
    f"{BODY} y = MatMul (r, v) s = Transpose <perm = [1, 0, 2]> (r)", LAYERS,
)  # fmt: skip


def sizes(model: onnx.ModelProto, calibration: Any = None) -> set[int]:
    evidence = Evidence(analyze(load(model)), calibration, limit=20)
    return {len(batch["x"]) for batch in evidence.batches}


@pytest.mark.parametrize("model", [FIXED, MIXED, LONG], ids=["fixed", "mixed", "long"])
def test_a_hidden_batch_is_found(model: onnx.ModelProto) -> None:
    assert sizes(model, feeds(model, batch=20)) == {1}
    assert sizes(model) == {1}


@pytest.mark.parametrize("model", [PLAIN, NUMBER, STATE], ids=["plain", "number", "state"])
def test_others_run_in_batches(model: onnx.ModelProto) -> None:
    assert min(sizes(model, feeds(model, batch=20))) > 1
    assert min(sizes(model)) > 1


def test_they_are_calibrated_and_the_plan_says_so() -> None:
    result = gp.prune(FIXED, target={"params": 0.6}, calibration=feeds(FIXED, batch=50))
    assert result.plan.options["samples_at_a_time"] == 1
    assert result.output_errors is not None
    assert result.output_errors[1] < 0.5 * result.output_errors[0]
    assert "fallback" not in gp.plan(FIXED, target={"params": 0.6}).options
    assert "samples_at_a_time" not in gp.plan(PLAIN, target={"params": 0.6}).options
