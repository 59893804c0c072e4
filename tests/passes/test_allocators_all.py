"""What every allocator owes: targets, floors, alignment, the worst units, the same result again."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from graphprune.passes.allocators import ALLOCATORS, Allocation, Limits
from networks import NETWORKS
from small_allocations import small_allocation

from graphprune import api
from graphprune.errors import TargetError, UsageError
from graphprune.planner import make_plan
from graphprune.search import search

#: Those that measure; the others only compute.
MEASURING = ("evolutionary", "measured", "scaled", "sensitivity")
COMPUTING = sorted(set(ALLOCATORS) - set(MEASURING))


def effect(removed: npt.NDArray[np.bool_]) -> float:
    """Some smooth effect: units differ, and more than their sum is lost together."""
    weights = np.random.default_rng(5).random(len(removed))
    return float(weights[removed].sum() ** 1.5)


def allocation(name: str, allocator: str, **options: object) -> Allocation:
    measured = {"effect": effect} if allocator in MEASURING else {}
    return small_allocation(name, **{**measured, **options})


@pytest.mark.parametrize("targets", [{"macs": 0.7}, {"params": 0.7}, {"macs": 0.8, "params": 0.75}])
@pytest.mark.parametrize("name", ["cnn", "attention", "grouped_query", "depthwise_se", "tied_embedding"])
@pytest.mark.parametrize("allocator", ALLOCATORS)
def test_all_targets_are_met_by_the_worst_units(allocator: str, name: str, targets: dict[str, float]) -> None:
    given = allocation(name, allocator, targets=targets)
    removed = ALLOCATORS[allocator](given)
    ratio = given.graph.cost.evaluate(removed).ratio(given.graph.cost.evaluate())
    assert all(ratio[metric] <= fraction for metric, fraction in targets.items())
    for group in given.groups:
        gone = removed[group.units]
        assert (~gone).sum() >= group.least
        if gone.any():
            assert given.scores[group.units[gone]].max() <= given.scores[group.units[~gone]].min()


@pytest.mark.parametrize(("floor", "align"), [(0.5, 1), (0.0, 2), (0.3, 4)])
@pytest.mark.parametrize("allocator", ALLOCATORS)
def test_floors_and_multiples_hold(allocator: str, floor: float, align: int) -> None:
    limits = Limits(floor, align)
    given = allocation("attention", allocator, limits=limits, targets={"macs": 0.85})
    removed = ALLOCATORS[allocator](given)
    assert removed.any()
    for group in given.groups:
        stays = int((~removed[group.units]).sum())
        assert stays >= floor * group.size
        assert stays in limits.choices(group)


@pytest.mark.parametrize("allocator", ALLOCATORS)
def test_the_same_again(allocator: str) -> None:
    first, second = (allocation("attention", allocator, targets={"macs": 0.7}, seed=3) for _ in range(2))
    assert np.array_equal(ALLOCATORS[allocator](first), ALLOCATORS[allocator](second))
    assert first.report == second.report
    json.dumps(first.report)


@pytest.mark.parametrize("allocator", ALLOCATORS)
def test_what_cannot_be_reached_is_an_error_before_anything_is_measured(allocator: str) -> None:
    given = allocation("cnn", allocator, limits=Limits(0.9))
    with pytest.raises(TargetError, match=r"cannot reach macs=50\.0%"):
        ALLOCATORS[allocator](given)
    assert not given.report.get("effect_calls")


@pytest.mark.parametrize("allocator", ALLOCATORS)
def test_no_groups_is_an_error_too(allocator: str) -> None:
    with pytest.raises(TargetError, match="0 groups allow"):
        ALLOCATORS[allocator](replace(allocation("cnn", allocator), groups=[]))


@pytest.mark.parametrize("allocator", MEASURING)
def test_what_measures_needs_samples(allocator: str) -> None:
    with pytest.raises(UsageError, match=f"'{allocator}' needs calibration samples"):
        ALLOCATORS[allocator](small_allocation("cnn"))


@pytest.mark.parametrize("allocator", ALLOCATORS)
def test_zero_and_equal_scores_are_no_problem(allocator: str) -> None:
    for value in (0.0, 1.0):
        given = allocation("cnn", allocator)
        given.scores[:] = value
        assert given.budget.meets(ALLOCATORS[allocator](given))


@pytest.mark.parametrize("allocator", ALLOCATORS)
def test_blocks_are_there_or_not(allocator: str) -> None:
    given = allocation("apart", allocator, kinds=["blocks", "channels"], targets={"macs": 0.4})
    assert given.budget.meets(ALLOCATORS[allocator](given))


@pytest.mark.parametrize("additive", [True, False])
@pytest.mark.parametrize("metric", ["macs", "params"])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_rate_distortion_is_no_worse_than_uniform_and_global(name: str, metric: str, additive: bool) -> None:
    """By its own estimate."""
    given = small_allocation(name, targets={metric: 0.75}, additive=additive)
    error = {}
    for allocator in ("rate-distortion", "uniform", "global"):
        removed = ALLOCATORS[allocator](given)
        assert given.budget.meets(removed)
        error[allocator] = given.errors[removed].sum()
    assert error["rate-distortion"] <= min(error.values()) + 1e-12


@pytest.mark.parametrize("allocator", COMPUTING)
def test_a_file_is_made_small_enough(allocator: str) -> None:
    given = allocation("cnn", allocator, targets={"bytes": 0.7})
    removed = search(given, ALLOCATORS[allocator])
    plan = make_plan(given.graph, removed, given.targets)
    assert api.apply(given.graph, plan).file_bytes <= 0.7 * given.graph.cost.evaluate().bytes


def test_the_plan_records_error_bound_and_gap() -> None:
    graph = small_allocation("cnn").graph
    plan = api.plan(graph, target={"macs": 0.5}, criterion="l2", allocator="rate-distortion")
    assert set(plan.options["allocation"]) == {"estimated_error", "lower_bound", "gap"}
    assert (
        "allocation" not in api.plan(graph, target={"macs": 0.5}, criterion="l2", allocator="uniform").options
    )
