"""Criteria that differentiate, against derivatives by hand."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from graphprune.passes.criteria import CRITERIA
from networks import NETWORKS, build, feeds, initializer
from small_evidence import changed, group_of, two_layers

import graphprune as gp
from graphprune.calibration.evidence import Evidence
from graphprune.errors import CalibrationError, ModelError
from graphprune.graph import analyze
from graphprune.model import load

GRADIENTS = ("taylor", "fisher", "snip", "grasp", "synflow")
Array = np.ndarray[Any, Any]
Weights = dict[str, Array]


def labelled(samples: int, **weights: Any) -> tuple[Evidence, Weights, Array, Array]:
    """The two layers with one batch of labelled samples; everything that a hand needs."""
    model = two_layers(**weights)
    x = feeds(model, batch=samples)["x"]
    labels = np.arange(samples) % 3
    evidence = Evidence(analyze(load(model)), {"x": x, "labels": labels})
    found = {name: initializer(model, name).astype(np.float64) for name in ("a.w", "a.b", "b.w")}
    return evidence, found, x.astype(np.float64), labels


def gradients(w: Weights, x: Array, labels: Array) -> Weights:
    """Of the mean cross-entropy, by hand."""
    hidden = x @ w["a.w"] + w["a.b"]
    seen = np.maximum(hidden, 0)
    logits = seen @ w["b.w"]
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    back = (shares - np.eye(3)[labels]) / len(x)
    below = (back @ w["b.w"].T) * (hidden > 0)
    return {"a.w": x.T @ below, "a.b": below.sum(0), "b.w": seen.T @ back}


def units(terms: Weights) -> Array:
    """Sums over everything that goes with a hidden unit."""
    return np.asarray(terms["a.w"].sum(0) + terms["a.b"] + terms["b.w"].sum(1))


def products(w: Weights, g: Weights, function: Callable[[Array], Array] = np.asarray) -> Array:
    return units({name: function(w[name] * g[name]) for name in w})


def scores_of(criterion: str, evidence: Evidence, seed: int = 0) -> Array:
    return np.asarray(CRITERIA[criterion](seed)(evidence)[group_of(evidence, "a.w:1").units])


@pytest.mark.torch
def test_taylor_is_the_squared_first_order_change_of_the_loss() -> None:
    evidence, w, x, labels = labelled(12)
    expected = products(w, gradients(w, x, labels)) ** 2
    assert scores_of("taylor", evidence) == pytest.approx(expected, rel=1e-4)


@pytest.mark.torch
def test_taylor_is_a_mean_over_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphprune.passes.criteria import taylor

    monkeypatch.setattr(taylor, "batch_size", lambda evidence: 5)
    evidence, w, x, labels = labelled(10)
    halves = [products(w, gradients(w, x[i : i + 5], labels[i : i + 5])) ** 2 for i in (0, 5)]
    assert scores_of("taylor", evidence) == pytest.approx(np.mean(halves, axis=0), rel=1e-4)


@pytest.mark.torch
def test_fisher_adds_up_squares_of_single_samples() -> None:
    """And not the square of their sum, nor that of the last one alone."""
    evidence, w, x, labels = labelled(9)
    alone = [products(w, gradients(w, x[i : i + 1], labels[i : i + 1]), np.square) for i in range(9)]
    assert scores_of("fisher", evidence) == pytest.approx(0.5 * np.mean(alone, axis=0), rel=1e-4)


@pytest.mark.torch
def test_snip_is_a_share_of_all_connections() -> None:
    evidence, w, x, labels = labelled(12)
    found = products(w, gradients(w, x, labels), np.abs)
    assert scores_of("snip", evidence) == pytest.approx(found / found.sum(), rel=1e-4)


@pytest.mark.torch
@pytest.mark.parametrize("name", ["snip", "grasp", "fisher"])
def test_labels_that_all_say_none_are_refused(name: str) -> None:
    model = two_layers()
    samples = {**feeds(model, batch=4), "labels": np.full(4, -1)}
    with pytest.raises(CalibrationError, match="no calibration sample has a label"):
        scores_of(name, Evidence(analyze(load(model)), samples))


@pytest.mark.torch
def test_grasp_is_the_hessian_times_the_gradient() -> None:
    evidence, w, x, labels = labelled(12)
    g, step = gradients(w, x, labels), 1e-5
    ahead, behind = (gradients({k: w[k] + s * g[k] for k in w}, x, labels) for s in (step, -step))
    flow = products(w, {k: (ahead[k] - behind[k]) / (2 * step) for k in w})
    found = scores_of("grasp", evidence)
    assert found - found[0] == pytest.approx(flow - flow[0], rel=1e-3, abs=1e-6)
    assert min(flow) < max(flow)


@pytest.mark.torch
def test_synflow_is_the_flow_through_absolute_weights() -> None:
    model = two_layers()
    w = {name: np.abs(initializer(model, name).astype(np.float64)) for name in ("a.w", "a.b", "b.w")}
    evidence = Evidence(analyze(load(model)), feeds(model, batch=4))
    flow = 2 * (w["a.w"].sum(0) + w["a.b"]) * w["b.w"].sum(1)
    assert scores_of("synflow", evidence) == pytest.approx(flow, rel=1e-6)
    assert not {"samples", "batches"} & vars(evidence).keys()


@pytest.mark.torch
def test_without_labels_taylor_is_the_change_of_the_outputs() -> None:
    """A linear network: each unit's part of the output, from both of its layers, in units of its size."""
    body = "h = MatMul (x, a.w) y = MatMul (h, b.w)"
    model = build("(float[batch, 6] x) => (float[batch, 1] y)", body, {"a.w": (6, 8), "b.w": (8, 1)})
    x = feeds(model, batch=1)["x"].astype(np.float64)
    a, b = (initializer(model, name).astype(np.float64) for name in ("a.w", "b.w"))
    parts = (x @ a)[0] * b[:, 0]
    evidence = Evidence(analyze(load(model)), {"x": x.astype(np.float32)})
    assert scores_of("taylor", evidence) == pytest.approx((2 * parts / parts.sum()) ** 2, rel=1e-4)


@pytest.mark.torch
@pytest.mark.parametrize("criterion", ["taylor", "fisher", "snip"])
def test_without_labels_all_outputs_count(criterion: str) -> None:
    """A unit that matters to the second output alone matters, however small that output is."""
    body = "h = MatMul (x, a.w) r = Relu (h) y = MatMul (r, b.w) z = MatMul (r, c.w)"
    weights = {"a.w": (6, 8), "b.w": (8, 3), "c.w": (8, 5)}
    model = build("(float[batch, 6] x) => (float[batch, 3] y, float[batch, 5] z)", body, weights)
    changed(model, "b.w", 2, 0.0)
    changed(model, "c.w", ..., initializer(model, "c.w") * 1e-3)
    scores = scores_of(criterion, Evidence(analyze(load(model)), feeds(model, batch=64)))
    assert scores[2] > 0.1 * np.median(scores)


@pytest.mark.torch
@pytest.mark.parametrize("criterion", GRADIENTS)
def test_merged_vectors_are_judged_use_by_use(criterion: str) -> None:
    """Two biases that an exporter made one: a unit answers for its own use of it."""
    body = """
        h = MatMul (x, a.w) i = Add (h, bias) r = Relu (i)
        k = MatMul (r, b.w) l = Add (k, {second}) q = Relu (l) y = MatMul (q, c.w)"""
    signature = "(float[batch, 6] x) => (float[batch, 3] y)"
    bias = np.linspace(0.1, 0.8, 8, dtype=np.float32)
    weights = {"a.w": (6, 8), "b.w": (8, 8), "c.w": (8, 3), "bias": bias}
    shared = build(signature, body.format(second="bias"), weights)
    apart = build(signature, body.format(second="bias2"), {**weights, "bias2": bias})
    x = feeds(shared, batch=16)
    found = [scores_of(criterion, Evidence(analyze(load(m)), x)) for m in (shared, apart)]
    assert found[0] == pytest.approx(found[1], rel=1e-6)


@pytest.mark.torch
@pytest.mark.parametrize("criterion", GRADIENTS)
def test_a_seed_gives_the_same_scores(criterion: str) -> None:
    model = NETWORKS["cnn"]()
    first, second = (
        CRITERIA[criterion](3)(Evidence(analyze(load(model)), feeds(model, batch=16))) for _ in range(2)
    )
    assert np.array_equal(first, second)


@pytest.mark.torch
@pytest.mark.parametrize("criterion", GRADIENTS)
def test_a_prune_by_it_is_right(criterion: str) -> None:
    model = NETWORKS["depthwise_se"]()
    samples = feeds(model, batch=16)
    result = gp.prune(model, target={"params": 0.8}, criterion=criterion, calibration=samples)
    assert result.after.params <= 0.8 * result.before.params
    assert result.verdict is not None


@pytest.mark.torch
@pytest.mark.parametrize("criterion", ["taylor", "fisher", "snip", "grasp"])
def test_labels_that_fit_no_output_are_refused(criterion: str) -> None:
    model = two_layers()
    given = {**feeds(model, batch=6), "labels": np.full(6, 3)}
    with pytest.raises(CalibrationError, match="the labels are no classes of any output"):
        CRITERIA[criterion](0)(Evidence(analyze(load(model)), given))


@pytest.mark.torch
def test_labels_are_not_learned_by_an_embedding() -> None:
    """They fit `features` as well, which come first and guess nothing."""
    import torch
    from graphprune.converters.torch_graph.objective import Objective

    labels = np.arange(32) % 10
    features = (0.1 * torch.randn(32, 16, generator=torch.Generator().manual_seed(0))).requires_grad_()
    logits = (8.0 * torch.eye(10)[torch.from_numpy(labels)]).requires_grad_()
    Objective(0)({"features": features, "logits": logits}, labels).backward()
    assert features.grad is None
    assert logits.grad is not None
    for twins in ({"a": logits, "b": logits}, {"a": features, "b": features}):
        with pytest.raises(CalibrationError, match="classes of several outputs"):
            Objective(0)(twins, labels)


@pytest.mark.torch
@pytest.mark.parametrize("criterion", GRADIENTS)
def test_weights_that_are_no_numbers_are_refused(criterion: str) -> None:
    model = changed(two_layers(), "a.w", (2, 3), np.nan)
    with pytest.raises(ModelError, match=r"the weights of 'a\.w' hold NaN"):
        CRITERIA[criterion](0)(Evidence(analyze(load(model)), feeds(model, batch=6)))


@pytest.mark.parametrize("criterion", GRADIENTS)
def test_without_torch_one_line_says_what_to_install(criterion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    model = two_layers()
    with pytest.raises(ModelError, match="torch is not installed") as error:
        CRITERIA[criterion](0)(Evidence(analyze(load(model)), feeds(model, batch=6)))
    assert "graphprune[torch]" in (error.value.hint or "")
