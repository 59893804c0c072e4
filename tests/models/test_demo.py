"""The bundled demo model and its data fit each other and are as good as they claim."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from graphprune.models import demo_data, demo_model_path


def test_demo_model_reads_the_digits() -> None:
    data = demo_data()
    session = ort.InferenceSession(demo_model_path(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, data.images)
    assert logits.shape == (len(data.labels), 10)
    assert (logits.argmax(1) == data.labels).mean() >= 0.98


def test_demo_model_is_valid_and_residual() -> None:
    model = onnx.load(demo_model_path())
    onnx.checker.check_model(model, full_check=True)
    ops = [node.op_type for node in model.graph.node]
    assert ops.count("Add") == 3
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_demo_data_is_small_and_scaled() -> None:
    data = demo_data()
    calibration, images = data.calibration["images"], data.images["images"]
    assert calibration.shape == (359, 1, 8, 8)
    assert images.shape == (360, 1, 8, 8)
    assert images.dtype == calibration.dtype == np.float32
    assert images.min() == 0
    assert images.max() == 1
    assert demo_model_path().with_name("digits_data.npz").stat().st_size < 150_000


def test_calibration_and_test_images_are_disjoint_parts_of_the_data_set() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits()
    data = demo_data()
    every = {image.tobytes(): int(label) for image, label in zip(digits.images, digits.target, strict=False)}
    test = [(image * 16).astype(np.float64).tobytes() for image in data.images["images"][:, 0]]
    used = [(image * 16).astype(np.float64).tobytes() for image in data.calibration["images"][:, 0]]
    assert [every[image] for image in test] == data.labels.tolist()
    assert set(used) <= set(every)
    assert not set(used) & set(test)
