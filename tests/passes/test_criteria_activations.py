"""Criteria that look at activations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from graphprune.passes.allocators import Allocation, Limits
from graphprune.passes.criteria import CRITERIA
from graphprune.passes.criteria.block_change import angular_changes
from graphprune.passes.criteria.cfsp import CoarseToFine
from graphprune.passes.criteria.fluctuation import Fluctuation
from networks import NETWORKS, build, feeds, initializer, run
from small_evidence import (
    changed,
    evidence_of,
    group_of,
    hidden,
    two_branches,
    two_convolutions,
    two_layers,
    two_readers,
    windows,
)

from graphprune.calibration.evidence import Evidence

pytestmark = pytest.mark.usefixtures("all_fitted")
ACTIVATIONS = ["act-mean", "act-norm", "cfsp", "flap", "variance", "wanda"]
NEED_TORCH = {"fisher", "grasp", "snip", "synflow", "taylor"}


def scores_of(criterion: str, evidence: Evidence, group: str) -> np.ndarray:
    return CRITERIA[criterion](0)(evidence)[group_of(evidence, group).units]


@pytest.mark.parametrize("criterion", ACTIVATIONS)
@pytest.mark.parametrize("build", [two_layers, two_convolutions])
def test_silent_channels_score_least(criterion: str, build: Callable[[], onnx.ModelProto]) -> None:
    """A bias far below zero in front of a ReLU: only data can tell."""
    evidence = evidence_of(changed(build(), "a.b", 3, -100.0))
    member = "a.w:1" if build is two_layers else "a.w:0"
    scores = scores_of(criterion, evidence, member)
    assert scores[3] == scores.min() < np.delete(scores, 3).min()


@pytest.mark.parametrize("criterion", ["flap", "variance", "wanda"])
def test_channels_that_nobody_listens_to_score_least(criterion: str) -> None:
    scores = scores_of(criterion, evidence_of(changed(two_layers(), "b.w", 3, 0.0)), "a.w:1")
    assert scores[3] < np.delete(scores, 3).min()


@pytest.mark.parametrize("criterion", ["flap", "variance"])
def test_constant_channels_are_no_loss(criterion: str) -> None:
    """However large: the bias takes their mean."""
    model = changed(two_layers(), "a.w", (slice(None), 3), 0.0)
    changed(model, "a.b", 3, 100.0)
    evidence = evidence_of(model)
    scores = scores_of(criterion, evidence, "a.w:1")
    assert np.argmin(scores) == 3
    assert np.argmax(scores_of("wanda", evidence, "a.w:1")) == 3


@pytest.mark.parametrize("criterion", ["act-mean", "act-norm", "variance", "wanda"])
def test_the_scale_of_one_reader_does_not_matter(criterion: str) -> None:
    model, scaled = two_readers(), two_readers()
    changed(scaled, "c.w", ..., initializer(model, "c.w") * 50)
    before, after = (CRITERIA[criterion](0)(evidence_of(m)) for m in (model, scaled))
    assert after == pytest.approx(before, rel=1e-4)


def by_hand(criterion: str, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Scores of single features ``x [n, d]`` at a weight ``[d, o]``, its output being all that counts."""
    energy = (x @ w).var(axis=0).sum()
    power, means = (x**2).mean(0), np.abs(x.mean(0))
    return {
        "wanda": np.sqrt(power) * np.abs(w).sum(1) / np.sqrt(energy),
        "variance": x.var(0) * (w**2).sum(1) / energy,
        "act-norm": np.sqrt(power / power.sum()),
        "act-mean": means / means.sum(),
    }[criterion]


FORMULAS = ["wanda", "variance", "act-norm", "act-mean"]


@pytest.mark.parametrize("criterion", FORMULAS)
def test_formulas_of_a_dense_layer(criterion: str) -> None:
    model = two_layers()
    x = hidden(model, feeds(model, batch=64))
    expected = by_hand(criterion, x, initializer(model, "b.w").astype(np.float64))
    assert scores_of(criterion, evidence_of(model), "a.w:1") == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("criterion", FORMULAS)
def test_readers_are_added_up(criterion: str) -> None:
    model = two_readers()
    x = hidden(model, feeds(model, batch=64))
    expected = sum(by_hand(criterion, x, initializer(model, n).astype(np.float64)) for n in ("b.w", "c.w"))
    assert scores_of(criterion, evidence_of(model), "a.w:1") == pytest.approx(expected, rel=1e-4)


def convolved(model: onnx.ModelProto, samples: int, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """What the second convolution reads ``[n, groups, c, 9]``, and its weight ``[groups, c, 9, o]``."""
    x = windows(feeds(model, batch=samples)["x"].astype(np.float64))
    first = np.einsum("nck,ock->no", x, initializer(model, "a.w").reshape(8, 3, 9)) + initializer(
        model, "a.b"
    )
    image = np.maximum(first, 0.0).reshape(samples, 5, 5, 8).transpose(0, 3, 1, 2)
    read = windows(image).reshape(-1, groups, 8 // groups, 9)
    weight = initializer(model, "b.w").astype(np.float64).reshape(groups, 6 // groups, 8 // groups, 9)
    return read, weight.transpose(0, 2, 3, 1)


@pytest.mark.parametrize("groups", [1, 2])
def test_formulas_of_a_convolution(groups: int) -> None:
    """A channel's features are the positions of its window; a unit inside groups has a channel in each."""
    model = two_convolutions(groups)
    read, weight = convolved(model, 16, groups)
    energy = np.einsum("ngck,gcko->ngo", read, weight).reshape(len(read), -1).var(axis=0).sum()
    evidence = evidence_of(model, 16)
    power = (read**2).mean(0)
    wanda = (np.sqrt(power) * np.abs(weight).sum(3)).sum((0, 2)) / np.sqrt(energy)
    assert scores_of("wanda", evidence, "b.w:1") == pytest.approx(wanda, rel=1e-4)
    centred = read - read.mean(0)
    covariance = np.einsum("ngck,ngcl->gckl", centred, centred) / len(read)
    error = np.einsum("gcko,gckl,gclo->c", weight, covariance, weight) / energy
    assert scores_of("variance", evidence, "b.w:1") == pytest.approx(error, rel=1e-4)


def test_error_of_means_is_what_the_outputs_show() -> None:
    """One channel at its mean, in numpy: the score is the relative squared error of the outputs."""
    model = two_layers()
    x, w = hidden(model, feeds(model, batch=64)), initializer(model, "b.w").astype(np.float64)
    y = x @ w
    scores = scores_of("variance", evidence_of(model), "a.w:1")
    for unit in range(8):
        replaced = x.copy()
        replaced[:, unit] = x[:, unit].mean()
        error = np.square(replaced @ w - y).sum(axis=1).mean() / y.var(axis=0).sum()
        assert scores[unit] == pytest.approx(error, rel=1e-4)


def test_fluctuation_is_standardised_within_each_group() -> None:
    model = two_branches()
    evidence = evidence_of(model)
    scores = Fluctuation()(evidence)
    inner = [scores[group_of(evidence, name).units] for name in ("a.up:1", "b.up:1")]
    assert [s.std() for s in inner] == pytest.approx([1.0, 1.0])
    assert inner[0].mean() == pytest.approx(inner[1].mean())
    assert scores[[u for g in evidence.graph.groups if g.prunable for u in g.units]].min() == 0
    x, w = hidden_of_branch(model), initializer(model, "a.down").astype(np.float64)
    raw = x.var(axis=0) * (w**2).sum(1)
    assert inner[0] - inner[0].mean() == pytest.approx((raw - raw.mean()) / raw.std(), rel=1e-4, abs=1e-5)


def hidden_of_branch(model: onnx.ModelProto) -> np.ndarray:
    x = feeds(model, batch=64)["x"].astype(np.float64)
    return np.maximum(x @ initializer(model, "a.up"), 0.0)


def test_a_ranking_relative_to_means_is_that_of_standardised_scores() -> None:
    evidence = evidence_of(two_branches())
    groups = [group_of(evidence, name) for name in ("a.up:1", "b.up:1")]
    scores = Fluctuation()(evidence)
    allocation = Allocation(groups, scores, Limits(0.0), evidence.graph, targets={"macs": 0.5})
    own = np.concatenate([scores[g.units] for g in groups])
    assert np.array_equal(own[allocation.ranking], np.sort(own))


def test_angles_between_both_ends_of_a_branch() -> None:
    model = two_branches()
    changes = angular_changes(evidence_of(model))
    x = feeds(model, batch=64)["x"].astype(np.float64)
    t = x + hidden_of_branch(model) @ initializer(model, "a.down")
    y = run(model, feeds(model, batch=64))[0].astype(np.float64)
    expected = []
    for a, b in ((x, t), (t, y)):
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        expected.append(np.arccos(cosine).mean() / np.pi)
    assert list(changes.values()) == pytest.approx(expected, rel=1e-4)


def test_coarse_to_fine() -> None:
    model = two_branches()
    evidence = evidence_of(model)
    scores, changes = CoarseToFine()(evidence), list(angular_changes(evidence).values())
    coarse = np.array(changes) / np.mean(changes)
    sums = [scores[group_of(evidence, name).units].sum() for name in ("a.up:1", "b.up:1")]
    assert sums == pytest.approx(coarse)
    blocks = [scores[g.units[0]] for g in evidence.graph.groups if g.kind == "blocks"]
    assert blocks == pytest.approx(coarse)
    x, up, down = hidden_of_branch(model), initializer(model, "a.up"), initializer(model, "a.down")
    norm = np.sqrt((x**2).mean(0))
    inflow = np.abs(down) * norm[:, None]
    made = (np.abs(up) / np.abs(up).sum(1, keepdims=True)).mean(0)
    fine = norm * ((inflow / inflow.sum(0)).mean(1) + made)
    found = scores[group_of(evidence, "a.up:1").units]
    assert found == pytest.approx(fine / fine.sum() * coarse[0], rel=1e-4)


def test_a_branch_that_adds_nothing_scores_nothing() -> None:
    evidence = evidence_of(changed(two_branches(), "a.down", ..., 0.0))
    scores = CoarseToFine()(evidence)
    assert scores[group_of(evidence, "a.up:1").units] == pytest.approx(np.zeros(8), abs=1e-6)
    assert scores[group_of(evidence, "b.up:1").units].min() > 1e-3


@pytest.mark.parametrize(
    "criterion",
    [pytest.param(n, marks=pytest.mark.torch) if n in NEED_TORCH else n for n in sorted(CRITERIA)],
)
@pytest.mark.parametrize(
    "name", ["cnn", "dense", "depthwise_se", "grouped", "attention", "grouped_query", "group_norm", "flatten"]
)
def test_every_criterion_scores_every_structure(criterion: str, name: str) -> None:
    evidence = evidence_of(NETWORKS[name](), 32)
    found = CRITERIA[criterion](3)
    scores = found(evidence)
    assert scores.shape == (len(evidence.graph.analysis.algebra),)
    assert np.isfinite(scores).all()
    assert isinstance(found.additive, bool)
    for group in evidence.graph.groups:
        if group.prunable:
            assert scores[group.units].min() >= 0
            assert scores[group.units].max() > 0


def test_a_stream_matters_to_all_blocks_that_read_it() -> None:
    body = """
        k = MatMul (x, in.w) h = MatMul (k, a.up) r = Relu (h) s = MatMul (r, a.down) t = Add (k, s)
        i = MatMul (t, b.up) q = Relu (i) u = MatMul (q, b.down) v = Add (t, u) y = MatMul (v, out.w)"""
    weights = {
        "in.w": (4, 6),
        "a.up": (6, 8),
        "a.down": (8, 6),
        "b.up": (6, 9),
        "b.down": (9, 6),
        "out.w": (6, 3),
    }
    evidence = evidence_of(build("(float[batch, 4] x) => (float[batch, 3] y)", body, weights))
    scores = CoarseToFine()(evidence)
    blocks = [scores[g.units[0]] for g in evidence.graph.groups if g.kind == "blocks"]
    assert scores[group_of(evidence, "in.w:1").units].sum() == pytest.approx(sum(blocks)) == 2.0
