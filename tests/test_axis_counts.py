"""Counting kept positions: the same numbers as looking at every row."""

from __future__ import annotations

import numpy as np
import pytest

from graphprune.algebra import Algebra, Axis, concat, merge
from graphprune.axis_counts import AxisCounts


def brute(algebra: Algebra, axis: Axis, removed: np.ndarray) -> int:
    return int((~removed[algebra.live(axis)].any(axis=1)).sum())


def axes() -> tuple[Algebra, dict[str, Axis]]:
    algebra = Algebra()
    a, b, c, d = (algebra.fresh(n) for n in (4, 3, 2, 12))
    split = algebra.fresh(24)
    outer, inner = algebra.split(split, (6, 4))
    frozen = algebra.fresh(5)
    algebra.freeze(frozen.take(np.array([1, 3])), 1)
    tied = algebra.fresh(4)
    algebra.equate(tied, a)
    found = {
        "list": a,
        "product": merge([a, b]),
        "three factors": merge([c, a, b]),
        "twice": concat([a, a]),
        "sum": concat([a, b, a]),
        "sum of product and list": concat([merge([a, b]), d]),
        "plain": algebra.plain(7),
        "plain and list": concat([algebra.plain(3), a]),
        "part of a product": merge([a, b]).take(np.arange(5)),
        "split": split,
        "outer": outer,
        "inner": inner,
        "half of every row twice": merge([outer, inner]).take(
            np.arange(24).reshape(6, 4)[:, [0, 1, 0, 1]].reshape(-1)
        ),
        "partly frozen": frozen,
        "product with a frozen part": merge([frozen, b]),
        "tied": tied,
        "square": merge([a, tied]),
        "empty": algebra.plain(0),
    }
    return algebra, found


def test_every_form_of_axis() -> None:
    algebra, found = axes()
    counts = AxisCounts(algebra, list(found.values()))
    rng = np.random.default_rng(0)
    for share in (0.0, 0.1, 0.3, 0.6, 1.0):
        for _ in range(10):
            removed = rng.random(len(algebra)) < share
            removed[0] = False
            kept = counts.kept(removed)
            for name, axis in found.items():
                assert kept[counts.index(axis)] == brute(algebra, axis, removed), name


def test_equal_axes_are_counted_once() -> None:
    algebra, found = axes()
    counts = AxisCounts(algebra, [found["list"], found["tied"], found["product"]])
    assert counts.index(found["list"]) == counts.index(found["tied"]) != counts.index(found["product"])


def test_mask_is_that_of_the_rows() -> None:
    algebra, found = axes()
    counts = AxisCounts(algebra, [found["product"]])
    removed = np.zeros(len(algebra), bool)
    removed[found["list"].labels[1]] = True
    assert counts.mask(0, removed).reshape(4, 3).all(axis=1).tolist() == [True, False, True, True]


def test_no_axes() -> None:
    assert AxisCounts(Algebra(), []).kept(np.zeros(1, bool)).shape == (0,)


@pytest.mark.parametrize("seed", range(5))
def test_random_products(seed: int) -> None:
    rng = np.random.default_rng(seed)
    algebra = Algebra()
    atoms = [algebra.fresh(int(rng.integers(2, 6))) for _ in range(5)]
    made = [merge([atoms[i] for i in rng.integers(0, 5, 2)]) for _ in range(6)]
    made += [concat([made[i] for i in rng.integers(0, 6, 2)]) for _ in range(6)]
    counts = AxisCounts(algebra, made)
    removed = rng.random(len(algebra)) < 0.4
    removed[0] = False
    assert [counts.kept(removed)[counts.index(a)] for a in made] == [brute(algebra, a, removed) for a in made]
