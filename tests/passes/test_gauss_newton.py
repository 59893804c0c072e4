"""The elementwise way and the gradient of a couple are what the model and finite differences say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from graphprune.passes.compensators.couples import couples_of
from graphprune.passes.compensators.gauss_newton import Fit, Patches, Weights
from graphprune.passes.compensators.hidden import Hidden
from networks import build, feeds, run

from graphprune import analyze, load
from graphprune.calibration.evidence import Evidence

Array = npt.NDArray[Any]
TOKENS = "(float[batch, 3, 6] x) => (float[batch, 3, 4] y)"
IMAGES = "(float[batch, 3, 5, 5] x) => (float[batch, 4, 5, 5] y)"
UP = {"u": (6, 8), "v": (8, 4)}
NORM = {"s": (8,), "b": (8,), "m": (8,), "var": (8,)}
GATED = "h = MatMul (x, u) g = MatMul (x, w) s = Sigmoid (g) t = Mul (g, s) r = Mul (t, h) y = MatMul (r, v)"
MODELS: dict[str, onnx.ModelProto] = {
    "tanh": build(
        TOKENS, "h = MatMul (x, u) p = Add (h, b) r = Tanh (p) y = MatMul (r, v)", {**UP, "b": (8,)}
    ),
    "gated": build(TOKENS, GATED, {**UP, "w": (6, 8)}),
    "norm": build(
        IMAGES,
        "h = Conv (x, u) n = BatchNormalization (h, s, b, m, var) r = Sigmoid (n) y = Conv (r, v)",
        {"u": (8, 3, 1, 1), "v": (4, 8, 1, 1), **NORM},
    ),
    "side": build(
        "(float[batch, 3, 6] x, float[batch, 3, 8] z) => (float[batch, 3, 4] y)",
        "h = MatMul (x, u) q = Softmax (z) t = Tanh (h) r = Mul (t, q) y = MatMul (r, v)",
        UP,
    ),
    "nothing": build(TOKENS, "h = MatMul (x, u) y = MatMul (h, v)", UP),
}


def hidden_of(model: onnx.ModelProto) -> tuple[Hidden, list[str], list[str], str, int]:
    """Names of what producers make, of sides and of the hidden tensor, and the axis of features."""
    evidence = Evidence(analyze(load(model)), feeds(model, batch=4))
    (couple,) = couples_of(evidence, evidence.graph.model)
    rank = len(evidence.graph.analysis.trace.shapes[couple.consumer.source.name or ""])
    made, sides = ([v.name or "" for v in values] for values in (
        [p.output for p in couple.producers], couple.sides
    ))  # fmt: skip
    found = Hidden(evidence.graph.model, couple, rank, 1)
    return found, made, sides, couple.consumer.source.name or "", couple.consumer.feature_axis


def values(model: onnx.ModelProto, names: Sequence[str], axis: int) -> list[Array]:
    """Tensors of a run, ``[rows, features]``."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model)
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    given = {v.name for v in model.graph.input}
    inputs = feeds(model, batch=7)
    outputs = dict(zip(names, run(proto, inputs), strict=True))
    found = [inputs[n] if n in given else outputs[n] for n in names]
    return [np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis]) for array in found]


@pytest.mark.parametrize("name", MODELS)
def test_its_value_is_what_the_model_computes(name: str) -> None:
    model = MODELS[name]
    hidden, made, sides, source, axis = hidden_of(model)
    *found, wanted = values(model, [*made, *sides, source], axis)
    np.testing.assert_allclose(
        hidden.value(found[: len(made)], found[len(made) :]), wanted, rtol=1e-5, atol=1e-6
    )


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


@pytest.mark.parametrize("name", MODELS)
def test_its_slope_is_the_derivative(name: str) -> None:
    model = MODELS[name]
    hidden, made, sides, _, axis = hidden_of(model)
    found = values(model, [*made, *sides], axis)
    z, aside = found[: len(made)], found[len(made) :]
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    if name == "tanh":
        expected = [1 - np.tanh(z[0] + constants["b"]) ** 2]
    elif name == "norm":
        factor = constants["s"] / np.sqrt(constants["var"] + 1e-5)
        made_of = sigmoid((z[0] - constants["m"]) * factor + constants["b"])
        expected = [made_of * (1 - made_of) * factor]
    elif name == "side":
        expected = [(1 - np.tanh(z[0]) ** 2) * aside[0]]
    elif name == "gated":
        by_name = dict(zip(made, z, strict=True))
        s = sigmoid(by_name["g"])
        slopes = {"h": by_name["g"] * s, "g": by_name["h"] * s * (1 + by_name["g"] * (1 - s))}
        expected = [slopes[n] for n in made]
    else:
        expected = [np.ones_like(z[0])]
    for i, slope in enumerate(expected):
        np.testing.assert_allclose(hidden.slope(z, aside, i), slope, rtol=5e-3, atol=2e-3)


class Planted:
    """An elementwise way in numpy, for the arithmetic around it."""

    def __init__(self, gated: bool) -> None:
        self.gated = gated

    def value(self, made: Sequence[Array], sides: Sequence[Array]) -> Array:
        found = np.tanh(made[0]) * (made[1] if self.gated else 1)
        return np.asarray(found * sides[0] if len(sides) else found)

    def slope(self, made: Sequence[Array], sides: Sequence[Array], which: int) -> Array:
        found = np.tanh(made[0]) if which else (1 - np.tanh(made[0]) ** 2) * (made[1] if self.gated else 1)
        return np.asarray(found * sides[0] if len(sides) else found)


def fit(
    groups: int, reads_groups: int, taps: int, gated: bool, side: bool, dtype: Any = np.float32, n: int = 30
) -> Fit:
    """A couple of 12 channels with 30 outputs; some taps read padding."""
    rng = np.random.default_rng([groups, reads_groups, taps])
    d, k, o = 5, 12, 12
    rows = n if taps == 1 else n + 10
    producers = 2 if gated else 1

    def draw(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(dtype)

    def patches() -> Patches:
        reads = np.stack([rng.permutation(rows)[:n] for _ in range(taps)], axis=1)
        reads[rng.random(reads.shape) < 0.2] = rows
        inputs = tuple(draw(groups, rows, d) for _ in range(producers))
        reads = np.arange(n)[:, None] if taps == 1 else reads
        return Patches(inputs, (draw(rows, k),) if side else (), reads, draw(n, o))

    fitted = patches()
    weights = Weights(
        [draw(groups, d, k // groups) for _ in range(producers)],
        draw(reads_groups, taps * k // reads_groups, o // reads_groups), draw(o),
    )  # fmt: skip
    held_out = Patches(fitted.inputs, fitted.sides, fitted.reads, fitted.wanted + 0.1 * patches().wanted)
    return Fit(Planted(gated), fitted, held_out, weights, True)  # type: ignore[arg-type]


CASES = [
    (1, 1, 1, False, False), (2, 1, 1, False, True), (1, 3, 1, False, False), (2, 2, 4, False, False),
    (3, 2, 9, False, True), (1, 1, 9, True, False), (12, 12, 4, False, False), (1, 12, 3, True, True),
    (12, 1, 4, False, False),
]  # fmt: skip


def loss(made: list[Array], found: Fit) -> float:
    """Half the squared error, by loops over outputs, groups and taps."""
    patches, weights = found.fitted, found.weights
    z = [
        np.concatenate([x @ v for x, v in zip(rows, matrix, strict=True)], axis=1)
        for rows, matrix in zip(patches.inputs, made, strict=True)
    ]
    hidden = found.hidden.value(z, patches.sides)
    hidden = np.concatenate([hidden, np.zeros_like(hidden[:1])])
    groups = len(weights.read)
    wide = hidden.shape[1] // groups
    total = 0.0
    for output, places in zip(patches.wanted, patches.reads, strict=True):
        parts = []
        for g in range(groups):
            row = np.concatenate([hidden[place, g * wide : (g + 1) * wide] for place in places])
            parts.append(row @ weights.read[g])
        total += float(np.square(output - np.concatenate(parts) - weights.shift).sum())
    return total / 2 / len(patches.reads)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient_is_that_of_finite_differences(case: tuple[int, int, int, bool, bool]) -> None:
    exact, single = fit(*case, np.float64), fit(*case, np.float32)
    made = _made(single)
    single._rest = single.fitted.wanted - single._output(single.fitted, made)
    gradient = single._gradient(made)
    rng = np.random.default_rng(0)
    for i, found in enumerate(gradient):
        scale = float(np.abs(found).max())
        assert found.shape == exact.weights.made[i].shape
        for _ in range(12):
            at = tuple(int(rng.integers(0, size)) for size in found.shape)
            sides = []
            for sign in (1, -1):
                moved = [v.copy() for v in exact.weights.made]
                moved[i][at] += sign * 1e-5
                sides.append(loss(moved, exact))
            # The error falls along the gradient.
            assert found[at] == pytest.approx((sides[1] - sides[0]) / 2e-5, abs=1e-4 * scale, rel=1e-3)


def _made(found: Fit) -> list[Array]:
    return [
        np.concatenate([x @ v for x, v in zip(rows, matrix, strict=True)], axis=1)
        for rows, matrix in zip(found.fitted.inputs, found.weights.made, strict=True)
    ]


def reachable(case: tuple[int, int, int, bool, bool]) -> Fit:
    """Other weights of the same couple make nearly what is wanted."""
    found = fit(*case, n=400)
    rng = np.random.default_rng(1)
    for patches in (found.fitted, found.held_out):
        exact = found._output(patches, _made(found))
        patches.wanted[:] = exact + 0.01 * rng.standard_normal(exact.shape)
    found.weights.made = [
        (v + 0.3 * rng.standard_normal(v.shape)).astype(np.float32) for v in found.weights.made
    ]
    return found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_errors_fall_step_by_step(case: tuple[int, int, int, bool, bool]) -> None:
    errors = [reachable(case).run(steps)[1] for steps in (0, 1, 3)]
    found = reachable(case)
    start, best = found.run(8)
    assert errors[0] == start
    assert best <= errors[2] <= errors[1] <= errors[0]
    assert best < 0.5 * start
    # It leaves the weights that it speaks of.
    judged = Fit(found.hidden, found.held_out, found.held_out, found.weights, True)
    assert 2 * loss(found.weights.made, judged) / 12 == pytest.approx(best, rel=1e-3)


def spoiled(rows: Patches, factor: float) -> Patches:
    return Patches(tuple(x * np.float32(factor) for x in rows.inputs), (), rows.reads, rows.wanted)


@pytest.mark.parametrize("factor", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("held_out", [False, True])
def test_overflow_changes_nothing_and_stops_nobody(factor: float, held_out: bool) -> None:
    found = fit(1, 1, 1, False, False)
    if held_out:
        found.held_out = spoiled(found.held_out, factor)
    else:
        found.fitted = spoiled(found.fitted, factor)
    found.hidden = Identity()  # type: ignore[assignment]
    before = found.weights.made[0]
    with np.errstate(all="ignore"):
        start, best = found.run()
    assert not best < start
    assert np.array_equal(found.weights.made[0], before)


class Identity:
    """Nothing between."""

    def value(self, made: Sequence[Array], sides: Sequence[Array]) -> Array:
        return made[0]

    def slope(self, made: Sequence[Array], sides: Sequence[Array], which: int) -> Array:
        return np.ones_like(made[0])
