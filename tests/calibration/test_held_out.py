"""Some samples are held out: they judge, and nothing is fitted to them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from graphprune.passes.compensators.normal_equations import NormalEquations
from graphprune.passes.compensators.parallel import Parallel
from graphprune.passes.compensators.sequential import Sequential
from graphprune.passes.effect import Effect
from networks import build, feeds, initializer

from graphprune import analyze, load, prune
from graphprune.calibration.evidence import BATCHES, HELD_OUT, JUDGES, Evidence
from graphprune.rewrite import cut

Array = npt.NDArray[Any]


def network() -> onnx.ModelProto:
    return build(
        "(float[batch, 6] x) => (float[batch, 3] y)",
        "h = MatMul (x, u) r = Relu (h) i = Gemm (r, v, vb) s = Relu (i) y = Gemm (s, w, wb)",
        {"u": (6, 12), "v": (12, 10), "w": (10, 3), "vb": (10,), "wb": (3,)},
    )


def held_samples(count: int) -> npt.NDArray[np.bool_]:
    """Which samples, in the user's order, are held out."""
    evidence = Evidence(
        analyze(load(network())), {"x": np.arange(count * 6, dtype=np.float32).reshape(-1, 6)}
    )
    found = np.zeros(count, bool)
    for batch, is_held in zip(evidence.batches, evidence.held_out, strict=True):
        if is_held:
            found[(batch["x"][:, 0] / 6).round().astype(int)] = True
    return found


@pytest.mark.parametrize("count", [1, 5, 6, 40, 100, 700])
def test_about_one_in_six(count: int) -> None:
    held = held_samples(count)
    if count < HELD_OUT:
        assert not held.any()
    else:
        assert 0.05 < held.mean() < 0.2
    evidence = Evidence(analyze(load(network())), feeds(network(), batch=count))
    assert len(evidence.held_out) == len(evidence.batches) >= min(count, BATCHES) - 1
    batches, many = evidence.judges
    assert many == pytest.approx(held.sum() if held.sum() >= JUDGES else count, abs=1)
    judged = np.concatenate([batch["x"] for batch in batches])
    given = evidence.samples.feeds["x"]
    assert np.array_equal(judged, given[held] if held.sum() >= JUDGES else given)


def changed(data: dict[str, Array], where: npt.NDArray[np.bool_]) -> dict[str, Array]:
    """Other samples there."""
    x = data["x"].copy()
    x[where] = 3.0 * np.random.default_rng(9).standard_normal(x[where].shape)
    return {"x": x}


def compensated(data: dict[str, Array], change: Any) -> dict[str, Array]:
    """The weights without a third of each width."""
    evidence = Evidence(analyze(load(network())), data)
    removed = np.zeros(len(evidence.graph.analysis.algebra), bool)
    for group in evidence.graph.groups:
        if group.prunable and group.kind != "blocks":
            removed[group.units[::3]] = True
    proto = change(evidence, removed, cut(evidence.graph.analysis, removed)).to_proto()
    return {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}


def same(a: dict[str, Array], b: dict[str, Array]) -> bool:
    return a.keys() == b.keys() and all(a[n].tobytes() == b[n].tobytes() for n in a)


@pytest.mark.parametrize(
    "change",
    [Sequential(joint=False), Parallel(shrink=False), Parallel(weights=False)],
    ids=["seq", "obs", "bias"],
)
def test_no_weight_is_fitted_to_them(change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a fixed damping, which they would choose, they change nothing."""
    monkeypatch.setattr(NormalEquations, "damping", lambda self, *, centred: 1e-3)
    data, held = feeds(network(), batch=300), held_samples(300)
    before = compensated(data, change)
    assert same(before, compensated(changed(data, held), change))
    other = np.roll(held, 60)
    assert not (other & held).all()
    assert not same(before, compensated(changed(data, other), change))


def test_moments_are_of_the_others() -> None:
    data, held = feeds(network(), batch=300), held_samples(300)
    first, second, third = (
        Evidence(analyze(load(network())), d).moments
        for d in (data, changed(data, held), changed(data, ~held))
    )
    for a, b, c in zip(first.values(), second.values(), third.values(), strict=True):
        assert a.second.tobytes() == b.second.tobytes() != c.second.tobytes()
        assert (a.count, a.energy) == (b.count, b.energy)
        assert a.shrinkage != b.shrinkage  # that is what they are for


def test_they_choose_the_damping() -> None:
    """Rows held out that agree with those fitted call for none; others for much."""
    rng = np.random.default_rng(0)
    x, truth = rng.standard_normal((1, 60, 30)).astype(np.float32), rng.standard_normal((30, 2))
    fresh = rng.standard_normal((1, 60, 30)).astype(np.float32)
    dampings = []
    for noise in (0.0, 3.0):
        found = NormalEquations()
        found.add(x, (x @ truth + noise * rng.standard_normal((1, 60, 2))).astype(np.float32))
        found.add(fresh, (fresh @ truth).astype(np.float32), held_out=True)
        dampings.append(found.solve(centred=False)[2])
        assert found.solve(centred=False, damping=0.5)[2] == 0.5
    assert dampings[0] < 1e-4
    assert dampings[1] > 0.03
    alone = NormalEquations()
    alone.add(x, x[..., :2])
    assert alone.solve(centred=False)[2] == 1e-2


@pytest.mark.usefixtures("unmixed")
def test_the_printed_error_is_theirs() -> None:
    model = network()
    data, held = feeds(model, batch=300), held_samples(300)
    result = prune(model, target={"macs": 0.6}, calibration=data)
    effect = Effect(Evidence(analyze(load(model)), {"x": data["x"]}))
    assert result.output_errors is not None
    assert result.output_errors[1] == pytest.approx(effect.of(result.model), rel=1e-4)
    inputs = data["x"][held]
    wanted, found = (
        np.maximum(np.maximum(inputs @ w["u"], 0) @ w["v"] + w["vb"], 0) @ w["w"] + w["wb"]
        for w in (_weights(model), _weights(result.model.to_proto()))
    )
    error = np.square(found - wanted).sum(axis=1).mean() / wanted.var(axis=0).sum()
    assert result.output_errors[1] == pytest.approx(error, rel=1e-3)


def _weights(model: onnx.ModelProto) -> dict[str, Array]:
    return {t.name: initializer(model, t.name).astype(np.float64) for t in model.graph.initializer}
