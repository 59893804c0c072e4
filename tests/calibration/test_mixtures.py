"""Mixtures of samples."""

from __future__ import annotations

import numpy as np

from graphprune.calibration.mixtures import mixtures


def _batches(many: int, size: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((size, 3)).astype(np.float32)} for _ in range(many)]


def test_a_mixture_lies_between_two_samples_of_its_batch() -> None:
    for before, after in zip(batches := _batches(3, 4), mixtures(batches, 0), strict=True):
        for row, mixed in zip(before["x"], after["x"], strict=True):
            gaps = before["x"] - row
            lengths = (gaps @ (mixed - row)) / np.maximum(np.square(gaps).sum(axis=1), 1e-9)
            on_the_way = np.abs(row + lengths[:, None] * gaps - mixed).max(axis=1) < 1e-5
            assert (on_the_way & (lengths > 0) & (lengths < 1)).any()


def test_samples_that_run_alone_are_mixed_with_the_next() -> None:
    batches = _batches(4, 1)
    found = mixtures(batches, 0)
    assert len(found) == 4
    assert all(not np.allclose(a["x"], b["x"]) for a, b in zip(batches, found, strict=True))


def test_whole_numbers_and_masks_are_not_mixed() -> None:
    batches = _batches(2, 4)
    assert mixtures([{"i": np.zeros((4, 3), np.int64)}] * 2, 0) == []
    assert mixtures([{**batch, "mask": np.ones((4, 3), np.float32)} for batch in batches], 0) == []


def test_the_same_seed_gives_the_same() -> None:
    first, again, other = (mixtures(_batches(2, 4), seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a["x"], b["x"]) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0]["x"], other[0]["x"])
