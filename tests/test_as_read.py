"""The file itself is run: what reading it has changed is found, whatever the oracle thinks of the cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from networks import initializer, replace

import graphprune as gp
from graphprune.as_read import require_as_read
from graphprune.errors import ValidationError
from graphprune.model import load
from graphprune.storage import bodies

# Before opset 9, a Scan has lengths in front of its states: there is one more input than the body has.
SCAN = """<ir_version: 4, opset_import: ["": 8]>
agraph (float[1, 5, 4] x0, float[1, 4] a, float[1, 4] b0) => (float[1, 4] o1, float[1, 4] o2) {
    h = MatMul(x0, w)
    r = Relu(h)
    x = MatMul(r, w2)
    o1, o2 = Scan <
        num_scan_inputs = 1,
        body = body (float[4] s1, float[4] s2, float[4] e) => (float[4] s1_next, float[4] s2_next) {
        t = ReduceSum<keepdims = 0>(s2)
        m = Mul(e, t)
        s1_next = Add(s1, m)
        s2_next = Identity(s2)
    }> ("", a, b0, x)
}"""


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    model = onnx.parser.parse_model(SCAN)
    rng = np.random.default_rng(0)
    for name, shape in (("w", (4, 8)), ("w2", (8, 4))):
        array = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    path = tmp_path / "scan.onnx"
    onnx.save(model, path)
    return path


def feeds() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    shapes = {"x0": (1, 5, 4), "a": (1, 4), "b0": (1, 4)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_a_scan_with_a_batch_axis_is_read_as_it_is(scan: Path) -> None:
    result = gp.prune(scan, target={"params": 0.7}, criterion="l2")
    assert result.verdict is not None
    masked = onnx.load(scan)
    for parameter in result.plan.parameters:
        array = initializer(masked, parameter.name).copy()
        gone = [i for i in range(parameter.size) if i not in parameter.keep]
        array[(slice(None),) * parameter.axis + (gone,)] = 0
        replace(masked, parameter.name, array)
    expected, actual = (
        ort.InferenceSession(m.SerializeToString()).run(None, feeds())
        for m in (masked, result.model.to_proto())
    )
    for a, b in zip(expected, actual, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5)


def test_what_reading_has_changed_is_found(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "SCAN_WITHOUT_BATCH", 1)
    with pytest.raises(ValidationError, match="the model was changed by reading it"):
        gp.prune(scan, target={"params": 0.7}, criterion="l2")


def test_only_a_file_can_have_been_changed(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_as_read(load(scan), feeds(), 1e-4)
    monkeypatch.setattr(bodies, "SCAN_WITHOUT_BATCH", 1)
    wrong = load(scan)
    with pytest.raises(ValidationError):
        require_as_read(wrong, feeds(), 1e-4)
    require_as_read(load(onnx.load(scan)), feeds(), 1e-4)


def test_a_file_that_can_not_be_run_proves_nothing(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "SCAN_WITHOUT_BATCH", 1)
    wrong = load(scan)
    scan.write_bytes(b"")
    require_as_read(wrong, feeds(), 1e-4)


def test_outputs_that_are_not_finite_prove_nothing(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "SCAN_WITHOUT_BATCH", 1)
    wrong = load(scan)
    require_as_read(wrong, feeds() | {"b0": np.full((1, 4), np.nan, np.float32)}, 1e-4)
