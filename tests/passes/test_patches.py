"""Patches: enough positions, each once, close together."""

from __future__ import annotations

import numpy as np
import pytest
from graphprune.passes.compensators.patches import patches
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import build

from graphprune import load
from graphprune.calibration.linear import Linear, linear_of


def layer(kernel: int, rank: int = 2) -> Linear:
    sizes = ", ".join(["9"] * rank)
    model = build(
        f"(float[batch, 3, {sizes}] x) => (float[batch, 4, {sizes}] y)", "y = Conv (x, w)",
        {"w": (4, 3, *(kernel,) * rank)},
    )  # fmt: skip
    found = linear_of(next(iter(load(model).ir.graph)))
    assert found is not None
    return found


def tokens() -> Linear:
    model = build("(float[b, t, 3] x) => (float[b, t, 4] y)", "y = MatMul (x, w)", {"w": (3, 4)})
    found = linear_of(next(iter(load(model).ir.graph)))
    assert found is not None
    return found


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.data())
def test_as_many_as_wanted_and_each_once(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 2))
    sizes = tuple(data.draw(st.integers(1, 9)) for _ in range(rank))
    batch = data.draw(st.integers(1, 12))
    samples = batch * data.draw(st.integers(1, 5))
    wanted = data.draw(st.integers(1, 2000))
    chosen = layer(data.draw(st.sampled_from([1, 3])), rank)
    there = int(np.prod(sizes))
    sample, position = patches(chosen, (batch, 4, *sizes), wanted, samples, np.random.default_rng(0))
    assert sample.shape == position.shape
    assert sample.min() >= 0
    assert sample.max() < batch
    assert position.min() >= 0
    assert position.max() < there
    assert len(set(zip(sample.tolist(), position.tolist(), strict=True))) == len(sample)
    assert len(sample) >= min(batch * there, wanted * batch // samples)
    if wanted >= samples * there:
        assert len(sample) == batch * there


def test_all_where_there_are_few() -> None:
    for chosen, output in ((layer(3), (2, 4, 2, 2)), (tokens(), (2, 4, 4)), (tokens(), (2, 4))):
        there = chosen.positions(output)
        sample, position = patches(chosen, output, 10**6, 2, np.random.default_rng(0))
        assert sample.tolist() == [0] * there + [1] * there
        assert position.tolist() == [*range(there)] * 2


@pytest.mark.parametrize("wanted", [64, 320, 800])
def test_windows_overlap(wanted: int) -> None:
    """A patch is a box, so that it reads few input positions."""
    chosen, sizes = layer(3), (16, 16)
    sample, position = patches(chosen, (20, 4, *sizes), wanted, 20, np.random.default_rng(0))
    assert wanted <= len(sample) < 2.5 * wanted + 9
    reads = 0
    for s in set(sample.tolist()):
        rows, columns = np.unravel_index(position[sample == s], sizes)
        box = [axis.max() - axis.min() + 1 for axis in (rows, columns)]
        assert box[0] == box[1] >= 3
        assert box[0] * box[1] == len(rows)
        reads += (box[0] + 2) * (box[1] + 2)
    assert reads < 3 * len(sample)  # 9 if they lay apart


def test_places_differ_from_sample_to_sample_and_with_the_seed() -> None:
    chosen, output = layer(3), (30, 4, 20, 20)
    first, again, other = (
        patches(chosen, output, 300, 30, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first[1], other[1])
    corners = {int(first[1][first[0] == s].min()) for s in set(first[0].tolist())}
    assert len(corners) > 10
