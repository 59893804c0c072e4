"""Operations on rows of units, against one row at a time in plain Python."""

from __future__ import annotations

import numpy as np
import pytest

from graphprune.label_rows import compact, differences, widen, without_repetitions


def rows(width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 6, (50, width), np.int32)


@pytest.mark.parametrize("width", range(9))
def test_compact(width: int) -> None:
    given = rows(width, width)
    kept = given.copy()
    found = compact(given)
    expected = [[u for u in row if u] for row in given.tolist()]
    assert [[u for u in row if u] for row in found.tolist()] == expected
    assert found.shape[1] == max(map(len, expected))
    assert ((found[:, 1:] == 0) | (found[:, :-1] != 0)).all()  # no gaps
    assert np.array_equal(given, kept)


def test_compact_drops_all_of_nothing() -> None:
    assert compact(np.zeros((3, 2), np.int32)).shape == (3, 0)
    assert compact(np.zeros((3, 0), np.int32)).shape == (3, 0)


@pytest.mark.parametrize("width", range(9))
def test_without_repetitions(width: int) -> None:
    given = rows(width, 10 + width)
    kept = given.copy()
    expected = [[u if u not in row[:i] else 0 for i, u in enumerate(row)] for row in given.tolist()]
    assert without_repetitions(given).tolist() == expected
    assert np.array_equal(given, kept)


@pytest.mark.parametrize("widths", [(1, 1), (2, 3), (0, 2), (6, 5)])
def test_differences(widths: tuple[int, int]) -> None:
    left, right = (without_repetitions(rows(n, 20 + n + i)) for i, n in enumerate(widths))
    only_left, only_right, shared = differences(left, right)
    for i, (a, b) in enumerate(zip(left.tolist(), right.tolist(), strict=True)):
        a, b = set(a) - {0}, set(b) - {0}
        assert set(only_left[i].tolist()) - {0} == a - b
        assert set(only_right[i].tolist()) - {0} == b - a
        assert shared[i] == bool(a & b)


def test_widen() -> None:
    given = rows(2, 30)
    assert widen(given, 2) is given
    assert np.array_equal(widen(given, 4), np.pad(given, ((0, 0), (0, 2))))
