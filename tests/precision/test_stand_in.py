"""A model and its stand-in: which units belong together."""

from __future__ import annotations

import few_digits
import numpy as np
import pytest
from onnx import numpy_helper

import graphprune as gp
from graphprune.axes_kept import Keeps
from graphprune.calibration.evidence import Evidence
from graphprune.graph import DependencyGraph
from graphprune.realnumbers.standin import StandIn


def stand_in(way: str) -> tuple[DependencyGraph, StandIn]:
    graph = gp.analyze(gp.load(few_digits.WAYS[way](few_digits.mlp())))
    found = StandIn.of(Evidence(graph, few_digits.samples(16)))
    assert found is not None
    return graph, found


@pytest.mark.parametrize("way", few_digits.WAYS)
def test_every_cut_of_the_file_is_one_of_the_stand_in(way: str) -> None:
    graph, found = stand_in(way)
    rng = np.random.default_rng(0)
    for group in graph.groups:
        if not group.prunable:
            continue
        removed = np.zeros(len(graph.analysis.algebra), bool)
        gone = rng.permutation(group.units)[: max(group.size // 3, 1)]
        removed[gone] = True
        theirs = found._units.removed(removed)
        assert theirs is not None
        assert theirs.any()


def test_a_block_under_one_scale_is_as_many_units_as_it_has_positions() -> None:
    graph, found = stand_in("int4 weights in blocks")
    group = next(g for g in graph.groups if g.prunable and g.kind == "channels" and g.size == 8)
    removed = np.zeros(len(graph.analysis.algebra), bool)
    removed[group.units[2]] = True
    theirs = found._units.removed(removed)
    assert theirs is not None
    assert theirs.sum() == 8
    scores = np.arange(len(theirs), dtype=float)
    own = found._units.scores(scores)
    assert own[group.units[2]] == scores[theirs].sum()


def test_groups_are_admitted_anew() -> None:
    graph, found = stand_in("float16")
    groups = [g for g in graph.groups if g.prunable]
    found.admit(groups[:1])
    assert len(found.evidence.groups) == 1
    found.admit(groups)
    assert len(found.evidence.groups) == len(groups)


def test_a_scale_of_zero_is_no_harm() -> None:
    model = few_digits.dequantized(few_digits.mlp(), np.int8)
    scale = next(t for t in model.graph.initializer if t.name == "a.up.w/scale")
    array = np.array(numpy_helper.to_array(scale))
    array[3] = 0.0
    scale.CopyFrom(numpy_helper.from_array(array, scale.name))
    result = gp.prune(model, target={"macs": 0.7}, recipe="obspa", calibration=few_digits.samples(32))
    assert result.output_errors is not None
    assert result.output_errors[1] < result.output_errors[0]


def test_masks_of_a_cut_are_the_same_in_both() -> None:
    graph, found = stand_in("int8 weights")
    group = next(g for g in graph.groups if g.prunable and g.kind == "channels")
    removed = np.zeros(len(graph.analysis.algebra), bool)
    removed[group.units[::2]] = True
    theirs = found._units.removed(removed)
    assert theirs is not None
    own, other = Keeps(graph.analysis, removed), Keeps(found._graph.analysis, theirs)
    seen = 0
    for pair in found._units._pairs:
        for axis, twin, _ in pair.axes():
            mine, others = own.of(axis), other.of(twin)
            assert (mine is None) == (others is None)
            if mine is not None and others is not None:
                assert np.array_equal(mine, others)
                seen += 1
    assert seen >= 3
