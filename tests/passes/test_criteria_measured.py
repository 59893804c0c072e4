"""Scores that agree with measured effects."""

from __future__ import annotations

import numpy as np
import pytest
from graphprune.passes.criteria.measured_effect import MeasuredEffect, convex_hull, through_points
from graphprune.passes.criteria.obs import OptimalBrainSurgeon
from graphprune.passes.effect import Effect
from small_evidence import changed, evidence_of, group_of, two_branches, two_layers

SHAPE = np.array([0.0, 1e-6, 0.1, 0.2, 0.4, 0.5, 1.0, 3.0])


def test_hull_leaves_out_what_bulges_and_never_falls() -> None:
    assert convex_hull([(0, 0.0), (1, 3.0), (2, 4.0), (4, 5.0)]) == [(0, 0.0), (4, 5.0)]
    assert convex_hull([(0, 0.0), (1, 1.0), (2, 4.0), (3, 9.0)]) == [(0, 0.0), (1, 1.0), (2, 4.0), (3, 9.0)]
    assert convex_hull([(0, 0.0), (2, 4.0), (3, 2.0)]) == [(0, 0.0), (3, 4.0)]


@pytest.mark.parametrize(
    ("counts", "totals"),
    [
        ([2, 4, 6], [0.01, 0.5, 9.0]),
        ([2, 4, 8], [1e-9, 0.2, 0.9]),
        ([4], [7.0]),
        ([2, 4, 6], [0.0, 0.0, 1.0]),
    ],
)
def test_sums_pass_through_convex_measurements(counts: list[int], totals: list[float]) -> None:
    found = through_points(SHAPE, counts, totals)
    assert np.cumsum(found)[np.array(counts) - 1] == pytest.approx(totals, rel=1e-9)
    assert (np.diff(found) >= 0).all()


def test_sums_pass_through_the_hull_of_others() -> None:
    found = np.cumsum(through_points(SHAPE, [2, 4, 8], [1.0, 1.5, 2.0]))
    assert found[7] == pytest.approx(2.0)
    assert found[1] < 1.0
    assert found[3] < 1.5


def test_increments_keep_their_shape_where_they_can() -> None:
    assert through_points(SHAPE, [8], [SHAPE.sum() * 5]) == pytest.approx(SHAPE * 5, abs=1e-9)
    assert np.array_equal(through_points(SHAPE, [], []), SHAPE)


def test_whole_groups_cost_what_was_measured() -> None:
    evidence = evidence_of(two_branches())
    scores, order = MeasuredEffect()(evidence), OptimalBrainSurgeon()(evidence)
    effect = Effect(evidence, 128)
    for name in ("a.up:1", "b.up:1"):
        units = group_of(evidence, name).units
        best = np.argmax(scores[units])
        assert best == np.argmax(order[units])
        removed = np.zeros(len(scores), bool)
        removed[np.delete(units, best)] = True
        assert scores[np.delete(units, best)].sum() == pytest.approx(effect(removed), rel=1e-6)


def test_blocks_are_measured_whole() -> None:
    evidence = evidence_of(changed(two_branches(), "a.down", ..., 1e-3))
    scores, effect = MeasuredEffect()(evidence), Effect(evidence, 128)
    blocks = [int(g.units[0]) for g in evidence.graph.groups if g.kind == "blocks"]
    for unit in blocks:
        removed = np.zeros(len(scores), bool)
        removed[unit] = True
        assert scores[unit] == pytest.approx(effect(removed), rel=1e-6)
    assert scores[blocks[0]] < scores[blocks[1]] / 10


def test_channels_that_change_nothing_cost_nothing() -> None:
    model = two_layers()
    for unit in (1, 3, 6):
        changed(model, "b.w", unit, 0.0)
    evidence = evidence_of(model)
    units = group_of(evidence, "a.w:1").units
    scores = MeasuredEffect()(evidence)[units]
    assert set(np.argsort(scores)[:3].tolist()) == {1, 3, 6}
    assert scores[[1, 3]].max() < 1e-4 * scores.max()
