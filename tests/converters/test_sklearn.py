"""scikit-learn to ONNX: plain outputs, labels, pipelines, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from graphprune.converters import convert
from same_network import assert_same, expected_dense, record, rows

import graphprune as gp
from graphprune.errors import ModelError, ValidationError

pytestmark = [pytest.mark.skl2onnx, pytest.mark.filterwarnings("ignore")]  # raised inside skl2onnx
FACTORIES = Path(__file__).with_name("sklearn_factories.py")


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("classifier", [("label", "int64", ("batch",)), ("probabilities", "float", ("batch", 3))]),
        ("regressor", [("variable", "float", ("batch", 1))]),
        ("same_regressor", [("variable", "float", ("batch", 4))]),
        ("pipeline", [("label", "string", ("batch",)), ("probabilities", "float", ("batch", 3))]),
    ],
)
def test_outputs_are_plain_tensors_and_agree(tmp_path: Path, name: str, outputs: list[object]) -> None:
    out = tmp_path / "m.onnx"
    report = convert(f"{FACTORIES}:{name}", out)
    assert (report.framework, report.exporter, report.opset) == ("sklearn", "skl2onnx", 18)
    assert [(spec.name, spec.dtype, spec.shape) for spec in report.inputs] == [("X", "float", ("batch", 6))]
    assert [(spec.name, spec.dtype, spec.shape) for spec in report.outputs] == outputs
    assert report.scale > 0
    assert report.max_abs_diff <= 1e-5 * report.scale
    session = ort.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    assert len(session.run(None, {"X": np.ones((5, 6), np.float32)})[0]) == 5


@pytest.mark.parametrize("name", ["classifier", "pipeline"])
def test_both_hidden_layers_can_be_pruned(tmp_path: Path, name: str) -> None:
    convert(f"{FACTORIES}:{name}", tmp_path / "m.onnx")
    result = gp.prune(tmp_path / "m.onnx", target={"macs": 0.5}, criterion="l2")
    assert sorted(group.size for group in result.plan.groups) == [12, 16]
    assert result.verdict is not None


def test_a_wrong_label_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphprune.converters.source import load_factory

    factory = load_factory(f"{FACTORIES}:classifier")
    monkeypatch.setattr(type(factory()), "predict", lambda self, samples: np.zeros(len(samples), int))
    with pytest.raises(ValidationError, match="labels of the converted model are not those of the source"):
        convert(f"{FACTORIES}:classifier", tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "text"),
    [("unfitted", "is not a fitted estimator but a MLPClassifier"), ("misfit", r"have shape \[40, 3\]")],
)
def test_refusals(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(ModelError, match=text):
        convert(f"{FACTORIES}:{name}", tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_the_same_network_is_pruned_the_same(tmp_path: Path) -> None:
    convert(f"{FACTORIES}:same_regressor", tmp_path / "m.onnx")
    assert_same(record(tmp_path / "m.onnx", rows()), expected_dense())


def test_the_same_classifier_is_pruned_the_same(tmp_path: Path) -> None:
    convert(f"{FACTORIES}:same_classifier", tmp_path / "m.onnx")
    powers = np.exp(expected_dense().outputs)
    probabilities = powers / powers.sum(1, keepdims=True)
    assert_same(record(tmp_path / "m.onnx", rows(), 1), replace(expected_dense(), outputs=probabilities))
