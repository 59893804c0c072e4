"""Samples out of nothing."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import build

from graphprune.calibration.images import pictures
from graphprune.calibration.own_text import rewritten
from graphprune.calibration.samples import Samples, load_samples
from graphprune.calibration.synthetic import synthetic_samples
from graphprune.model import Model, load

RNG = np.random.default_rng


def conv_net(centre: float, spread: float) -> Model:
    """A network made for pixels of this mean and spread: thresholds lie at what is usual there."""
    rng = RNG(0)
    w = rng.standard_normal((16, 3, 3, 3)).astype(np.float32) / spread / 3
    bias = -centre * w.sum(axis=(1, 2, 3)) + rng.standard_normal(16).astype(np.float32) * 0.3
    return load(
        build(
            "(float[n, 3, 16, 16] x) => (float[n, 5] y)",
            """a = Conv <pads = [1, 1, 1, 1]> (x, w, b) r = Relu (a) p = GlobalAveragePool (r)
               f = Flatten (p) y = MatMul (f, v)""",
            {"w": w, "b": bias.astype(np.float32), "v": (16, 5)},
        )
    )


@pytest.mark.parametrize(("centre", "spread", "low", "high"), [(115, 64, 0, 255), (0, 1.1, -2.7, 2.7)])
def test_range_is_found(centre: float, spread: float, low: float, high: float) -> None:
    x = synthetic_samples(conv_net(centre, spread), count=24).feeds["x"].astype(np.float64)
    assert x.min() >= low - 1e-3
    assert x.max() <= high + 1e-3
    assert spread / 2 < x.std() < spread * 2


def test_norms_tell_the_range() -> None:
    model = load(
        build(
            "(float[n, 3, 16, 16] x) => (float[n, 3, 16, 16] y)",
            "y = BatchNormalization (x, s, b, mean, var)",
            {"s": (3,), "b": (3,), "mean": np.full(3, 0.45, np.float32), "var": np.full(3, 0.06, np.float32)},
        )
    )
    x = synthetic_samples(model, count=24).feeds["x"].astype(np.float64)
    assert 0 <= x.min() <= x.max() <= 1
    assert 0.3 < x.mean() < 0.6


def test_pictures_look_like_photographs() -> None:
    drawn = pictures(64, 3, 32, 32, RNG(0)).astype(np.float64)
    np.testing.assert_allclose(drawn.mean(axis=(0, 2, 3)), 0, atol=1e-3)
    np.testing.assert_allclose(drawn.std(axis=(0, 2, 3)), 1, atol=1e-3)
    neighbours = np.corrcoef(drawn[..., 1:].ravel(), drawn[..., :-1].ravel())[0, 1]
    channels = np.corrcoef(drawn[:, 0].ravel(), drawn[:, 1].ravel())[0, 1]
    assert neighbours > 0.85
    assert 0.5 < channels < 0.98
    assert pictures(2, 1, 9, 12, RNG(0)).shape == (2, 1, 9, 12)
    assert pictures(2, 4, 9, 12, RNG(0)).shape == (2, 4, 9, 12)


def test_channels_last_and_bytes() -> None:
    model = load(
        build(
            "(uint8[n, 12, 16, 3] x) => (float[n, 12, 16, 4] y)",
            "f = Cast <to = 1> (x) y = MatMul (f, w)",
            {"w": (3, 4)},
        )
    )
    x = synthetic_samples(model, count=8).feeds["x"]
    assert x.shape == (8, 12, 16, 3)
    assert x.dtype == np.uint8
    assert x.std() > 30


def chain_model() -> onnx.ModelProto:
    """A language model that knows one rule: after i comes i + 1."""
    table = np.eye(7, dtype=np.float32)
    return build(
        "(int64[batch, time] ids, int64[batch, time] attention_mask) => (float[batch, time, 7] logits)",
        "e = Gather (table, ids) y = MatMul (e, w) m = Cast <to = 1> (attention_mask)"
        " u = Unsqueeze (m, last) logits = Mul (y, u)",
        {"table": table, "w": np.roll(50 * table, 1, axis=1), "last": [-1]},
    )


def test_model_writes_its_own_text() -> None:
    feeds = synthetic_samples(load(chain_model()), {"time": 5}, count=6).feeds
    ids = feeds["ids"].astype(np.int64)
    np.testing.assert_array_equal(ids[:, 1:], (ids[:, :1] + np.arange(1, 5)) % 7)
    np.testing.assert_array_equal(feeds["attention_mask"], 1)
    assert len(np.unique(ids[:, 0])) > 1


def test_model_that_looks_ahead_writes_nothing() -> None:
    proto = build(
        "(int64[batch, time] ids) => (float[batch, time, 7] logits)",
        "e = Gather (table, ids) s = ReduceMean <axes = [1]> (e) a = Add (e, s) logits = MatMul (a, w)",
        {"table": (7, 4), "w": (4, 7)},
    )
    drawn = Samples({"ids": RNG(0).integers(0, 7, (4, 6))})
    assert rewritten(load(proto), drawn, RNG(0)) is drawn.feeds


@pytest.mark.parametrize(
    "signature",
    ["(float[n, 5] x) => (float[n, 3] y)", "(float[4, 5] x) => (float[4, 3] y)"],
)
def test_deterministic_and_accepted(signature: str) -> None:
    model = load(build(signature, "y = MatMul (x, w)", {"w": (5, 3)}))
    one, two = (synthetic_samples(model, count=10, seed=1) for _ in range(2))
    np.testing.assert_array_equal(one.feeds["x"], two.feeds["x"])
    other = synthetic_samples(model, count=10, seed=2)
    assert not np.array_equal(one.feeds["x"], other.feeds["x"])
    assert len(one) == (12 if "[4" in signature else 10)
    assert len(np.unique(one.feeds["x"].astype(np.float64), axis=0)) == len(one)
    assert len(load_samples(one, model)) == len(one)
