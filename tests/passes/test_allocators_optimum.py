"""Against brute force on tiny networks: errors, bounds, and what falls apart."""

from __future__ import annotations

import numpy as np
import pytest
from graphprune.passes.allocators import ALLOCATORS, Limits
from graphprune.passes.allocators.rate_distortion import is_separable, lower_bound
from graphprune.passes.allocators.relaxation import tangent
from graphprune.passes.allocators.tables import Tables
from small_allocations import every_choice, optimum, small_allocation

#: Networks with few enough cuts to try them all.
TINY = ("apart", "bottleneck", "mlp", "cnn", "gated_mlp")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("metric", ["macs", "params"])
@pytest.mark.parametrize("kept", [0.3, 0.55, 0.8])
def test_the_knapsack_is_the_optimum_where_no_two_groups_meet(kept: float, metric: str, seed: int) -> None:
    given = small_allocation("apart", seed, targets={metric: kept})
    removed = ALLOCATORS["knapsack"](given)
    best = optimum(Tables(given))
    assert given.errors[removed].sum() == pytest.approx(best)
    assert given.report["estimated_error"] == pytest.approx(best)
    assert given.report["lower_bound"] <= best * (1 + 1e-9)
    assert given.report["gap"] == pytest.approx(1 - given.report["lower_bound"] / best)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("allocator", ["rate-distortion", "knapsack"])
def test_no_worse_than_the_optimum_by_much_where_groups_meet(name: str, allocator: str, seed: int) -> None:
    given = small_allocation(name, seed)
    removed = ALLOCATORS[allocator](given)
    assert given.errors[removed].sum() <= optimum(Tables(given)) * 1.03


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("targets", [{"macs": 0.5}, {"params": 0.6}, {"macs": 0.5, "params": 0.6}])
@pytest.mark.parametrize("name", TINY)
def test_the_bound_is_one_wherever_it_is_taken(name: str, targets: dict[str, float], seed: int) -> None:
    given = small_allocation(name, seed, targets=targets)
    tables = Tables(given)
    best = optimum(tables)
    rng = np.random.default_rng(seed)
    for _ in range(5):
        bound = lower_bound(tables, rng.integers(0, tables.lengths))
        assert bound is not None
        assert bound <= best * (1 + 1e-9)


@pytest.mark.parametrize("name", TINY)
def test_the_logarithmic_tangent_is_below_the_cost_of_every_cut(name: str) -> None:
    tables = Tables(small_allocation(name, limits=Limits(0.25)))
    rng = np.random.default_rng(1)
    for _ in range(3):
        here = rng.integers(0, tables.lengths)
        found = tangent(tables, here, np.ones(1), logarithmic=True)
        assert found.charge(here) == pytest.approx(tables.loads(here)[0])
        assert all(found.charge(c) <= tables.loads(c)[0] + 1e-9 for c in every_choice(tables))


@pytest.mark.parametrize(("name", "expected"), [("apart", True), ("bottleneck", False), ("cnn", False)])
def test_what_falls_apart(name: str, expected: bool) -> None:
    assert is_separable(Tables(small_allocation(name))) is expected


def test_with_blocks_there_is_no_bound() -> None:
    given = small_allocation("apart", kinds=["blocks", "channels"], targets={"macs": 0.5})
    assert {g.kind for g in given.groups} == {"blocks", "channels"}
    ALLOCATORS["rate-distortion"](given)
    assert given.report["lower_bound"] is None
    assert given.report["gap"] is None


def test_blocks_are_taken_where_that_is_the_optimum() -> None:
    """A block of no error, and channels that all matter."""
    given = small_allocation("apart", kinds=["blocks", "channels"], targets={"macs": 0.6})
    scores = np.ones(len(given.scores))
    block = next(g for g in given.groups if g.kind == "blocks" and "up2" in g.id)
    scores[block.units] = 1e-3
    for name in ("rate-distortion", "knapsack"):
        again = small_allocation("apart", kinds=["blocks", "channels"], targets={"macs": 0.6})
        again.scores[:] = scores
        removed = ALLOCATORS[name](again)
        assert removed[block.units].all()
        assert again.errors[removed].sum() == pytest.approx(optimum(Tables(again)))


def test_tables_hold_the_sums_of_the_lowest_scores() -> None:
    given = small_allocation("apart", limits=Limits(0.3, 2))
    tables = Tables(given)
    for choice in every_choice(tables):
        removed = tables.removed(choice)
        assert tables.error(choice) == pytest.approx(given.errors[removed].sum())
        for i, group in enumerate(given.groups):
            gone = removed[group.units]
            assert (~gone).sum() == tables.widths(choice)[i]
            if gone.any():
                assert given.scores[group.units[gone]].max() <= given.scores[group.units[~gone]].min()
        assert np.array_equal(tables.choice_of(removed), choice)
