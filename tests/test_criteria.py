"""Criteria: scores by hand, over everything that goes with a unit."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphprune.passes.criteria import CRITERIA, Magnitude, Random
from networks import NETWORKS, Array, build, initializer, replace

from graphprune import api
from graphprune.calibration.evidence import Evidence
from graphprune.errors import ModelError
from graphprune.graph import DependencyGraph, analyze
from graphprune.groups import Group
from graphprune.model import load


def group_of(graph: DependencyGraph, name: str) -> Group:
    return next(g for g in graph.groups if g.id == name)


@pytest.mark.parametrize("p", [1, 2])
def test_magnitude_sums_over_all_members(p: int) -> None:
    model = NETWORKS["mlp"]()
    graph = analyze(load(model))
    w = {
        n: np.abs(initializer(model, n).astype(np.float64)) ** p for n in ("a.w", "a.b", "b.w", "b.b", "c.w")
    }
    scores = Magnitude(p)(Evidence(graph))
    first = w["a.w"].sum(0) + w["a.b"] + w["b.w"].sum(1)
    second = w["b.w"].sum(0) + w["b.b"] + w["c.w"].sum(1)
    assert scores[group_of(graph, "a.w:1").units] == pytest.approx(first ** (1 / p), rel=1e-5)
    assert scores[group_of(graph, "b.w:1").units] == pytest.approx(second ** (1 / p), rel=1e-5)
    assert scores[0] == 0


def test_running_statistics_and_divisors_do_not_count() -> None:
    model = NETWORKS["cnn"]()
    scores = Magnitude(2)(Evidence(analyze(load(model))))
    for name in ("stem.bn.var", "stem.bn.mean"):
        replace(model, name, initializer(model, name) * 100)
    assert np.array_equal(Magnitude(2)(Evidence(analyze(load(model)))), scores)
    replace(model, "stem.bn.scale", initializer(model, "stem.bn.scale") * 100)
    assert not np.array_equal(Magnitude(2)(Evidence(analyze(load(model)))), scores)


def test_flattened_positions_all_answer_for_their_channel() -> None:
    model = NETWORKS["flatten"]()
    graph = analyze(load(model))
    group = group_of(graph, "stem.w:0")
    expected = (
        np.abs(initializer(model, "stem.w")).sum((1, 2, 3))
        + np.abs(initializer(model, "stem.b"))
        + np.abs(initializer(model, "fc.w")).reshape(4, -1).sum(1)
    )
    assert Magnitude(1)(Evidence(graph))[group.units] == pytest.approx(expected, rel=1e-5)


def test_tied_weight_counts_once_per_axis() -> None:
    model = build(
        "(float[batch, 4] x) => (float[batch, 3] y)",
        "h = MatMul (x, in.w) a = MatMul (h, w) b = MatMul (h, w) s = Mul (a, b) y = MatMul (s, out.w)",
        {"in.w": (4, 6), "w": (6, 5), "out.w": (5, 3)},
    )
    graph = analyze(load(model))
    w, out = np.abs(initializer(model, "w")), np.abs(initializer(model, "out.w"))
    score = Magnitude(1)(Evidence(graph))[group_of(graph, "w:1").units]
    assert score == pytest.approx(w.sum(0) + out.sum(1), rel=1e-5)


def test_half_precision_does_not_overflow() -> None:
    model = build(
        "(float16[batch, 4] x) => (float16[batch, 3] y)",
        "h = MatMul (x, a.w) y = MatMul (h, b.w)",
        {"a.w": np.full((4, 6), 300, np.float16), "b.w": np.ones((6, 3), np.float16)},
    )
    graph = analyze(load(model))
    score = Magnitude(2)(Evidence(graph))[group_of(graph, "a.w:1").units]
    assert score == pytest.approx(np.sqrt(4 * 300.0**2 + 3), rel=1e-5)


def nan_at(name: str) -> onnx.ModelProto:
    model = NETWORKS["mlp"]()
    array: Array = initializer(model, name).copy()
    array.reshape(-1)[3] = np.nan
    replace(model, name, array)
    return model


@pytest.mark.parametrize("name", ["a.w", "a.b", "c.w"])
@pytest.mark.parametrize("criterion", ["l1", "l2"])
def test_nan_weights_are_refused_by_name(name: str, criterion: str) -> None:
    with pytest.raises(ModelError, match=f"the weights of '{name}' hold NaN") as caught:
        api.plan(nan_at(name), target={"macs": 0.5}, criterion=criterion)
    assert caught.value.exit_code == 1


def test_random_is_reproducible_and_depends_on_the_seed() -> None:
    evidence = Evidence(analyze(load(NETWORKS["mlp"]())))
    assert np.array_equal(Random(1)(evidence), Random(1)(evidence))
    assert not np.array_equal(Random(1)(evidence), Random(2)(evidence))


def test_names() -> None:
    assert {"l1", "l2", "obs", "random"} <= set(CRITERIA)
    assert CRITERIA["l1"](5) == Magnitude(1)
    assert CRITERIA["l2"](5) == Magnitude(2)
    assert CRITERIA["random"](5) == Random(5)


@pytest.mark.parametrize("criterion", ["l1", "l2"])
def test_dead_channels_go_first_and_change_nothing(criterion: str) -> None:
    """Channels that nobody produces or reads have score zero; without them the function is the same."""
    model = NETWORKS["mlp"]()
    dead = [1, 4, 7]
    for name, axis in (("a.w", 1), ("a.b", 0), ("b.w", 0)):
        array = initializer(model, name).copy()
        array[(slice(None),) * axis + (dead,)] = 0
        replace(model, name, array)
    graph = analyze(load(model))
    scores = CRITERIA[criterion](0)(Evidence(graph))[group_of(graph, "a.w:1").units]
    assert sorted(np.flatnonzero(scores == 0)) == dead
