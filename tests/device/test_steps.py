"""Which multiples a curve asks for."""

from __future__ import annotations

import numpy as np
import pytest

from graphprune.device.steps import find_steps

WIDTHS = np.arange(96, 161)


def blocks(step: int) -> np.ndarray:
    return 0.1 + 0.004 * (-(-WIDTHS // step) * step)


@pytest.mark.parametrize("step", [4, 8, 16, 32])
def test_blocks_are_found(step: int) -> None:
    found = find_steps(WIDTHS.tolist(), blocks(step).tolist())
    assert found.step == step
    # Blocks of four save too little to be worth it at these widths.
    assert found.multiple == (step if found.gain else 1)
    assert found.explained > 0.999


@pytest.mark.parametrize("need", [2, 4, 8])
def test_a_penalty_for_other_multiples_is_found(need: int) -> None:
    times = 0.1 + 0.004 * WIDTHS + 0.2 * (WIDTHS % need != 0)
    found = find_steps(WIDTHS.tolist(), times.tolist())
    assert (found.multiple, found.step, found.need) == (need, 1, need)


def test_a_straight_line_asks_for_nothing() -> None:
    assert find_steps(WIDTHS.tolist(), (0.1 + 0.004 * WIDTHS).tolist()).multiple == 1


@pytest.mark.parametrize("seed", range(5))
def test_noise_alone_asks_for_nothing(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(1.0, 0.02, len(WIDTHS))
    found = find_steps(WIDTHS.tolist(), ((0.1 + 0.004 * WIDTHS) * noise).tolist())
    assert found.multiple == 1


@pytest.mark.parametrize("seed", range(5))
def test_blocks_are_found_in_noise_with_accidents(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = blocks(16) * rng.normal(1.0, 0.01, len(WIDTHS))
    times[rng.choice(len(WIDTHS), 3, replace=False)] *= 4
    found = find_steps(WIDTHS.tolist(), times.tolist())
    assert (found.multiple, found.left_out) == (16, 3)


def test_both_at_once() -> None:
    times = blocks(16) + 0.3 * (WIDTHS % 4 != 0)
    found = find_steps(WIDTHS.tolist(), times.tolist())
    assert (found.multiple, found.step, found.need) == (16, 16, 4)
