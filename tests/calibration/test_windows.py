"""Which input positions a convolution's windows read."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.calibration.windows import Window


def by_hand(window: Window, sizes: tuple[int, ...]) -> list[list[int]]:
    """For each output position in order, the flat input position of each tap."""
    rank = len(sizes)
    padded = [
        range(-before, n + after) for n, (before, after) in zip(sizes, window.padding(sizes), strict=True)
    ]
    found = []
    starts = []
    for d in range(rank):
        reach = (window.kernel[d] - 1) * window.dilations[d]
        starts.append([p for p in padded[d][:: window.strides[d]] if p + reach in padded[d]])
    for start in product(*starts):
        taps = []
        for tap in product(*map(range, window.kernel)):
            at = [p + t * step for p, t, step in zip(start, tap, window.dilations, strict=True)]
            inside = all(p in range(n) for p, n in zip(at, sizes, strict=True))
            flat = 0
            for p, n in zip(at, sizes, strict=True):
                flat = flat * n + p
            taps.append(flat if inside else -1)
        found.append(taps)
    return found


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_sources_are_what_a_walk_over_the_padded_input_finds(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3))

    def numbers(low: int, high: int, many: int = rank) -> tuple[int, ...]:
        return tuple(data.draw(st.integers(low, high)) for _ in range(many))

    auto = data.draw(st.sampled_from(["NOTSET", "SAME_UPPER", "SAME_LOWER"]))
    window = Window(numbers(1, 3), numbers(1, 3), numbers(1, 2), numbers(0, 2, 2 * rank), auto)
    sizes = numbers(5, 7)
    expected = by_hand(window, sizes)
    there = int(np.prod(window.out_sizes(sizes)))
    assert there == len(expected)
    found = window.sources(np.arange(there), sizes)
    assert np.array_equal(found, expected)
    some = np.random.default_rng(0).integers(0, there, (2, 3))
    assert np.array_equal(window.sources(some, sizes), np.array(expected)[some])
