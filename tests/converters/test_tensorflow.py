"""Keras models, Keras files and SavedModel folders to ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from graphprune.converters import ConversionReport, convert
from same_network import assert_same, expected_dense, expected_image, images, record, rows

from graphprune.errors import ModelError

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore"),  # raised inside TensorFlow and tf2onnx
]
FACTORIES = Path(__file__).with_name("keras_factories.py")


def assert_residual(report: ConversionReport, out: Path) -> None:
    assert (report.framework, report.exporter, report.opset) == ("tensorflow", "tf2onnx", 18)
    shapes = {spec.name: spec.shape for spec in report.inputs}
    assert shapes == {"images": ("batch", 8, 8, 3), "extra": ("batch", 5)}
    assert [spec.shape for spec in report.outputs] == [("batch", 3)]
    assert report.scale > 0
    assert report.max_abs_diff <= 1e-5 * report.scale
    session = ort.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    feeds = {"images": np.ones((7, 8, 8, 3), np.float32), "extra": np.ones((7, 5), np.float32)}
    assert session.run(None, feeds)[0].shape == (7, 3)


def test_factory(tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    assert_residual(convert(f"{FACTORIES}:residual", out), out)
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("name", ["saved_model", "m.keras", "m.h5"])
def test_files(tmp_path: Path, name: str) -> None:
    from graphprune.converters.source import load_factory

    model = load_factory(f"{FACTORIES}:residual")()
    saved, out = tmp_path / name, tmp_path / "m.onnx"
    if saved.suffix:
        model.save(saved)
    else:
        model.export(saved, verbose=False)
    assert_residual(convert(saved, out), out)


def test_a_broken_file(tmp_path: Path) -> None:
    (tmp_path / "m.keras").write_text("hello")
    with pytest.raises(ModelError, match=r"TensorFlow cannot load .*m\.keras"):
        convert(tmp_path / "m.keras", tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_a_scalar_output_and_one_of_zeros(tmp_path: Path) -> None:
    report = convert(f"{FACTORIES}:scalar", tmp_path / "m.onnx")
    number, silent = report.outputs
    assert (number.shape, silent.shape) == ((), ("batch", 2))
    assert report.zeros == (silent.name,)


def test_a_model_without_inputs(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Sequential has no inputs yet"):
        convert(f"{FACTORIES}:unbuilt", tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_the_same_networks_are_pruned_the_same(tmp_path: Path) -> None:
    convert(f"{FACTORIES}:same_dense", tmp_path / "dense.onnx")
    assert_same(record(tmp_path / "dense.onnx", rows()), expected_dense())
    convert(f"{FACTORIES}:same_image", tmp_path / "image.onnx")
    assert_same(record(tmp_path / "image.onnx", images().transpose(0, 2, 3, 1)), expected_image())
