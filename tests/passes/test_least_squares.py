"""Optimal brain surgeon and the compensators agree with least squares done by hand."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from graphprune.passes.compensators.normal_equations import DAMPINGS, NormalEquations
from graphprune.passes.compensators.parallel import Parallel
from graphprune.passes.compensators.sequential import Sequential
from graphprune.passes.criteria.obs import OptimalBrainSurgeon, Problem, eliminate, inverse_of
from networks import build, initializer, run
from small_evidence import SMALL, evidence_of, group_of, two_convolutions, two_layers, two_readers

from graphprune import analyze, load
from graphprune.calibration.evidence import Evidence
from graphprune.rewrite import cut

Matrix = npt.NDArray[np.float64]
EXACT = OptimalBrainSurgeon(damping=1e-9, shrink=False)


def gemm_reader() -> onnx.ModelProto:
    """A turned weight behind a hidden layer of 8."""
    body = "h = MatMul (x, a.w) r = Relu (h) y = Gemm <transB = 1> (r, b.w, b.b)"
    weights = {"a.w": (6, 8), "b.w": (3, 8), "b.b": (3,)}
    return build("(float[batch, 6] x) => (float[batch, 3] y)", body, weights)


def grouped_reader() -> onnx.ModelProto:
    """Two groups of four channels that a convolution of two groups reads."""
    body = """
        h = Conv <group = 2> (x, a.w, a.b) r = Relu (h)
        y = Conv <pads = [1, 1, 1, 1], group = 2> (r, b.w)"""
    weights = {"a.w": (8, 2, 3, 3), "a.b": SMALL, "b.w": (6, 4, 2, 2)}
    return build("(float[batch, 4, 5, 5] x) => (float[batch, 6, 4, 4] y)", body, weights)


MODELS: dict[str, tuple[Callable[[], onnx.ModelProto], str, int]] = {
    "matmul": (two_layers, "b.w:0", 1),
    "gemm": (gemm_reader, "b.w:1", 1),
    "conv": (two_convolutions, "b.w:1", 9),
    "two readers": (two_readers, "b.w:0", 1),
    "grouped conv": (grouped_reader, "b.w:1", 4),
}


def left_over(rows: Matrix, weight: Matrix, removed: npt.NDArray[np.int64]) -> float:
    """Mean squared error of the output once the other features and a bias make up for these."""
    x = rows - rows.mean(axis=0)
    kept = np.delete(x, removed, axis=1)
    wanted = x @ weight
    fit = kept @ np.linalg.lstsq(kept, wanted, rcond=None)[0] if kept.size else 0
    return float(np.square(wanted - fit).sum() / len(x))


@pytest.mark.usefixtures("all_fitted")
@pytest.mark.parametrize("name", MODELS)
def test_scores_are_brute_force_errors_in_greedy_order(name: str) -> None:
    make, place, per = MODELS[name]
    evidence = evidence_of(make(), samples=90)
    evidence.sampler.per_feature = 1 << 20  # all rows
    group = group_of(evidence, place)
    layers = []
    for consumer in evidence.consumers:
        if consumer.layer.source.name == "r":
            (data,) = run_to(evidence, "r")
            (sums,) = run_to(evidence, consumer.layer.output.name or "")
            targets = consumer.layer.targets(sums).astype(np.float64)
            energy = sum(float(t.var(axis=0).sum()) for t in targets)
            layers += [
                (rows.astype(np.float64), matrix, energy)
                for rows, matrix in zip(consumer.layer.rows(data), consumer.matrices, strict=True)
            ]
    assert layers

    def error(units: list[int]) -> float:
        gone = (np.array(units)[:, None] * per + np.arange(per)).ravel()
        return sum(left_over(rows, matrix, gone) / energy for rows, matrix, energy in layers)

    gone: list[int] = []
    total, expected, floor = 0.0, np.zeros(group.size), 0.0
    while len(gone) < group.size:
        left = [u for u in range(group.size) if u not in gone]
        best = min(left, key=lambda u: error([*gone, u]))
        gone.append(best)
        step, total = error(gone) - total, error(gone)
        floor = expected[best] = max(step, floor)
    np.testing.assert_allclose(EXACT(evidence)[group.units], expected, rtol=2e-3, atol=1e-7)


def run_to(evidence: Evidence, name: str) -> list[Any]:
    """A tensor of the original on all samples."""
    proto = evidence.graph.model.to_proto()
    del proto.graph.output[:]
    proto.graph.output.append(onnx.ValueInfoProto(name=name))
    return run(proto, dict(evidence.samples.feeds))


def problem(seed: int = 0, d: int = 9, o: int = 4, per: int = 1) -> tuple[Problem, Matrix, Matrix]:
    """A random layer with correlated inputs; its covariance, damped."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((200, d)) @ rng.standard_normal((d, d))
    covariance, weight = x.T @ x / 200, rng.standard_normal((d, o))
    places = np.arange(d).reshape(-1, per)
    damped = covariance + np.eye(d) * 1e-3 * np.trace(covariance) / d
    return Problem(weight.copy(), inverse_of(covariance, 1e-3), places, 1.0), damped, weight


@pytest.mark.parametrize("per", [1, 3])
def test_one_after_the_other_is_all_at_once(per: int) -> None:
    step, damped, weight = problem(per=per)
    order = np.random.default_rng(1).permutation(len(step.places))[:2]
    spent = [step.remove(np.array([unit])) for unit in order]
    once, _, _ = problem(per=per)
    assert sum(spent) == pytest.approx(once.remove(order), rel=1e-8)
    np.testing.assert_allclose(step.weight, once.weight, atol=1e-9)
    gone = step.places[order].ravel()
    kept = np.setdiff1d(np.arange(len(weight)), gone)
    inside, across = damped[np.ix_(kept, kept)], damped[np.ix_(kept, gone)]
    solved = weight[kept] + np.linalg.solve(inside, across @ weight[gone])
    np.testing.assert_allclose(step.weight[kept], solved, atol=1e-9)
    assert not step.weight[gone].any()
    np.testing.assert_allclose(step.inverse[np.ix_(kept, kept)], np.linalg.inv(inside), atol=1e-8)


def test_what_a_unit_costs_alone_is_what_its_removal_costs() -> None:
    found, _, _ = problem(per=3)
    for unit in range(3):
        alone = found.errors(np.array([unit]))[0]
        again, _, _ = problem(per=3)
        assert again.remove(np.array([unit])) == pytest.approx(alone, rel=1e-9)


def test_large_groups_go_in_rounds_with_the_same_total() -> None:
    found, _, weight = problem(d=80)
    whole, damped, _ = problem(d=80)
    scores = eliminate([found], 80)
    assert whole.remove(np.arange(80)) == pytest.approx(float(np.vdot(weight, damped @ weight)), rel=1e-6)
    assert scores.sum() >= 0.999 * float(np.vdot(weight, damped @ weight))
    assert (scores > 0).all()


def pruned_by(evidence: Evidence, name: str, gone: list[int], change: Any) -> onnx.ModelProto:
    """The model without these units of a group, compensated."""
    group = group_of(evidence, name)
    removed = np.zeros(len(evidence.graph.analysis.algebra), bool)
    removed[group.units[gone]] = True
    model: onnx.ModelProto = change(evidence, removed, cut(evidence.graph.analysis, removed)).to_proto()
    onnx.checker.check_model(model, full_check=True)
    return model


def dense(**weights: Any) -> onnx.ModelProto:
    """A hidden layer of 8, read by a layer with a bias."""
    body = "h = Gemm (x, a.w, a.b) r = Relu (h) p = MatMul (r, b.w) y = Add (p, b.b)"
    shapes: dict[str, Any] = {"a.w": (6, 8), "a.b": SMALL, "b.w": (8, 3), "b.b": (3,)}
    return build("(float[batch, 6] x) => (float[batch, 3] y)", body, shapes | weights)


GONE = [1, 4, 6]
KEPT = [0, 2, 3, 5, 7]


def least_squares(evidence: Evidence) -> tuple[Matrix, Matrix]:
    """Weight and bias of the second layer of :func:`dense`, by the normal equations on all rows."""
    (rows,) = run_to(evidence, "r")
    x = rows.astype(np.float64)
    mean = x.mean(axis=0)
    c = (x - mean).T @ (x - mean) / len(x)
    proto = evidence.graph.model.to_proto()
    w, b = (initializer(proto, n).astype(np.float64) for n in ("b.w", "b.b"))
    new = w[KEPT] + np.linalg.solve(c[np.ix_(KEPT, KEPT)], c[np.ix_(KEPT, GONE)] @ w[GONE])
    return new, b + mean @ w - mean[KEPT] @ new


@pytest.mark.usefixtures("all_fitted")
def test_one_pass_is_the_closed_form() -> None:
    evidence = evidence_of(dense(), samples=150)
    found = pruned_by(evidence, "b.w:0", GONE, Parallel(damping=0.0, shrink=False))
    weight, bias = least_squares(evidence)
    np.testing.assert_allclose(initializer(found, "b.w"), weight, atol=1e-4)
    np.testing.assert_allclose(initializer(found, "b.b"), bias, atol=1e-4)


@pytest.mark.usefixtures("unmixed")
def test_layer_by_layer_is_the_closed_form_where_one_layer_is_cut() -> None:
    evidence = evidence_of(dense(), samples=3000)
    found = pruned_by(evidence, "b.w:0", GONE, Sequential(joint=False))
    weight, bias = least_squares(evidence)
    np.testing.assert_allclose(initializer(found, "b.w"), weight, atol=2e-2)
    inputs = dict(evidence.samples.feeds)
    (wanted,), (made,) = run(evidence.graph.model.to_proto(), inputs), run(found, inputs)
    best = run_to(evidence, "r")[0][:, KEPT] @ weight + bias
    assert np.square(made - wanted).mean() < 1.001 * np.square(best - wanted).mean()


@pytest.mark.usefixtures("all_fitted")
def test_means_alone_go_to_the_bias() -> None:
    evidence = evidence_of(dense(), samples=150)
    found = pruned_by(evidence, "b.w:0", GONE, Parallel(weights=False))
    proto = evidence.graph.model.to_proto()
    weight, mean = initializer(proto, "b.w"), run_to(evidence, "r")[0].mean(axis=0)
    assert np.array_equal(initializer(found, "b.w"), weight[KEPT])
    expected = initializer(proto, "b.b") + mean[GONE] @ weight[GONE]
    np.testing.assert_allclose(initializer(found, "b.b"), expected, atol=1e-5)


@pytest.mark.parametrize("change", [Parallel(), Sequential()])
def test_convolutions_come_closer(change: Any) -> None:
    for model in (two_convolutions(), two_convolutions(groups=2)):
        evidence = evidence_of(model, samples=64)
        units = list(range(0, group_of(evidence, "b.w:1").size, 2))
        inputs = dict(evidence.samples.feeds)
        (wanted,) = run(model, inputs)
        plain = run(pruned_by(evidence, "b.w:1", units, lambda e, r, p: p), inputs)[0]
        better = run(pruned_by(evidence, "b.w:1", units, change), inputs)[0]
        assert np.square(better - wanted).mean() < 0.75 * np.square(plain - wanted).mean()


def test_a_bias_stands_along_the_features() -> None:
    """A constant with one number per row is no bias, however well its size fits."""
    body = "h = MatMul (x, a.w) r = Relu (h) p = MatMul (r, b.w) y = Add (p, b.b)"
    column = np.array([[1.0], [2.0], [3.0]], np.float32)
    model = build(
        "(float[batch, 3, 6] x) => (float[batch, 3, 3] y)",
        body,
        {"a.w": (6, 8), "b.w": (8, 3), "b.b": column},
    )
    for change in (Parallel(), Sequential(), Parallel(weights=False)):
        found = pruned_by(evidence_of(model), "b.w:0", GONE, change)
        assert np.array_equal(initializer(found, "b.b"), column)


@pytest.mark.parametrize("third", ["x", "rows", "column"])
def test_a_gemm_may_add_more_than_a_bias(third: str) -> None:
    """Its third input is a residual, or has a number for each sample of a fixed batch."""
    weights: dict[str, Any] = {"a.w": (6, 12), "a.b": (12,), "b.w": (12, 6), "rows": (4, 6), "column": (4, 1)}
    used = {k: v for k, v in weights.items() if k not in ("rows", "column") or k == third}
    model = build(
        "(float[4, 6] x) => (float[4, 6] y)",
        f"h = Gemm (x, a.w, a.b) r = Relu (h) y = Gemm (r, b.w, {third})", used,
    )  # fmt: skip
    data = {"x": np.random.default_rng(0).standard_normal((64, 6)).astype(np.float32)}
    evidence = Evidence(analyze(load(model)), data)
    found, plain = (pruned_by(evidence, "b.w:0", GONE, c) for c in (Sequential(), lambda e, r, p: p))
    gaps = []
    for each in (found, plain):
        outputs = [(run(each, b)[0], run(model, b)[0]) for b in evidence.batches]
        gaps.append(sum(float(np.square(a - b).sum()) for a, b in outputs))
    assert gaps[0] < 0.8 * gaps[1]


def equations(x: Matrix, r: Matrix) -> NormalEquations:
    """Rows in ten batches, two of them held out."""
    found = NormalEquations()
    for i, part in enumerate(np.array_split(np.arange(len(x)), 10)):
        rows, aims = (a[None, part].astype(np.float32) for a in (x, r))
        found.add(rows, aims, held_out=i in (4, 9))
    return found


def test_damping_is_chosen_on_what_was_not_fitted() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 40)) * np.logspace(0, -2, 40)
    truth = rng.standard_normal((40, 5))
    fresh = rng.standard_normal((2000, 40)) * np.logspace(0, -2, 40)

    def judged(noise: float) -> tuple[float, float, float]:
        """The damping, and the errors on new rows with it and with next to none."""
        found = equations(x, x @ truth + noise * rng.standard_normal((300, 5)))
        change, _, damping = found.solve(centred=False)
        loose = np.linalg.solve(*(m[0] for m in found.fitted.moments(centred=False)))
        gaps = [float(np.square(fresh @ (w - truth)).mean()) for w in (change[0], loose)]
        return damping, *gaps

    damping, _, _ = judged(0.0)
    assert damping <= DAMPINGS[2]  # nothing to be careful about
    damping, careful, loose = judged(2.0)
    assert damping > 1e-3
    assert careful < 0.7 * loose
    found = equations(x, rng.standard_normal((300, 5)))
    change, shift, damping = found.solve(centred=False)
    assert damping >= 1
    assert np.abs(change).max() < 0.2
    assert not shift.any()


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("rows", [1, 3, 12])
def test_fewer_rows_than_features(rows: int, centred: bool) -> None:
    rng = np.random.default_rng(rows)
    found = NormalEquations()
    for _ in range(min(rows, 3)):
        x, r = rng.standard_normal((1, max(rows // 3, 1), 30)), rng.standard_normal((1, max(rows // 3, 1), 4))
        found.add(x.astype(np.float32), r.astype(np.float32))
    change, shift, _ = found.solve(centred=centred)
    assert change.shape == (1, 30, 4)
    assert np.isfinite(change).all()
    assert np.isfinite(shift).all()
    assert np.abs(change).max() < 10


def test_an_input_that_hardly_varies_chooses_no_damping() -> None:
    """Divided by next to nothing, errors are no numbers."""
    x, r = np.random.default_rng(0).standard_normal((2, 1, 40, 3)).astype(np.float32)
    sums = NormalEquations()
    sums.add(x, r)
    sums.add(x * np.float32([0, 1, 1]), r, held_out=True)
    sums.fitted.xx = np.asarray(sums.fitted.xx) * 1e-312
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        damping = sums.damping(centred=False)
    assert damping == np.inf


def test_rows_without_any_number_say_nothing() -> None:
    found = NormalEquations()
    assert found.is_empty
    found.add(np.full((1, 4, 3), np.inf, np.float32), np.ones((1, 4, 2), np.float32))
    found.add(np.full((1, 4, 3), 1e30, np.float32), np.ones((1, 4, 2), np.float32))
    assert found.is_empty
    found.add(np.ones((1, 4, 3), np.float32), np.ones((1, 4, 2), np.float32))
    assert not found.is_empty
    assert np.isfinite(found.solve(centred=True)[0]).all()


def test_means_make_a_bias() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 3)) + 5
    truth, offset = rng.standard_normal((3, 2)), np.array([2.0, -7.0])
    change, shift, _ = equations(x, x @ truth + offset).solve(centred=True)
    np.testing.assert_allclose(change[0], truth, atol=1e-3)
    np.testing.assert_allclose(shift[0], offset, atol=1e-2)


@pytest.mark.filterwarnings("error")
def test_half_precision_holds_what_is_solved() -> None:
    """Weights near the largest number: what went would be added beyond it."""
    rng = np.random.default_rng(0)
    first = np.abs(rng.standard_normal((6, 8))) * 1e-3
    model = build(
        "(float16[batch, 6] x) => (float16[batch, 5] y)",
        "h = MatMul (x, u) r = Relu (h) y = MatMul (r, v)",
        {"u": first.astype(np.float16), "v": np.full((8, 5), 6e4, np.float16)},
    )
    data = {"x": rng.uniform(0.1, 1.0, (60, 6)).astype(np.float16)}
    evidence = Evidence(analyze(load(model)), data)
    for change in (Parallel(), Sequential()):
        found = initializer(pruned_by(evidence, "v:0", [0, 1, 2, 3], change), "v")
        assert np.isfinite(found.astype(np.float32)).all()
        assert not np.array_equal(found, np.full((4, 5), 6e4, np.float16))
