"""What a review of compensation found: each was a crash or a wrong number once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from networks import build

import graphprune as gp

RNG = np.random.default_rng


def pruned(model: onnx.ModelProto, data: dict[str, npt.NDArray[Any]], target: float = 0.6) -> gp.PruneResult:
    return gp.prune(model, target={"params": target}, calibration=data)


def test_a_weight_that_layers_share_stays_one() -> None:
    """Re-solved apart, it would become as many constants as it has readers."""
    model = build(
        "(float[batch, 8] x) => (float[batch, 8] y)",
        "a = MatMul (x, u) b = Relu (a) c = MatMul (b, v) d = Add (x, c) "
        "e = MatMul (d, u) f = Relu (e) g = MatMul (f, v) y = Add (d, g)",
        {"u": (8, 32), "v": (32, 8)},
    )
    result = pruned(model, {"x": RNG(0).standard_normal((200, 8)).astype(np.float32)})
    assert result.plan.reached["params"] <= 0.6


def test_an_output_that_is_spread_over_a_sum() -> None:
    model = build(
        "(float[batch, 4, 6] x, float[batch, 1, 6] c) => (float[batch, 4, 6] y)",
        "h = MatMul (c, u) r = Relu (h) p = MatMul (r, v) s = Add (x, p) y = MatMul (s, w)",
        {"u": (6, 16), "v": (16, 6), "w": (6, 6)},
    )
    rng = RNG(0)
    data = {n: rng.standard_normal((100, k, 6)).astype(np.float32) for n, k in (("x", 4), ("c", 1))}
    result = pruned(model, data, 0.7)
    assert result.output_errors is not None
    assert result.output_errors[1] <= result.output_errors[0]


def test_segments_are_no_padding() -> None:
    model = build(
        "(int64[batch, time] ids, int64[batch, time] kinds) => (float[batch, time, 6] y)",
        "e = Gather (table, ids) k = Gather (kinds_table, kinds) s = Add (e, k) "
        "h = MatMul (s, u) r = Relu (h) y = MatMul (r, v)",
        {"table": (10, 6), "kinds_table": (2, 6), "u": (6, 24), "v": (24, 6)},
    )
    rng = RNG(0)
    data = {"ids": rng.integers(0, 10, (80, 8)), "kinds": np.tile(np.arange(8) > 3, (80, 1)).astype(np.int64)}
    result = pruned(model, data, 0.8)
    assert result.output_errors is not None
    assert result.output_errors[1] < result.output_errors[0]


def test_samples_that_say_nothing_are_refused() -> None:
    model = build(
        "(float[batch, 6] x) => (float[batch, 6] y)", "h = MatMul (x, u) r = Relu (h) y = MatMul (r, v)",
        {"u": (6, 8), "v": (8, 6)},
    )  # fmt: skip
    with pytest.raises(gp.GraphPruneError, match="nothing matters"):
        pruned(model, {"x": np.zeros((50, 6), np.float32)})
