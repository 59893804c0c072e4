"""A model that runs part by part says the same as one that runs whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from graphprune.passes.criteria import CRITERIA
from large_models import WIDTH, residual, small
from networks import NETWORKS

import graphprune as gp
from graphprune import parts
from graphprune.calibration import by_parts, pieces
from graphprune.calibration.by_parts import spreads_of, values_of
from graphprune.calibration.evidence import Evidence
from graphprune.calibration.moments import gather
from graphprune.calibration.pieces import exposing
from graphprune.calibration.spreads import packed, unpacked

__all__ = ["small"]
pytestmark = pytest.mark.usefixtures("small", "all_fitted")
NAMES = sorted(set(NETWORKS) - {"conditional"})
SAMPLES = {"x": np.random.default_rng(1).standard_normal((40, WIDTH)).astype(np.float32)}


def evidence_of(model: onnx.ModelProto, **options: object) -> Evidence:
    return Evidence(gp.analyze(gp.load(model)), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("limit", [400, 1 << 20])
def test_values(monkeypatch: pytest.MonkeyPatch, name: str, limit: int) -> None:
    monkeypatch.setattr(by_parts, "PART_BYTES", limit)
    evidence = evidence_of(NETWORKS[name](), limit=16)
    model, trace = evidence.graph.model, evidence.graph.analysis.trace
    outputs = [v for v in model.ir.graph.outputs if v.producer() is not None]
    whole = exposing(model, outputs)
    names = [v.name for v in outputs]
    found = list(values_of(model, trace.nominal, outputs, evidence.batches))
    for batch, values in zip(evidence.batches, found, strict=True):
        read = {value.name: batch[value.name] for value in whole.get_inputs()}
        for expected, value in zip(whole.run(names, read), values, strict=True):
            np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("limit", [400, 1 << 20])
def test_spreads_are_moments_without_pairs(monkeypatch: pytest.MonkeyPatch, name: str, limit: int) -> None:
    monkeypatch.setattr(by_parts, "PART_BYTES", limit)
    evidence = evidence_of(NETWORKS[name](), limit=16)
    layers = {c.layer: c.landing for c in evidence.consumers}
    given = evidence.batches, evidence.masks, evidence.sampler
    expected = gather(evidence.graph.model, layers, *given)
    found = spreads_of(evidence.graph.model, evidence.graph.analysis.trace.nominal, layers, *given)
    assert found.keys() == expected.keys()
    for layer, spread in found.items():
        moments = expected[layer]
        assert spread.count == moments.count
        np.testing.assert_allclose(spread.mean, moments.mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(spread.power, np.einsum("gdd->gd", moments.second), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(spread.energy, moments.energy, rtol=1e-3, atol=1e-6)
    again = unpacked(packed(list(found.values())))
    for one, two in zip(found.values(), again, strict=True):
        assert np.array_equal(one.power, two.power)
        assert (one.count, one.own, one.energy) == (two.count, two.own, two.energy)


@pytest.mark.parametrize("criterion", ["wanda", "flap", "act-norm", "act-mean", "cfsp"])
def test_scores(monkeypatch: pytest.MonkeyPatch, criterion: str) -> None:
    evidence = evidence_of(residual(), calibration=SAMPLES)
    judge = CRITERIA[criterion](0)
    in_parts = judge(evidence)
    assert "moments" not in evidence.__dict__
    monkeypatch.setattr(parts, "BIG_BYTES", 1 << 30)
    whole = judge(evidence_of(residual(), calibration=SAMPLES))
    units = np.concatenate([group.units for group in evidence.groups])
    np.testing.assert_allclose(in_parts[units], whole[units], rtol=1e-3, atol=1e-6)


def test_weights_are_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "can_be_fed", lambda tensor: tensor.nbytes > 64)
    model = gp.load(residual())
    session = exposing(model, list(model.ir.graph.outputs))
    assert len(session.fed) > 1
    assert [value.name for value in session.get_inputs()] == ["x"]
    monkeypatch.setattr(parts, "BIG_BYTES", 1 << 30)
    own = exposing(model, list(model.ir.graph.outputs))
    assert not own.fed
    feeds = {"x": SAMPLES["x"]}
    np.testing.assert_allclose(session.run(None, feeds)[0], own.run(None, feeds)[0], rtol=1e-4, atol=1e-5)


def test_small_external_weights_are_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They used to be looked for in the working directory, so that such a model ran on no samples."""
    monkeypatch.setattr(parts, "BIG_BYTES", 1 << 30)
    onnx.save(
        residual(), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    options = {"target": {"params": 0.7}, "criterion": "wanda", "calibration": SAMPLES}
    result = gp.prune(tmp_path / "m.onnx", tmp_path / "o.onnx", **options)  # type: ignore[arg-type]
    assert result.output_errors is not None
