"""Criteria that look at weights alone."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphprune.passes.criteria import CRITERIA, fpgm
from graphprune.passes.criteria.data_free import DataFreeBound
from graphprune.passes.criteria.fpgm import GeometricMedian, sums_of_distances
from graphprune.passes.criteria.lamp import Lamp, relative_to_larger
from graphprune.passes.criteria.magnitude import Magnitude
from graphprune.passes.criteria.norm_scale import NormScale
from networks import NETWORKS, bn, bn_call, build, initializer
from small_evidence import changed, evidence_of, group_of, two_layers, two_readers

from graphprune.calibration.evidence import Evidence
from graphprune.errors import ModelError

WEIGHT_ONLY = ["lamp", "fpgm", "bn-scale", "dfpc"]


def numbers(model: onnx.ModelProto, *names: str) -> list[np.ndarray]:
    return [initializer(model, name).astype(np.float64) for name in names]


def scores_of(criterion: str, evidence: Evidence, group: str) -> np.ndarray:
    return CRITERIA[criterion](0)(evidence)[group_of(evidence, group).units]


@pytest.mark.parametrize("criterion", WEIGHT_ONLY)
def test_no_samples_are_needed(criterion: str) -> None:
    evidence = evidence_of(two_layers())
    CRITERIA[criterion](0)(evidence)
    assert not {"samples", "batches", "moments"} & vars(evidence).keys()


@pytest.mark.parametrize("criterion", WEIGHT_ONLY)
def test_weights_that_are_no_numbers_are_refused(criterion: str) -> None:
    model = changed(two_layers(), "a.w", (2, 3), np.nan)
    with pytest.raises(ModelError, match=r"the weights of 'a\.w' hold NaN"):
        CRITERIA[criterion](0)(evidence_of(model))


@pytest.mark.parametrize("criterion", ["lamp", "dfpc", "bn-scale"])
def test_channels_without_weights_score_nothing(criterion: str) -> None:
    model = two_layers()
    for name, at in (("a.w", (slice(None), 4)), ("a.b", 4), ("b.w", 4)):
        changed(model, name, at, 0.0)
    scores = scores_of(criterion, evidence_of(model), "a.w:1")
    assert np.flatnonzero(scores == 0).tolist() == [4]


def test_lamp_is_relative_to_what_would_be_left() -> None:
    assert relative_to_larger(np.array([4.0, 1.0, 9.0])) == pytest.approx([4 / 13, 1 / 14, 1.0])
    assert relative_to_larger(np.array([2.0, 5.0, 2.0])) == pytest.approx([2 / 9, 1.0, 2 / 9])
    assert relative_to_larger(np.zeros(2)).tolist() == [0.0, 0.0]


def test_lamp_adds_up_the_members() -> None:
    model = two_layers()
    a, bias, b = numbers(model, "a.w", "a.b", "b.w")
    layers = [(a**2).sum(0), bias**2, (b**2).sum(1)]
    expected = np.sum([relative_to_larger(u) for u in layers], axis=0)
    assert scores_of("lamp", evidence_of(model), "a.w:1") == pytest.approx(expected, rel=1e-5)


def test_lamp_ignores_the_scale_of_a_layer() -> None:
    model, scaled = two_readers(), two_readers()
    changed(scaled, "c.w", ..., initializer(model, "c.w") * 50)
    before, after = evidence_of(model), evidence_of(scaled)
    assert Lamp()(after) == pytest.approx(Lamp()(before), rel=1e-5)
    assert Magnitude(2)(after) != pytest.approx(Magnitude(2)(before), rel=1e-2)


def distances(vectors: np.ndarray) -> np.ndarray:
    return np.linalg.norm(vectors[:, None] - vectors[None], axis=2).sum(axis=1)


def test_distances_between_all_member_slices() -> None:
    model = two_layers()
    a, bias, b = numbers(model, "a.w", "a.b", "b.w")
    expected = distances(np.concatenate([a.T, bias[:, None], b], axis=1))
    assert scores_of("fpgm", evidence_of(model), "a.w:1") == pytest.approx(expected, rel=1e-5)


def test_distances_of_flattened_channels() -> None:
    model = NETWORKS["flatten"]()
    kernel, bias, fc = numbers(model, "stem.w", "stem.b", "fc.w")
    pixels = fc.reshape(4, -1)
    expected = distances(np.concatenate([kernel.reshape(4, -1), bias[:, None], pixels], axis=1))
    assert scores_of("fpgm", evidence_of(model), "stem.w:0") == pytest.approx(expected, rel=1e-5)


def test_copies_are_redundant() -> None:
    """Of channels of equal size, those with a copy have one neighbour at distance zero."""
    directions = np.linalg.qr(np.random.default_rng(0).standard_normal((8, 8)))[0]
    directions[5] = directions[2]
    model = two_layers(a_w=directions[:, :6].T.astype(np.float32), b_w=np.ones((8, 3), np.float32))
    changed(model, "a.b", ..., directions[:, 6])
    changed(model, "b.w", (slice(None), 0), directions[:, 7])
    scores = scores_of("fpgm", evidence_of(model), "a.w:1")
    assert set(np.argsort(scores)[:2].tolist()) == {2, 5}
    assert scores == pytest.approx(np.where(np.isin(np.arange(8), [2, 5]), 6, 7) * np.sqrt(2), rel=1e-4)


def test_distances_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(0).standard_normal((9, 5))
    members = [lambda: vectors[:, :2], lambda: vectors[:, 2:]]
    monkeypatch.setattr(fpgm, "_ENTRIES", 20)
    assert sums_of_distances(members, 9) == pytest.approx(distances(vectors), rel=1e-9)


def test_blocks_have_no_neighbours_in_their_group() -> None:
    evidence = evidence_of(NETWORKS["cnn"]())
    block = next(g for g in evidence.graph.groups if g.kind == "blocks")
    assert GeometricMedian()(evidence)[block.units] == Magnitude(2)(evidence)[block.units] > 0


def test_scales_of_normalisations() -> None:
    model = NETWORKS["cnn"]()
    evidence = evidence_of(model)
    gamma = np.abs(initializer(model, "a.bn.scale"))
    assert scores_of("bn-scale", evidence, "a.w:0") == pytest.approx(gamma / gamma.mean(), rel=1e-5)


def test_without_normalisation_the_norm_of_the_weights_ranks() -> None:
    evidence = evidence_of(two_layers())
    assert np.array_equal(NormScale()(evidence), Magnitude(2)(evidence))


def normalised() -> onnx.ModelProto:
    """Convolution, BatchNorm, depthwise convolution, convolution, BatchNorm."""
    body = f"""
        h = Conv (x, a.w) n = {bn_call("a.bn", "h")} r = Relu (n)
        d = Conv <group = 8, pads = [1, 1, 1, 1]> (r, d.w) s = Relu (d)
        o = Conv (s, b.w) y = {bn_call("b.bn", "o")}"""
    weights = {
        "a.w": (8, 3, 1, 1), **bn("a.bn", 8), "d.w": (8, 1, 3, 3), "b.w": (4, 8, 1, 1), **bn("b.bn", 4)
    }  # fmt: skip
    return build("(float[batch, 3, 5, 5] x) => (float[batch, 4, 5, 5] y)", body, weights)


def test_bound_from_weights_and_folded_normalisations() -> None:
    model = normalised()
    a, d, b = numbers(model, "a.w", "d.w", "b.w")
    fold_a, fold_b = (
        np.abs(scale) / np.sqrt(var + 1e-5)
        for scale, var in (numbers(model, f"{n}.bn.scale", f"{n}.bn.var") for n in "ab")
    )
    into = np.abs(a).sum((1, 2, 3)) * fold_a * np.abs(d).sum((1, 2, 3))
    out = (np.abs(b[:, :, 0, 0]) * fold_b[:, None]).sum(0)
    bound = into * out
    found = scores_of("dfpc", evidence_of(model), "a.w:0")
    assert found == pytest.approx(bound / bound.mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "at"), [("a.w", 5), ("a.bn.scale", 5), ("d.w", 5), ("b.w", (slice(None), 5))]
)
def test_a_gap_anywhere_on_the_way_bounds_the_error_by_zero(name: str, at: object) -> None:
    scores = scores_of("dfpc", evidence_of(changed(normalised(), name, at, 0.0)), "a.w:0")
    assert np.flatnonzero(scores == 0).tolist() == [5]


def test_bound_takes_each_reader_relative_to_its_own_size() -> None:
    model, scaled = two_readers(), two_readers()
    changed(scaled, "c.w", ..., initializer(model, "c.w") * 50)
    assert DataFreeBound()(evidence_of(scaled)) == pytest.approx(
        DataFreeBound()(evidence_of(model)), rel=1e-5
    )
    a, b, c = (np.abs(w) for w in numbers(model, "a.w", "b.w", "c.w"))
    bound = a.sum(0) * (b.sum(1) / b.sum() + c.sum(1) / c.sum())
    found = scores_of("dfpc", evidence_of(model), "a.w:1")
    assert found == pytest.approx(bound / bound.mean(), rel=1e-5)
