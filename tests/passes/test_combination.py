"""Removed channels as linear combinations of kept ones, from weights and BatchNormalization alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from graphprune.passes.compensators import COMPENSATORS
from graphprune.passes.criteria import CRITERIA
from networks import build, feeds, initializer, run
from small_evidence import evidence_of, group_of

import graphprune as gp
from graphprune.calibration.activations import behind
from graphprune.calibration.weight_moments import WeightMoments
from graphprune.rewrite import cut

Array = npt.NDArray[Any]


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def norm(width: int, factors: Array | None = None) -> dict[str, Array]:
    """BatchNormalization whose last half is the first one, each channel times a factor."""
    half = width // 2
    found = {"mean": random(half, seed=1), "var": np.abs(random(half, seed=2)) + 0.5}
    found |= {"s": random(half, seed=3) + 2.0, "b": random(half, seed=4)}
    if factors is None:
        return {k: np.concatenate([a, a]) for k, a in found.items()}
    grown = {"mean": found["mean"] * factors, "var": found["var"] * factors**2 + 1e-5 * (factors**2 - 1)}
    grown |= {"s": found["s"] * factors, "b": found["b"] * factors}
    return {k: np.concatenate([found[k], grown[k]]) for k in found}


FACTORS = np.array([0.5, 2.0, 1.5, 3.0], np.float32)


def twins() -> Array:
    """Filters, and a positive multiple of each."""
    own = random(4, 3, 3, 3)
    return np.concatenate([own, own * FACTORS[:, None, None, None]])


def linear() -> onnx.ModelProto:
    """8 channels that are mixes of 3 filters, read at once."""
    mixed = np.einsum("om,mcij->ocij", random(8, 3), random(3, 3, 3, 3)).astype(np.float32)
    return build(
        "(float[batch, 3, 8, 8] x) => (float[batch, 5, 6, 6] y)", "h = Conv (x, u) y = Conv (h, v)",
        {"u": mixed, "v": (5, 8, 1, 1)},
    )  # fmt: skip


def rectified() -> onnx.ModelProto:
    """Channels in pairs, normalised as their sizes call for."""
    body = "h = Conv (x, u) n = BatchNormalization (h, s, b, mean, var) r = Relu (n) y = Conv (r, v)"
    weights: dict[str, Any] = {"u": twins(), "v": (5, 8, 3, 3), **norm(8, FACTORS)}
    return build("(float[batch, 3, 8, 8] x) => (float[batch, 5, 4, 4] y)", body, weights)


def depthwise() -> onnx.ModelProto:
    """The same through a depthwise convolution that treats both of a pair alike."""
    body = """
        h = Conv (x, u) r = Relu (h) d = Conv <group = 8> (r, k) q = Relu (d) y = Conv (q, v)"""
    kernel = random(4, 1, 3, 3)
    weights: dict[str, Any] = {"u": twins(), "k": np.concatenate([kernel, kernel]), "v": (5, 8, 1, 1)}
    return build("(float[batch, 3, 9, 9] x) => (float[batch, 5, 5, 5] y)", body, weights)


def flattened() -> onnx.ModelProto:
    """The same, read position by position."""
    body = """
        h = Conv (x, u) r = Relu (h) p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
        f = Flatten (p) y = MatMul (f, v)"""
    return build("(float[batch, 3, 6, 6] x) => (float[batch, 5] y)", body, {"u": twins(), "v": (32, 5)})


def gated() -> onnx.ModelProto:
    """Copies behind ``x * sigmoid(x)``."""
    own = random(4, 3, 3, 3)
    body = "h = Conv (x, u) g = Sigmoid (h) r = Mul (h, g) y = Conv (r, v)"
    weights: dict[str, Any] = {"u": np.concatenate([own, own]), "v": (5, 8, 1, 1)}
    return build("(float[batch, 3, 6, 6] x) => (float[batch, 5, 4, 4] y)", body, weights)


def compensated(model: onnx.ModelProto, goes: list[int]) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Without these channels: cut only, and with the others taking over."""
    evidence = evidence_of(model)
    removed = np.zeros(len(evidence.graph.analysis.algebra), bool)
    removed[group_of(evidence, "u:0").units[goes]] = True
    change = COMPENSATORS["combination"]
    assert change is not None
    plain = cut(evidence.graph.analysis, removed)
    made = change(evidence, removed, cut(evidence.graph.analysis, removed))
    assert not {"samples", "moments"} & evidence.__dict__.keys()
    return plain.to_proto(), made.to_proto()


@pytest.mark.parametrize("make", [linear, rectified, depthwise, flattened, gated])
def test_a_combination_of_others_goes_and_nothing_is_lost(make: Any) -> None:
    model = make()
    plain, made = compensated(model, [4, 5, 6, 7])
    inputs = feeds(model, batch=20, seed=9)
    (wanted,), (cut_only,), (found,) = (run(m, inputs) for m in (model, plain, made))
    scale = float(np.abs(wanted).max())
    assert np.abs(cut_only - wanted).max() > 0.05 * scale
    # The damping of 1e-3 takes the same part of each combination away.
    assert np.abs(found - wanted).max() < 5e-3 * scale


def test_a_layer_that_reads_a_sum_stays_as_it_is() -> None:
    body = """
        h = Conv (x, u) g = Conv (x, w) s = Add (h, g) r = Relu (s) y = Conv (r, v)"""
    weights: dict[str, Any] = {"u": twins(), "w": (8, 3, 3, 3), "v": (5, 8, 1, 1)}
    model = build("(float[batch, 3, 6, 6] x) => (float[batch, 5, 4, 4] y)", body, weights)
    plain, made = compensated(model, [1, 6])
    assert plain.SerializeToString(deterministic=True) == made.SerializeToString(deterministic=True)


def test_norms_say_how_large_channels_are() -> None:
    """Whatever the filters' norms are; correlations are those of the filters."""
    evidence = evidence_of(rectified())
    reader = next(c for c in evidence.consumers if c.use.value.name == "v")
    moments = WeightMoments.of(evidence)(reader)
    assert moments is not None
    stored = norm(8, FACTORS)
    rng = np.random.default_rng(0)
    filters = twins().reshape(8, -1).astype(np.float64)
    factor = stored["s"] * np.sqrt(stored["var"] / (stored["var"] + 1e-5)) / np.linalg.norm(filters, axis=1)
    drawn = rng.standard_normal((200_000, filters.shape[1])) @ filters.T * factor + stored["b"]
    made = np.maximum(drawn, 0)
    np.testing.assert_allclose(moments.mean[0, ::9], made.mean(axis=0), atol=0.03)
    np.testing.assert_allclose(moments.second[0, ::9, ::9], made.T @ made / len(made), rtol=0.03, atol=0.03)


@pytest.mark.parametrize("shift", [-1.0, 0.0, 2.0])
def test_covariances_behind_an_activation(shift: float) -> None:
    rng = np.random.default_rng(1)
    factor = rng.standard_normal((5, 5))
    covariance = factor @ factor.T
    mean = shift + rng.standard_normal(5)
    drawn = rng.multivariate_normal(mean, covariance, size=400_000)
    for function in (lambda x: np.maximum(x, 0), lambda x: x.clip(0, 2), lambda x: x):
        centre, found = behind(function, mean, covariance)
        made = function(drawn)
        scale = float(np.sqrt(np.diag(np.cov(made.T)).max()))
        np.testing.assert_allclose(centre, made.mean(axis=0), atol=0.02 * scale)
        np.testing.assert_allclose(found, np.cov(made.T), atol=0.02 * scale**2)


def test_the_criterion_lets_combinations_go_first() -> None:
    evidence = evidence_of(linear())
    group = group_of(evidence, "u:0")
    scores = CRITERIA["combination"](0)(evidence)[group.units]
    assert np.sort(scores)[4] < 1e-2 * np.sort(scores)[5]  # five of eight are superfluous
    assert "samples" not in evidence.__dict__


def test_the_recipe_needs_no_samples_of_anybody() -> None:
    model = rectified()
    result = gp.prune(model, target={"macs": 0.5}, recipe="udfc", calibration={"x": "not even read"})
    assert result.is_synthetic
    assert result.output_errors is not None
    assert result.output_errors[1] < result.output_errors[0]
    kept = next(p.keep for p in result.plan.parameters if p.name == "u" and p.axis == 0)
    assert len({k % 4 for k in kept}) == len(kept)  # no pair stays whole
    assert initializer(result.model.to_proto(), "v").shape[1] == len(kept)


def test_bounds_of_a_clip_are_read() -> None:
    body = "h = Conv (x, u) r = Clip (h, lo, hi) y = Conv (r, v)"
    weights: dict[str, Any] = {"u": twins(), "v": (5, 8, 1, 1), "lo": np.float32(0), "hi": np.float32(0.5)}
    model = build("(float[batch, 3, 6, 6] x) => (float[batch, 5, 4, 4] y)", body, weights)
    evidence = evidence_of(model)
    reader = next(c for c in evidence.consumers if c.use.value.name == "v")
    moments = WeightMoments.of(evidence)(reader)
    assert moments is not None
    assert moments.mean.max() <= 0.5
