"""The algebra against brute force over sets of booleans.

The reference knows nothing of union-find or refinement: an axis is a list of sets of atoms, an equation is a
list of pairs of such sets, and a state of the world is one boolean per atom that satisfies every equation.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from graphprune.algebra import Algebra, Axis, concat, merge

Rows = list[frozenset[int]]


@dataclass
class World:
    """An algebra and the same story told in sets of atoms."""

    algebra: Algebra = field(default_factory=Algebra)
    pairs: list[tuple[Axis, Rows]] = field(default_factory=list)
    equations: list[tuple[Rows, Rows]] = field(default_factory=list)
    frozen: list[Rows] = field(default_factory=list)
    stated: list[tuple[Axis, Axis]] = field(default_factory=list)
    reasons: list[tuple[Axis, int]] = field(default_factory=list)
    products: list[tuple[Axis, list[Axis]]] = field(default_factory=list)
    atoms: int = 0

    def fresh(self, n: int) -> tuple[Axis, Rows]:
        axis = self.algebra.fresh(n)
        if axis.is_plain:
            return axis, [frozenset()] * n
        units = axis.labels[:, 0].tolist()
        self.atoms = max(self.atoms, *units)
        return axis, [frozenset([u]) for u in units]


def product(*rows: Rows) -> Rows:
    return [frozenset().union(*combination) for combination in itertools.product(*rows)]


@st.composite
def worlds(draw: st.DrawFn, max_units: int = 10, max_steps: int = 5) -> World:
    """A few axes, some derived ones, and random equations, freezes and splits among those of equal size."""
    world = World()
    budget = max_units
    for _ in range(draw(st.integers(2, 4))):
        n = draw(st.sampled_from([2, 3, 4]))
        if n <= budget:
            world.pairs.append(world.fresh(n))
            budget -= n
    for _ in range(draw(st.integers(1, 4))):
        a, rows_a = draw(st.sampled_from(world.pairs))
        b, rows_b = draw(st.sampled_from(world.pairs))
        kind = draw(st.sampled_from(["merge", "concat", "take", "plain"]))
        if kind == "merge" and a.size * b.size <= 12:
            world.pairs.append((merge([a, b]), product(rows_a, rows_b)))
        elif kind == "concat" and a.size + b.size <= 8:
            world.pairs.append((concat([a, b]), rows_a + rows_b))
        elif kind == "take":
            index = draw(st.lists(st.integers(0, a.size - 1), min_size=1, max_size=4))
            world.pairs.append((a.take(np.array(index)), [rows_a[i] for i in index]))
        else:
            axis = world.algebra.plain(a.size, 1)
            world.pairs.append((axis, [frozenset()] * a.size))
    for _ in range(draw(st.integers(1, max_steps))):
        a, rows_a = draw(st.sampled_from(world.pairs))
        kind = draw(st.sampled_from(["equate", "equate", "equate", "freeze", "split"]))
        if kind == "freeze":
            world.frozen.append(rows_a)
            why = 10 + len(world.frozen)
            world.algebra.freeze(a, why)
            world.reasons.append((a, why))
        elif kind == "split":
            sizes = draw(st.sampled_from(factorings(a.size)))
            factors = world.algebra.split(a, sizes, why=2)
            world.products.append((a, factors))
        else:
            same = [(b, rows) for b, rows in world.pairs if b.size == a.size]
            b, rows_b = draw(st.sampled_from(same))
            world.equations.append((rows_a, rows_b))
            world.algebra.equate(a, b, why=3)
            world.stated.append((a, b))
    return world


def factorings(n: int) -> list[tuple[int, ...]]:
    pairs = [(a, n // a) for a in range(1, n + 1) if n % a == 0]
    return [*pairs, *((a, b, 1) for a, b in pairs), *((a, 2, b // 2) for a, b in pairs if b % 2 == 0)]


def removals(world: World, limit: int = 128) -> Iterator[np.ndarray]:
    """Sets of free units, all of them when there are few."""
    algebra = world.algebra
    axes = [a for a, _ in world.pairs] + [f for _, fs in world.products for f in fs]
    free = sorted({int(u) for a in axes for u in algebra.live(a).ravel()} - {0})
    sets: Iterator[Sequence[int]]
    if 2 ** len(free) <= limit:
        sets = (s for k in range(len(free) + 1) for s in itertools.combinations(free, k))
    else:
        rng = np.random.default_rng(0)
        sets = (np.array(free)[rng.random(len(free)) < 0.3].tolist() for _ in range(limit))
    for chosen in sets:
        removed = np.zeros(len(algebra), bool)
        removed[list(chosen)] = True
        yield removed


def state_of(world: World, removed: np.ndarray) -> list[bool]:
    """Which of the original atoms live."""
    every = np.arange(world.atoms + 1, dtype=np.int32)[:, None]
    state = world.algebra.alive(Axis(every[1:]), removed)
    return [True, *state.tolist()]


def lives(rows: Rows, state: Sequence[bool]) -> list[bool]:
    return [all(state[u] for u in row) for row in rows]


@given(worlds())
def test_every_removal_is_a_state_that_satisfies_all_equations(world: World) -> None:
    for removed in removals(world):
        state = state_of(world, removed)
        for left, right in world.equations:
            assert lives(left, state) == lives(right, state)
        for rows in world.frozen:
            assert all(lives(rows, state))


@given(worlds())
def test_kept_positions_are_what_the_atoms_say(world: World) -> None:
    for removed in removals(world):
        state = state_of(world, removed)
        for axis, rows in world.pairs:
            assert world.algebra.alive(axis, removed).tolist() == lives(rows, state)


@given(worlds())
def test_equal_axes_keep_the_same_number(world: World) -> None:
    for removed in removals(world, 32):
        for a, b in world.stated:
            kept_a, kept_b = (world.algebra.alive(axis, removed) for axis in (a, b))
            assert kept_a.tolist() == kept_b.tolist()


@given(worlds(max_steps=7))
def test_what_was_split_stays_a_product(world: World) -> None:
    for removed in removals(world):
        for axis, factors in world.products:
            whole = world.algebra.alive(axis, removed)
            outer = np.ones((), bool)
            for factor in factors:
                outer = np.multiply.outer(outer, world.algebra.alive(factor, removed))
            assert whole.tolist() == outer.ravel().tolist()


@given(worlds())
def test_a_frozen_position_has_a_reason_and_never_goes(world: World) -> None:
    for axis, why in world.reasons:
        assert not world.algebra.live(axis).any()
        found = world.algebra.reasons(axis)
        assert found - {0} or axis.is_plain or not any(rows for rows in axis.labels.tolist() if any(rows))
        assert found <= {0, 1, 2, 3} | {10 + i for i in range(1, len(world.frozen) + 1)}
        assert why in found or found  # the first reason stays when there are several


@given(worlds())
def test_stating_everything_again_changes_nothing(world: World) -> None:
    before = [world.algebra.live(axis).tolist() for axis, _ in world.pairs]
    version = world.algebra.version
    for a, b in world.stated:
        world.algebra.equate(a, b)
        world.algebra.equate(b, a)
    assert world.algebra.version == version
    assert before == [world.algebra.live(axis).tolist() for axis, _ in world.pairs]


# ---- order and symmetry ---------------------------------------------------------------------------
# Equations as networks state them: between plain axes, a merged axis and the axis it is flattened to, a
# concatenated axis and the axis it is added to, and frozen ones. (One axis that is both the product and the
# sum of the same pieces degenerates; then any order is right, but not all are equally strict.)

Step = tuple[str, int, int]
COMMON = ["two", "three", "six", "freeze2", "freeze3", "freeze6"]


@st.composite
def stories(draw: st.DrawFn) -> tuple[list[Step], list[int]]:
    """Equations among three axes of 2, three of 3 and three of 6, and an order to state them in."""
    steps: list[Step] = []
    kinds = [*COMMON, draw(st.sampled_from(["product", "sum"]))]
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(kinds))
        steps.append((kind, draw(st.integers(0, 2)), draw(st.integers(0, 2))))
    return steps, draw(st.permutations(range(len(steps))))


def tell(steps: Sequence[Step], *, swap: bool = False) -> tuple[Algebra, list[Axis]]:
    algebra = Algebra()
    twos, threes, sixes = ([algebra.fresh(n) for _ in range(3)] for n in (2, 3, 6))
    for kind, i, j in steps:
        if kind.startswith("freeze"):
            algebra.freeze({"2": twos, "3": threes, "6": sixes}[kind[-1]][i], 5)
            continue
        pair = {
            "two": (twos[i], twos[j]),
            "three": (threes[i], threes[j]),
            "six": (sixes[i], sixes[j]),
            "product": (sixes[i], merge([twos[j], threes[j]])),
            "sum": (sixes[i], concat([threes[i], threes[j]])),
        }[kind]
        algebra.equate(*(reversed(pair) if swap else pair))
    return algebra, [*twos, *threes, *sixes]


def states(algebra: Algebra, axes: Sequence[Axis]) -> set[tuple[bool, ...]]:
    """All states that can be reached, or those with one or two units removed when there are many."""
    free = sorted({int(u) for a in axes for u in algebra.live(a).ravel()} - {0})
    found = set()
    for k in range(len(free) + 1 if len(free) <= 6 else 3):
        for chosen in itertools.combinations(free, k):
            removed = np.zeros(len(algebra), bool)
            removed[list(chosen)] = True
            found.add(tuple(np.concatenate([algebra.alive(a, removed) for a in axes]).tolist()))
    return found


@given(stories())
def test_equations_are_symmetric(story: tuple[list[Step], list[int]]) -> None:
    steps, _ = story
    assert states(*tell(steps)) == states(*tell(steps, swap=True))


@given(stories())
def test_the_order_of_equations_does_not_matter(story: tuple[list[Step], list[int]]) -> None:
    steps, order = story
    assert states(*tell(steps)) == states(*tell([steps[i] for i in order]))


def test_rows_frozen_by_an_equation_do_not_stop_the_others() -> None:
    algebra = Algebra()
    two, three, other, six = (algebra.fresh(n) for n in (2, 3, 3, 6))
    algebra.equate(six, concat([three, other]))
    algebra.freeze(other, 5)
    algebra.equate(six, merge([two, three]))
    assert not algebra.live(six).any()
    assert algebra.reasons(three) == {5}


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=6))
def test_classes_of_plain_equations_are_connected_components(edges: list[tuple[int, int]]) -> None:
    algebra = Algebra()
    axes = [algebra.fresh(3) for _ in range(5)]
    component = list(range(5))
    for i, j in edges:
        algebra.equate(axes[i], axes[j])
        low, high = sorted((component[i], component[j]))
        component = [low if c == high else c for c in component]
    for i, j in itertools.combinations(range(5), 2):
        same = np.array_equal(algebra.live(axes[i]), algebra.live(axes[j]))
        assert same == (component[i] == component[j])
