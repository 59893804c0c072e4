"""The axis algebra on the structures that networks are made of."""

from __future__ import annotations

import numpy as np
import pytest

from graphprune.algebra import Algebra, Axis, concat, merge


def units(algebra: Algebra, axis: Axis) -> list[frozenset[int]]:
    """The free units under each position."""
    return [frozenset(row.tolist()) - {0} for row in algebra.live(axis)]


def alive(algebra: Algebra, axis: Axis, *removed: Axis) -> list[int]:
    """Kept positions when the first row of each of ``removed`` goes."""
    gone = np.zeros(len(algebra), bool)
    for one in removed:
        gone[algebra.live(one)[0]] = True
    gone[0] = False
    return np.flatnonzero(algebra.alive(axis, gone)).tolist()


def pick(axis: Axis, *positions: int) -> Axis:
    return axis.take(np.array(positions))


def test_fresh_axes_are_independent_and_size_one_is_plain() -> None:
    algebra = Algebra()
    a, b = algebra.fresh(3), algebra.fresh(3)
    assert set().union(*units(algebra, a)).isdisjoint(set().union(*units(algebra, b)))
    assert algebra.fresh(1).is_plain
    assert len(algebra) == 7
    grown = algebra.fresh(5000)  # more than the tables hold at first
    assert len(set().union(*units(algebra, grown))) == 5000


def test_equal_axes_share_their_units() -> None:
    algebra = Algebra()
    a, b, c = (algebra.fresh(4) for _ in range(3))
    algebra.equate(a, b)
    algebra.equate(b, c)
    assert units(algebra, a) == units(algebra, b) == units(algebra, c)
    assert alive(algebra, c, pick(a, 2)) == [0, 1, 3]


def test_axes_of_different_sizes_are_refused() -> None:
    algebra = Algebra()
    with pytest.raises(ValueError, match="3 and 4 positions"):
        algebra.equate(algebra.fresh(3), algebra.fresh(4))
    with pytest.raises(ValueError, match="no product of"):
        algebra.split(algebra.fresh(6), (4, 2))


def test_an_equality_with_a_plain_axis_freezes_with_its_reason() -> None:
    algebra = Algebra()
    a = algebra.fresh(4)
    algebra.equate(a, algebra.plain(4, why=7))
    assert algebra.reasons(a) == {7}
    assert not algebra.live(a).any()


def test_the_reason_given_with_an_equality_is_used_when_no_axis_has_one() -> None:
    algebra = Algebra()
    a = algebra.fresh(4)
    algebra.equate(a, algebra.plain(4), why=5)
    assert algebra.reasons(a) == {5}


def test_freezing_one_position_leaves_the_others() -> None:
    algebra = Algebra()
    a, b = algebra.fresh(4), algebra.fresh(4)
    algebra.equate(a, b)
    algebra.freeze(pick(a, 1), why=3)
    assert [len(row) for row in units(algebra, b)] == [1, 0, 1, 1]
    assert algebra.reasons(b) == {3}
    algebra.freeze(pick(a, 0, 2, 3), why=4)
    assert algebra.reasons(b) == {3, 4}


def test_a_frozen_unit_freezes_what_is_equal_later() -> None:
    algebra = Algebra()
    a, b = algebra.fresh(4), algebra.fresh(4)
    algebra.freeze(a, why=9)
    algebra.equate(b, a)
    assert not algebra.live(b).any()
    assert algebra.reasons(b) == {9}


def test_merged_axis_dies_with_either_factor() -> None:
    algebra = Algebra()
    h, d = algebra.fresh(2), algebra.fresh(3)
    both = merge([h, d])
    assert alive(algebra, both, pick(h, 0)) == [3, 4, 5]
    assert alive(algebra, both, pick(d, 1)) == [0, 2, 3, 5]


def test_split_of_a_merged_axis_gives_its_factors_back() -> None:
    algebra = Algebra()
    h, d = algebra.fresh(2), algebra.fresh(3)
    outer, inner = algebra.split(merge([h, d]), (2, 3))
    assert (units(algebra, outer), units(algebra, inner)) == (units(algebra, h), units(algebra, d))


@pytest.mark.parametrize("sizes", [(2, 2, 2), (4, 2), (2, 4), (8, 1), (1, 8), (2, 1, 4)])
def test_split_where_sizes_coincide(sizes: tuple[int, ...]) -> None:
    algebra = Algebra()
    axis = algebra.fresh(8)
    factors = algebra.split(axis, sizes)
    assert tuple(f.size for f in factors) == sizes
    assert units(algebra, merge(factors)) == units(algebra, axis)
    for factor in factors:
        if factor.size > 1:
            assert len(set().union(*units(algebra, factor))) == factor.size


def test_square_axes_keep_their_factors_apart() -> None:
    algebra = Algebra()
    a, b = algebra.fresh(4), algebra.fresh(4)
    first, second = algebra.split(merge([a, b]), (4, 4))
    assert units(algebra, first) == units(algebra, a)
    assert units(algebra, second) == units(algebra, b)


def test_regrouping_between_factors_stays_a_product() -> None:
    algebra = Algebra()
    a, b = algebra.fresh(4), algebra.fresh(6)
    left, right = algebra.split(merge([a, b]), (6, 4))
    mask = np.zeros(len(algebra), bool)
    mask[algebra.live(left)[2]] = True
    mask[0] = False
    kept = algebra.alive(merge([left, right]), mask)
    outer = np.outer(algebra.alive(left, mask), algebra.alive(right, mask)).ravel()
    assert kept.tolist() == outer.tolist()
    assert kept.tolist() == algebra.alive(merge([a, b]), mask).tolist()


def test_concat_is_a_sum_and_slices_give_its_pieces_back() -> None:
    algebra = Algebra()
    a, b = algebra.fresh(3), algebra.fresh(2)
    both = concat([a, algebra.plain(2), b])
    assert alive(algebra, both, pick(b, 0)) == [0, 1, 2, 3, 4, 6]
    assert units(algebra, pick(both, 5, 6)) == units(algebra, b)
    assert algebra.reasons(both) == {0}


def test_a_tensor_beside_itself() -> None:
    algebra = Algebra()
    a = algebra.fresh(3)
    assert alive(algebra, concat([a, a]), pick(a, 1)) == [0, 2, 3, 5]


def test_sums_align_at_the_cuts() -> None:
    algebra = Algebra()
    a, b, c, d = (algebra.fresh(n) for n in (2, 3, 3, 2))
    algebra.equate(concat([a, b]), concat([c, d]))
    assert alive(algebra, concat([a, b]), pick(c, 2)) == [0, 1, 3, 4]
    assert alive(algebra, b, pick(c, 2)) == [1, 2]


def test_a_conjunction_that_holds_one_side_is_merged() -> None:
    algebra = Algebra()
    x, y = algebra.fresh(2), algebra.fresh(2)
    diagonal = merge([x, y]).take(np.array([0, 3]))  # rows {x0,y0}, {x1,y1}
    algebra.equate(x, diagonal)  # x needs y: merged
    assert units(algebra, x) == units(algebra, y)


def test_a_transposed_square_is_the_same_as_itself() -> None:
    algebra = Algebra()
    a = algebra.fresh(6)
    h, d = algebra.split(a, (2, 3))
    shuffled = merge([d, h])
    algebra.equate(a, shuffled)
    for unit in set().union(*units(algebra, a)):
        gone = np.zeros(len(algebra), bool)
        gone[unit] = True
        assert algebra.alive(a, gone).tolist() == algebra.alive(shuffled, gone).tolist()


def test_channel_shuffle_between_dense_layers_swaps_the_factors() -> None:
    algebra = Algebra()
    channels, consumer = algebra.fresh(12), algebra.fresh(12)
    g, c = algebra.split(channels, (3, 4))
    algebra.equate(merge([c, g]), consumer)
    removed = np.zeros(len(algebra), bool)
    removed[algebra.live(g)[1]] = True
    removed[0] = False
    assert np.flatnonzero(~algebra.alive(channels, removed)).tolist() == [4, 5, 6, 7]
    assert np.flatnonzero(~algebra.alive(consumer, removed)).tolist() == [1, 4, 7, 10]


def test_grouped_query_attention_repeats_heads() -> None:
    algebra = Algebra()
    q_weight, k_weight = algebra.fresh(6 * 4), algebra.fresh(2 * 4)
    q_heads, q_dim = algebra.split(q_weight, (6, 4))
    kv_heads, k_dim = algebra.split(k_weight, (2, 4))
    repeat = algebra.fresh(3)
    algebra.equate(q_heads, merge([kv_heads, repeat]))
    algebra.equate(q_dim, k_dim)
    # A key head takes its three query heads along; one of the repeats takes one of each three.
    assert alive(algebra, q_weight, pick(kv_heads, 0)) == list(range(12, 24))
    assert alive(algebra, k_weight, pick(kv_heads, 0)) == list(range(4, 8))
    assert alive(algebra, q_heads, pick(repeat, 1)) == [0, 2, 3, 5]
    assert alive(algebra, k_weight, pick(q_dim, 3)) == [0, 1, 2, 4, 5, 6]


def test_fused_qkv_is_a_sum_of_products() -> None:
    algebra = Algebra()
    weight = algebra.fresh(3 * 2 * 4)
    three, heads, dim = algebra.split(weight, (3, 2, 4))
    q, k, v = (pick(three, i) for i in range(3))
    for one in (q, k, v):
        algebra.freeze(one, why=2)
    assert alive(algebra, weight, pick(heads, 1)) == [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19]
    assert len(alive(algebra, weight, pick(dim, 0))) == 18


def test_rotary_halves_and_interleaved_pairs() -> None:
    algebra = Algebra()
    halves = algebra.fresh(8)
    first, second = pick(halves, 0, 1, 2, 3), pick(halves, 4, 5, 6, 7)
    algebra.equate(halves, concat([second, first]))
    assert alive(algebra, halves, pick(halves, 1)) == [0, 2, 3, 4, 6, 7]
    pairs = algebra.fresh(8)
    even, odd = pick(pairs, 0, 2, 4, 6), pick(pairs, 1, 3, 5, 7)
    algebra.equate(even, odd)
    assert alive(algebra, pairs, pick(pairs, 3)) == [0, 1, 4, 5, 6, 7]
    _, two = algebra.split(pairs, (4, 2))  # pairs of equal units: nothing varies within a pair
    assert alive(algebra, pairs, pick(pairs, 3)) == [0, 1, 4, 5, 6, 7]
    assert not algebra.live(two).any()


def test_one_unit_under_every_position_can_not_go() -> None:
    algebra = Algebra()
    h, d = algebra.fresh(2), algebra.fresh(4)
    row = pick(merge([h, d]), 0, 1, 2, 3)  # all under h0
    algebra.split(row, (2, 2), why=6)
    assert algebra.reasons(pick(h, 0)) == {6}
    assert units(algebra, pick(h, 1)) == [frozenset(algebra.live(pick(h, 1)).ravel().tolist())]


def test_split_of_a_plain_axis_passes_its_reason_on() -> None:
    algebra = Algebra()
    assert [f.why for f in algebra.split(algebra.plain(6, why=4), (2, 3))] == [4, 4]


def test_flags_of_zero() -> None:
    algebra = Algebra()
    a, b = algebra.fresh(3), algebra.fresh(3, zero=False)
    assert not concat([a, b]).zero
    assert not merge([a, b]).zero
    assert concat([a, algebra.plain(2)]).zero
    assert a.nonzero().take(np.arange(2)).zero is False
    assert algebra.plain(3).nonzero().zero
    assert all(not f.zero for f in algebra.split(algebra.fresh(6, zero=False), (2, 3)))


def test_reason_of_refined_units_is_passed_on() -> None:
    """``a`` stands for pairs of ``b`` and ``c``; both frozen, what equals ``a`` stays for their reason."""
    algebra = Algebra()
    a, b, c, d = algebra.fresh(4), algebra.fresh(2), algebra.fresh(2), algebra.fresh(4)
    algebra.equate(a, merge([b, c]))
    algebra.freeze(b, 5)
    algebra.freeze(c, 5)
    algebra.equate(d, a)
    assert algebra.reasons(d) == {5}
