"""Weights that several layers share are re-solved once for all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from networks import build, feeds, initializer, run

import graphprune as gp

Array = npt.NDArray[Any]


def random(*shape: int) -> Array:
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


def siamese(bias: bool = False) -> onnx.ModelProto:
    """Two inputs through the same two layers; the 12 hidden channels are mixes of 5."""
    wide = (random(6, 5) @ random(5, 12)).astype(np.float32)
    add = "p = Add (p0, b) q = Add (q0, b)" if bias else "p = Identity (p0) q = Identity (q0)"
    weights: dict[str, Any] = {"u": wide, "v": (12, 7)} | ({"b": (7,)} if bias else {})
    return build(
        "(float[batch, 6] x, float[batch, 6] z) => (float[batch, 7] y)",
        f"h = MatMul (x, u) p0 = MatMul (h, v) i = MatMul (z, u) q0 = MatMul (i, v) {add} d = Sub (p, q) "
        "y = Abs (d)",
        weights,
    )


def siamese_images() -> onnx.ModelProto:
    """The same with convolutions of different strides, whose outputs have different sizes."""
    filters = np.einsum("om,mcij->ocij", random(8, 3), random(3, 3, 2, 2)).astype(np.float32)
    return build(
        "(float[batch, 3, 8, 8] x) => (float[batch, 5, 6, 6] y, float[batch, 5, 3, 3] z)",
        "h = Conv (x, u) y = Conv (h, v) i = Conv <strides = [2, 2]> (x, u) z = Conv (i, v)",
        {"u": filters, "v": (5, 8, 2, 2)},
    )


@pytest.mark.parametrize("recipe", ["obspa", "graphprune"])
@pytest.mark.parametrize(
    "model", [siamese(), siamese(bias=True), siamese_images()], ids=["plain", "bias", "conv"]
)
def test_a_mix_of_others_goes_from_all_branches(model: onnx.ModelProto, recipe: str) -> None:
    result = gp.prune(model, target={"macs": 0.7}, recipe=recipe, calibration=feeds(model, batch=600))
    assert result.plan.options["compensator"] != "none"
    shapes = {n: v.const_value.shape.numpy() for n, v in result.model.ir.graph.initializers.items()}  # type: ignore[union-attr]
    assert set(shapes) >= {"u", "v"}  # still one each
    assert not any("fitted" in name and len(shape) > 1 for name, shape in shapes.items())
    assert min(shapes["v"][:2]) < 8
    assert result.output_errors is not None
    cut, solved = result.output_errors
    assert solved < 2e-3 * cut
    inputs = feeds(model, batch=40, seed=7)
    for wanted, found in zip(run(model, inputs), run(result.model.to_proto(), inputs), strict=True):
        scale = float(np.abs(wanted).max())
        np.testing.assert_allclose(found / scale, wanted / scale, atol=0.03)


@pytest.mark.usefixtures("all_fitted")
def test_the_sum_of_all_equations_is_solved() -> None:
    """By hand, from the rows of both branches, each relative to the variance of its output."""
    model = build(
        "(float[batch, 6] x, float[batch, 6] z) => (float[batch, 7] y)",
        "h = MatMul (x, u) r = Relu (h) p = MatMul (r, v) i = MatMul (z, u) s = Relu (i) q = MatMul (s, v) "
        "y = Mul (p, q)",
        {"u": (6, 12), "v": (12, 7)},
    )
    data = feeds(model, batch=4000)
    data["z"] *= 3.0
    plan = gp.plan(model, target={"macs": 0.8}, criterion="l2")
    pruned = gp.apply(model, plan, compensator="obs", calibration=data)
    (entry,) = (e for e in plan.parameters if e.name == "v" and e.axis == 0)
    keep = np.array(entry.keep)
    u, v = initializer(model, "u").astype(np.float64), initializer(model, "v").astype(np.float64)
    goes = np.setdiff1d(np.arange(12), keep)
    left, right = np.zeros((len(keep), len(keep))), np.zeros((len(keep), 7))
    for rows in (np.maximum(data["x"] @ u, 0), np.maximum(data["z"] @ u, 0)):
        weight = 1 / ((rows @ v).var(axis=0).sum() * len(rows))
        left += rows[:, keep].T @ rows[:, keep] * weight
        right += rows[:, keep].T @ rows[:, goes] @ v[goes] * weight
    expected = v[keep] + np.linalg.solve(left + np.eye(len(keep)) * 1e-3 * np.trace(left) / len(keep), right)
    found = next(x for n, x in pruned.ir.graph.initializers.items() if n == "v").const_value.numpy()  # type: ignore[union-attr]
    np.testing.assert_allclose(found, expected, rtol=0.01, atol=0.002)
