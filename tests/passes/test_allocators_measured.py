"""Allocators that measure the outputs, the one that chooses, and classes of groups that look the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from graphprune.passes.allocators import ALLOCATORS, Allocation
from graphprune.passes.allocators.auto import Auto
from graphprune.passes.allocators.evolutionary import Evolutionary, mutated
from graphprune.passes.allocators.isomorphic import classes_of
from graphprune.passes.allocators.measured import Measured
from graphprune.passes.allocators.meter import Meter
from graphprune.passes.allocators.scaled import Scaled
from graphprune.passes.allocators.sensitivity import Sensitivity
from graphprune.passes.allocators.tables import Tables
from small_allocations import small_allocation

from graphprune.search import search

Removed = npt.NDArray[np.bool_]


def weighing(given: Allocation, *weights: float, power: float = 1.0) -> Callable[[Removed], float]:
    """An effect in which a unit of each group counts differently."""

    def effect(removed: Removed) -> float:
        gone = [float(removed[g.units].sum()) for g in given.groups]
        return float(np.dot(weights, np.power(gone, power)))

    return effect


def measured_allocation(name: str, *weights: float, power: float = 1.0, **options: object) -> Allocation:
    plain = small_allocation(name, **options)
    return small_allocation(name, effect=weighing(plain, *weights, power=power), **options)


def gone(given: Allocation, removed: Removed) -> list[int]:
    return [int(removed[g.units].sum()) for g in given.groups]


def test_a_group_that_the_outputs_depend_on_is_spared() -> None:
    """Whatever the scores say."""
    for i in range(3):
        weights = [0.01] * 3
        weights[i] = 100.0
        given = measured_allocation("apart", *weights, targets={"macs": 0.7})
        given.scores[1:] = 1.0
        for name in ("measured", "sensitivity", "evolutionary"):
            assert gone(given, ALLOCATORS[name](given))[i] == 0


def around_nothing(given: Allocation, calls: int = 10, left_out: int = 0) -> Tables:
    """Tables rescaled by what is measured around the uncut model."""
    tables, meter = Tables(given), Meter(given, "measured", calls, 60.0)
    return Tables(Measured().rescaled(tables, tables.dense, 0.0, meter, left_out))


@pytest.mark.parametrize("start", ["dense", "smallest"])
def test_measured_tables_agree_with_what_was_measured(start: str) -> None:
    given = measured_allocation("apart", 1.0, 2.0, 3.0)
    given.scores[1:] = given.scores[1:] + 1.0
    tables, meter = Tables(given), Meter(given, "measured", 10, 60.0)
    here = getattr(tables, start)
    assert given.effect is not None
    effect = given.effect(tables.removed(here))
    scaled = Tables(Measured().rescaled(tables, here, effect, meter))
    assert scaled.allocation.additive
    for i, weight in enumerate([1.0, 2.0, 3.0]):
        near = Measured().moved(tables, here, i)
        units = abs(int(tables.widths(near)[i] - tables.widths(here)[i]))
        assert abs(scaled.error(near) - scaled.error(here)) == pytest.approx(weight * units)


def test_a_table_of_zeros_becomes_a_straight_line() -> None:
    given = measured_allocation("apart", 1.0, 2.0, 3.0)
    given.scores[given.groups[1].units] = 0.0
    given.scores[given.groups[0].units] = 1e-3  # its factor has nothing to do with the other group
    scaled = around_nothing(given).allocation
    assert scaled.scores[given.groups[1].units] == pytest.approx(2.0, rel=1e-5)


def test_groups_beyond_the_calls_are_scaled_like_the_median() -> None:
    for calls, left_out in ((2, 0), (10, 1)):
        given = measured_allocation("apart", 1.0, 1.0, 1.0)
        given.scores[:] = 0.25
        scaled = around_nothing(given, calls, left_out).allocation
        assert given.report["effect_calls"] == 2
        units = np.concatenate([g.units for g in given.groups])
        assert scaled.scores[units] == pytest.approx(1.0)


@pytest.mark.parametrize("calls", [1, 2, 3, 4, 5, 6, 20])
def test_measured_is_no_worse_than_its_start_with_any_number_of_calls(calls: int) -> None:
    given = measured_allocation("bottleneck", 5.0, 0.1, 2.0, power=2.0)
    removed = Measured(calls=calls)(given)
    assert given.effect is not None
    assert given.effect(removed) == given.report["effect"] <= given.report["effect_at_start"]
    assert given.report["effect_calls"] <= calls
    assert given.budget.meets(removed)


def test_a_broken_output_is_worse_than_anything() -> None:
    given = small_allocation("apart", effect=lambda removed: float("nan") if removed.any() else 0.0)
    assert Meter(given, "x", 1, 60.0)(Tables(given).removed(Tables(given).smallest)) == 1e30
    for name in ("measured", "sensitivity", "evolutionary"):
        assert given.budget.meets(ALLOCATORS[name](given))


def test_the_time_limit_is_reported() -> None:
    given = measured_allocation("apart", 1.0, 1.0, 1.0)
    removed = Evolutionary(seconds=-1.0)(given)
    assert given.report["stopped_after_seconds"] == -1.0
    assert given.report["effect_calls"] == 0
    assert given.budget.meets(removed)


def test_evolution_improves_on_its_start_within_its_calls() -> None:
    """The scores know nothing of the effect."""
    given = measured_allocation("bottleneck", 5.0, 0.1, 2.0, power=2.0)
    Evolutionary(calls=120)(given)
    assert given.report["effect_calls"] <= 120
    assert given.report["effect"] < given.report["effect_at_start"]
    removed = Evolutionary(calls=120)(given)
    assert given.effect is not None
    assert given.effect(removed) == given.report["effect"]


def test_offspring_meet_the_targets_and_differ() -> None:
    given = small_allocation("bottleneck")
    tables = Tables(given)
    parent = tables.choice_of(ALLOCATORS["rate-distortion"](given))
    rng = np.random.default_rng(0)
    children = [mutated(tables, parent, rng) for _ in range(40)]
    found = [child for child in children if child is not None]
    assert len({child.tobytes() for child in found}) > 5
    assert all(tables.meets(child) and (child != parent).any() for child in found)
    assert all((child < parent).any() for child in found)


def test_sensitivity_evens_out_the_largest_effect() -> None:
    given = measured_allocation("apart", 1.0, 2.0, 4.0, targets={"macs": 0.6})
    removed = Sensitivity()(given)
    n = gone(given, removed)
    assert n[0] > n[1] > n[2]
    assert max(n[0], 2 * n[1], 4 * n[2]) <= given.report["largest_effect"] + 1e-6


def test_sensitivity_measures_less_often_with_few_calls() -> None:
    given = measured_allocation("apart", 1.0, 2.0, 4.0)
    Sensitivity(calls=3)(given)
    assert given.report["effect_calls"] == 3


@pytest.mark.parametrize(
    ("additive", "has_samples", "calls", "expected"),
    [
        (False, False, 128, "global"),
        (False, True, 128, "global"),
        (True, False, 128, "rate-distortion"),
        (True, True, 128, "scaled"),
        (True, True, 2, "rate-distortion"),
    ],
)
def test_the_rule_of_auto(additive: bool, has_samples: bool, calls: int, expected: str) -> None:
    effect = (lambda removed: float(removed.sum())) if has_samples else None
    given = small_allocation("apart", additive=additive, effect=effect)
    Auto(scaled=Scaled(calls=calls))(given)
    assert given.report["chosen"] == expected


def test_groups_of_the_same_look_are_one_class() -> None:
    given = small_allocation("apart", kinds=["blocks", "channels"])
    assert sorted(len(pool.groups) for pool in classes_of(given)) == [3, 3]
    looks = {frozenset(g.id for g in pool.groups) for pool in classes_of(small_allocation("cnn"))}
    assert looks == {frozenset({"a.w:0"}), frozenset({"stem.w:0"})}


def test_each_class_gives_the_same_fraction() -> None:
    given = small_allocation("attention", targets={"macs": 0.7})
    removed = ALLOCATORS["isomorphic"](given)
    shares = []
    for pool in classes_of(given):
        units = np.concatenate([g.units for g in pool.groups])
        shares.append((removed[units].mean(), 1 / min(g.size for g in pool.groups)))
    step = max(one for _, one in shares)
    assert max(s for s, _ in shares) - min(s for s, _ in shares) <= step


def test_effects_are_measured_once_per_cut_even_if_the_file_stays_too_large() -> None:
    seen: list[bytes] = []

    def effect(removed: Removed) -> float:
        seen.append(removed.tobytes())
        return float(removed.sum())

    given = small_allocation("cnn", effect=effect, targets={"bytes": 0.7})
    search(given, Measured())
    assert len(seen) == len(set(seen)) >= 3
