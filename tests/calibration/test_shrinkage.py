"""Covariances are shrunk as far as rows that were held out say."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from networks import build, feeds

from graphprune import analyze, load
from graphprune.calibration.evidence import Evidence
from graphprune.calibration.shrinkage import CORRELATIONS, VARIANCES, Shrinkage, likeliest, oracle_share

Matrix = npt.NDArray[np.float64]
D = 24


def rows(count: int, seed: int, scale: float = 1.0) -> Matrix:
    """Neighbours resemble each other; features of different sizes."""
    rng = np.random.default_rng(seed)
    mix = 0.8 ** np.abs(np.arange(D)[:, None] - np.arange(D))
    spread = np.exp(scale * np.random.default_rng(5).standard_normal(D))
    return np.asarray(rng.standard_normal((count, D)) @ np.linalg.cholesky(mix).T * spread)


def second(x: Matrix) -> Matrix:
    return np.asarray((x.T @ x / len(x))[None])


def test_the_fewer_rows_the_more() -> None:
    held_out = second(rows(3000, 1))
    found = [likeliest(second(rows(count, 0)), held_out) for count in (12, 40, 200, 20000)]
    shares = [f.correlations for f in found]
    assert None not in shares
    assert shares == sorted(shares, reverse=True)  # type: ignore[type-var]
    assert shares[0] >= 0.2  # type: ignore[operator]
    assert found[-1] == Shrinkage(CORRELATIONS[0], VARIANCES[0])  # plenty: almost none
    assert np.isfinite(found[0](second(rows(12, 0))[0], 12)).all()


def test_it_comes_closer_to_the_truth() -> None:
    few, held_out, true = (second(rows(*a)) for a in ((20, 0), (30, 1), (50000, 2)))
    shrunk = likeliest(few, held_out)(few[0], 20)

    def surprise(matrix: Matrix) -> float:
        load = matrix + 1e-9 * np.trace(matrix) * np.eye(D)
        return float(np.linalg.slogdet(load)[1] + np.trace(np.linalg.solve(load, true[0])))

    assert surprise(shrunk) < 0.1 * surprise(few[0])
    own = oracle_share(few[0], 20)
    assert surprise(shrunk) < surprise((1 - own) * few[0] + own * np.diag(np.diag(few[0]))) * 1.1


def test_a_feature_that_never_spoke_may_speak() -> None:
    x, held = rows(400, 0, scale=0.0), rows(400, 1, scale=0.0)
    x[:, 3] = 0.0
    speaks = likeliest(second(x), second(held))
    assert speaks.variances > 0
    assert speaks(second(x)[0], 400)[3, 3] > 0
    held[:, 3] = 0.0
    silent = likeliest(second(x), second(held))
    assert silent.variances == 0
    assert silent(second(x)[0], 400)[3, 3] == 0


def test_it_is_the_likeliest_of_all_that_are_tried() -> None:
    fitted = np.concatenate([second(rows(18, 0)), second(rows(18, 3))])
    held_out = np.concatenate([second(rows(50, 1)), second(rows(50, 4))])

    def surprise(shrinkage: Shrinkage) -> float:
        total = 0.0
        for a, b in zip(fitted, held_out, strict=True):
            matrix = shrinkage(a, 18)
            total += float(np.linalg.slogdet(matrix)[1] + np.trace(np.linalg.solve(matrix, b)))
        return total

    tried = [Shrinkage(c, v) for c in CORRELATIONS for v in VARIANCES]
    assert likeliest(fitted, held_out) == min(tried, key=surprise)


def test_what_it_does_to_a_covariance() -> None:
    matrix = second(rows(60, 0))[0]
    own = np.diag(matrix)
    half = Shrinkage(0.5, 0.0)(matrix, 60)
    np.testing.assert_allclose(np.diag(half), own)
    off = ~np.eye(D, dtype=bool)
    np.testing.assert_allclose(half[off], 0.5 * matrix[off])
    even = Shrinkage(0.0, 1.0)(matrix, 60)
    np.testing.assert_allclose(np.diag(even), own.mean())
    scale = np.sqrt(own[:, None] * own)
    np.testing.assert_allclose(even[off] / own.mean(), (matrix / scale)[off])


@pytest.mark.parametrize("held_out", [np.full((1, 3, 3), np.nan), np.eye(3)[None]])
def test_what_nobody_can_tell_is_left_to_the_number_of_rows(held_out: Matrix) -> None:
    covariance = np.zeros((1, 3, 3)) if np.isfinite(held_out).all() else np.eye(3)[None]
    assert likeliest(covariance, held_out) == Shrinkage()


@pytest.mark.usefixtures("unmixed")
def test_few_samples_hold_nothing_out() -> None:
    """And their moments are shrunk by the oracle."""
    model = build(
        "(float[batch, 6] x) => (float[batch, 3] y)", "h = MatMul (x, u) r = Relu (h) y = MatMul (r, v)",
        {"u": (6, 8), "v": (8, 3)},
    )  # fmt: skip
    few = Evidence(analyze(load(model)), feeds(model, batch=5))
    assert not any(few.held_out)
    (moments,) = few.moments.values()
    assert moments.shrinkage == Shrinkage()
    covariance = moments.covariance[0]
    share = oracle_share(covariance, moments.count)
    expected = (1 - share) * covariance + share * np.diag(np.diag(covariance))
    np.testing.assert_allclose(moments.shrunk()[0], expected, atol=1e-12)
    many = Evidence(analyze(load(model)), feeds(model, batch=6000))
    (moments,) = many.moments.values()
    assert any(many.held_out)
    assert moments.shrinkage.correlations is not None
    assert moments.shrinkage.correlations <= 0.02
