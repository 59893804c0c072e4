"""Allocators: level 0 removes nothing, level 1 all that the limits allow, the worst units first."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from graphprune.passes.allocators import Limits, Pool, global_ranking, uniform

from graphprune.groups import Group

RULES = {"uniform": uniform, "global": global_ranking}


def group(name: str, start: int, size: int, kind: str = "channels") -> Group:
    return Group(name, kind, np.arange(start, start + size, dtype=np.int32), (), (), None)


def allocation(limits: Limits | None = None, seed: int = 0) -> Pool:
    groups = [group("a", 1, 8), group("b", 9, 16), group("c", 25, 4, "heads")]
    scores = np.random.default_rng(seed).random(29)
    return Pool(groups, scores, limits or Limits(0.0))


@pytest.mark.parametrize("name", RULES)
def test_level_zero_removes_nothing(name: str) -> None:
    assert not RULES[name](allocation(), 0.0).any()


@pytest.mark.parametrize("name", RULES)
def test_level_one_removes_all_that_the_floors_allow(name: str) -> None:
    removed = RULES[name](allocation(Limits(0.25)), 1.0)
    assert [int((~removed[g.units]).sum()) for g in allocation().groups] == [2, 4, 1]


@pytest.mark.parametrize("name", RULES)
def test_a_higher_level_removes_more_and_never_other_units(name: str) -> None:
    found = [RULES[name](allocation(), level) for level in np.linspace(0, 1, 23)]
    for less, more in pairwise(found):
        assert not (less & ~more).any()
    assert not found[-1][0]  # unit 0 is "no unit"


@pytest.mark.parametrize("name", RULES)
def test_the_worst_units_of_each_group_go(name: str) -> None:
    given = allocation()
    removed = RULES[name](given, 0.5)
    for g in given.groups:
        gone, stay = g.units[removed[g.units]], g.units[~removed[g.units]]
        if len(gone):
            assert given.scores[gone].max() < given.scores[stay].min()


def test_uniform_takes_the_same_fraction() -> None:
    removed = uniform(allocation(), 0.5)
    assert [int(removed[g.units].sum()) for g in allocation().groups] == [4, 8, 2]


def test_global_takes_where_it_matters_least() -> None:
    groups = [group("even", 1, 4), group("skewed", 5, 4)]
    scores = np.array([0, 1, 1, 1, 1, 10, 10, 0.1, 0.1])
    removed = global_ranking(Pool(groups, scores, Limits(0.0)), 0.25)
    assert removed[groups[1].units].tolist() == [False, False, True, True]
    assert not removed[groups[0].units].any()


def test_global_does_not_depend_on_a_groups_scale() -> None:
    groups = [group("a", 1, 4), group("b", 5, 4)]
    scores = np.array([0, 1, 2, 3, 4, 4, 3, 2, 1.5])
    scaled = scores * np.where(np.arange(9) > 4, 1e6, 1.0)
    first, second = (global_ranking(Pool(groups, s, Limits(0.0)), 0.5) for s in (scores, scaled))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("name", RULES)
def test_all_zero_and_equal_scores_are_no_problem(name: str) -> None:
    groups = [group("zero", 1, 4), group("equal", 5, 4)]
    scores = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1.0])
    for level in (0.0, 0.3, 0.5, 1.0):
        removed = RULES[name](Pool(groups, scores, Limits(0.0)), level)
        assert all((~removed[g.units]).any() for g in groups)


@pytest.mark.parametrize("name", RULES)
def test_no_groups_no_cut(name: str) -> None:
    assert not RULES[name](Pool([], np.zeros(5), Limits()), 1.0).any()


@pytest.mark.parametrize(
    ("size", "kind", "floor", "align", "wanted", "kept"),
    [
        (64, "channels", 0.1, 1, 0, 7),
        (64, "channels", 0.1, 8, 0, 8),
        (64, "channels", 0.0, 8, 33, 40),
        (64, "channels", 0.0, 8, 32.0000000001, 32),
        (60, "channels", 0.0, 8, 58, 60),
        (6, "channels", 0.0, 8, 1, 6),
        (12, "heads", 0.0, 8, 5, 5),
        (12, "head_dim", 0.0, 8, 5, 8),
        (12, "conv_groups", 0.5, 8, 0, 6),
        (3, "channels", 0.0, 1, 0, 1),
        (1, "channels", 0.0, 1, 0, 1),
    ],
)
def test_limits(size: int, kind: str, floor: float, align: int, wanted: float, kept: int) -> None:
    assert Limits(floor, align).kept(group("g", 1, size, kind), wanted) == kept
