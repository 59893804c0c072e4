"""Which layers can be solved together, and which can't."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from graphprune.passes.compensators.couples import Couple, couples_of
from networks import build, feeds
from onnx import helper

from graphprune import analyze, load
from graphprune.calibration.evidence import Evidence

TOKENS = "(float[batch, 3, 6] x) => (float[batch, 3, 4] y)"
IMAGES = "(float[batch, 3, 5, 5] x) => (float[batch, 4, 5, 5] y)"
UP = {"u": (6, 8), "v": (8, 4)}
CONV = {"u": (8, 3, 3, 3), "v": (4, 8, 3, 3)}
ONE, HALF, ROOT = (np.array(n, np.float32) for n in (1.0, 0.5, 2**0.5))
NORM = {"s": np.ones(8, np.float32), "b": (8,), "m": (8,), "var": (8,)}
GELU = "d = Div (h, root) e = Erf (d) a = Add (e, one) m = Mul (h, a) g = Mul (m, half)"
PAD = "<pads = [1, 1, 1, 1]>"


def couples(model: onnx.ModelProto) -> list[Couple]:
    data = {
        k: v for k, v in feeds(model, batch=8).items() if k not in {t.name for t in model.graph.initializer}
    }
    evidence = Evidence(analyze(load(model)), data)
    return list(couples_of(evidence, evidence.graph.model))


def names(model: onnx.ModelProto) -> dict[str, list[str]]:
    """Consumer -> producers, by the names of their outputs."""
    return {c.consumer.output.name or "": [p.output.name or "" for p in c.producers] for c in couples(model)}


def tokens(body: str, **weights: Any) -> onnx.ModelProto:
    return build(TOKENS, body, {k: v for k, v in {**UP, **weights}.items() if f" {k}" in f" {body}"})


def images(body: str, **weights: Any) -> onnx.ModelProto:
    return build(IMAGES, body, {**CONV, **weights})


FOUND: dict[str, tuple[onnx.ModelProto, dict[str, list[str]]]] = {
    "relu": (tokens("h = MatMul (x, u) r = Relu (h) y = MatMul (r, v)"), {"y": ["h"]}),
    "nothing between": (tokens("h = MatMul (x, u) y = MatMul (h, v)"), {"y": ["h"]}),
    "bias": (tokens("h = MatMul (x, u) p = Add (h, b) r = Tanh (p) y = MatMul (r, v)", b=(8,)), {"y": ["h"]}),
    "gelu": (
        tokens(f"h = MatMul (x, u) {GELU} y = MatMul (g, v)", root=ROOT, one=ONE, half=HALF), {"y": ["h"]}
    ),
    "gated": (
        tokens(
            "h = MatMul (x, u) g = MatMul (x, w) s = Sigmoid (g) t = Mul (g, s) r = Mul (t, h) "
            "y = MatMul (r, v)",
            w=(6, 8),
        ),
        {"y": ["h", "g"]},
    ),
    "convolutions": (
        images(f"h = Conv {PAD} (x, u, a) r = Relu (h) y = Conv {PAD} (r, v)", a=(8,)), {"y": ["h"]}
    ),
    "norm between": (
        images(
            f"h = Conv {PAD} (x, u) n = BatchNormalization (h, s, b, m, var) r = Relu (n) "
            f"y = Conv {PAD} (r, v)",
            **NORM,
        ),
        {"y": ["h"]},
    ),
    "depthwise between": (
        images(
            f"h = Conv {PAD} (x, u) r = Relu (h) d = Conv <pads = [1, 1, 1, 1], group = 8> (r, dw) "
            f"t = Clip (d, low, high) y = Conv {PAD} (t, v)",
            dw=(8, 1, 3, 3), low=np.float32(0) * ONE, high=6 * ONE,
        ),
        {"d": ["h"], "y": ["d"]},
    ),
    "slopes per channel": (
        images(f"h = Conv {PAD} (x, u) r = PRelu (h, p) y = Conv {PAD} (r, v)", p=(8, 1, 1)), {"y": ["h"]}
    ),
    "three layers": (
        tokens("h = MatMul (x, u) r = Relu (h) i = MatMul (r, w) t = Relu (i) y = MatMul (t, v)", w=(8, 8)),
        {"i": ["h"], "y": ["i"]},
    ),
}  # fmt: skip

SHARED = "h = MatMul (x, u) r = Relu (h) i = MatMul (r, w) t = Relu (i) j = MatMul (t, w) y = MatMul (j, v)"
LEFT: dict[str, onnx.ModelProto] = {
    "read twice": tokens(
        "h = MatMul (x, u) r = Relu (h) a = MatMul (r, v) b = MatMul (r, w) y = Mul (a, b)", w=(8, 4)
    ),
    "another shape of constant": tokens(
        "h = MatMul (x, u) p = Mul (h, c) r = Relu (p) y = MatMul (r, v)", c=(3, 8)
    ),
    "one number per position": tokens(
        "h = MatMul (x, u) p = Add (h, c) r = Relu (p) y = MatMul (r, v)", c=(3, 1)
    ),
    "softmax": tokens("h = MatMul (x, u) r = Softmax <axis = -1> (h) y = MatMul (r, v)"),
    "layer norm": tokens(
        "h = MatMul (x, u) r = LayerNormalization (h, s, b) y = MatMul (r, v)", s=(8,), b=(8,)
    ),
    "turned": build(
        "(float[batch, 8, 6] x) => (float[batch, 8, 4] y)",
        "h = MatMul (x, u) r = Transpose <perm = [0, 2, 1]> (h) y = MatMul (r, v)", UP,
    ),
    "norm of positions": build(
        "(float[batch, 8, 6] x) => (float[batch, 8, 4] y)",
        "h = MatMul (x, u) r = BatchNormalization (h, s, b, m, var) y = MatMul (r, v)", {**UP, **NORM},
    ),
    "gated by a mean": images(
        f"h = Conv {PAD} (x, u) g = GlobalAveragePool (h) s = Sigmoid (g) r = Mul (h, s) "
        f"y = Conv {PAD} (r, v)"
    ),
    "half precision": build(
        TOKENS.replace("float[", "float16["), "h = MatMul (x, u) r = Relu (h) y = MatMul (r, v)",
        {n: np.ones(s, np.float16) for n, s in UP.items()},
    ),
    "a weight that callers replace": build(
        "(float[batch, 3, 6] x, float[6, 8] u) => (float[batch, 3, 4] y)",
        "h = MatMul (x, u) r = Relu (h) y = MatMul (r, v)", UP,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_found(name: str) -> None:
    model, expected = FOUND[name]
    assert {k: sorted(v) for k, v in names(model).items()} == {k: sorted(v) for k, v in expected.items()}


@pytest.mark.parametrize("name", LEFT)
def test_left_alone(name: str) -> None:
    assert names(LEFT[name]) == {}


def test_a_shared_weight_is_solved_elsewhere() -> None:
    model = tokens(SHARED, w=(8, 8))
    assert names(model) == {}
    # Each alone would be: with a weight of its own.
    assert names(tokens(SHARED.replace("(t, w)", "(t, z)"), w=(8, 8), z=(8, 8))) == {
        "i": ["h"], "j": ["i"], "y": ["j"]
    }  # fmt: skip


@pytest.mark.parametrize("shown", ["h", "p", "r"])
def test_an_output_of_the_model_stays_what_it_is(shown: str) -> None:
    model = tokens("h = MatMul (x, u) p = Add (h, b) r = Relu (p) y = MatMul (r, v)", b=(8,))
    assert names(model) == {"y": ["h"]}
    model.graph.output.append(helper.make_tensor_value_info(shown, onnx.TensorProto.FLOAT, ["batch", 3, 8]))
    assert names(model) == {}


def test_what_comes_from_elsewhere_is_a_side() -> None:
    """The gate is made by something that can't be fitted: its value is taken as it is."""
    model = build(
        "(float[batch, 3, 6] x, float[batch, 3, 8] z) => (float[batch, 3, 4] y)",
        "h = MatMul (x, u) s = Softmax (z) g = Mul (h, s) k = Add (g, z) y = MatMul (k, v)", UP,
    )  # fmt: skip
    (found,) = couples(model)
    assert {value.name for value in found.sides} == {"s", "z"}
    assert [node.op_type for node in found.path] == ["Mul", "Add"]


def test_a_side_that_others_read_too() -> None:
    """``h`` is read twice, so only the gate can change."""
    model = tokens(
        "h = MatMul (x, u) g = MatMul (x, w) s = Sigmoid (g) r = Mul (h, s) a = MatMul (r, v) "
        "b = MatMul (h, z) y = Add (a, b)",
        w=(6, 8), z=(8, 4),
    )  # fmt: skip
    (found,) = couples(model)
    assert [layer.output.name for layer in found.producers] == ["g"]
    assert [value.name for value in found.sides] == ["h"]
