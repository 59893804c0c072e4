"""JAX to ONNX: what a factory may return, names, free axes, parity, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from graphprune.converters import convert
from same_network import assert_same, expected_dense, expected_image, images, record, rows

from graphprune.errors import ModelError, UsageError

pytestmark = [pytest.mark.jax, pytest.mark.filterwarnings("ignore")]  # raised inside jax2onnx
FACTORIES = Path(__file__).with_name("jax_factories.py")


def source(name: str) -> str:
    return f"{FACTORIES}:{name}"


@pytest.mark.parametrize(
    ("name", "framework"),
    [("equinox_mlp", None), ("function", None), ("plain_function", "jax"), ("linen", None)],
)
def test_batch_is_free_and_outputs_agree(tmp_path: Path, name: str, framework: str | None) -> None:
    out = tmp_path / "m.onnx"
    report = convert(source(name), out, framework=framework)
    assert (report.framework, report.exporter) == ("jax", "jax2onnx")
    assert [spec.shape for spec in report.inputs] == [("batch", 6)]
    assert [(spec.name, spec.shape) for spec in report.outputs] == [("output", ("batch", 3))]
    assert report.scale > 0
    assert report.max_abs_diff <= 1e-5 * report.scale
    session = ort.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {report.inputs[0].name: np.ones((7, 6), np.float32)})
    assert result.shape == (7, 3)
    assert list(tmp_path.iterdir()) == [out]


def test_keyword_inputs_mapping_outputs_and_named_axes(tmp_path: Path) -> None:
    dynamic = {"ids": {1: "sequence"}, "mask": {1: "sequence"}}
    report = convert(source("tokens"), tmp_path / "m.onnx", dynamic=dynamic)
    assert [(spec.name, spec.dtype, spec.shape) for spec in report.inputs] == [
        ("ids", "int32", ("batch", "sequence")),
        ("mask", "float", ("batch", "sequence")),
    ]
    assert [(spec.name, spec.shape) for spec in report.outputs] == [
        ("all_0", ("batch", "sequence", 4)),
        ("pooled", ("batch", 6)),
    ]


def test_fixed_batch_and_opset(tmp_path: Path) -> None:
    report = convert(source("function"), tmp_path / "m.onnx", batch=None, opset=18)
    assert report.inputs[0].shape == (2, 6)
    assert report.opset == 18
    given = np.zeros((5, 6), np.float32)
    assert convert(source("bare"), tmp_path / "m.onnx", batch=None, inputs=given).inputs[0].shape == (5, 6)


@pytest.mark.parametrize(
    ("name", "options", "error", "text"),
    [
        ("bare", {}, ModelError, "a JAX model can't be exported without an example"),
        ("unbound", {}, ModelError, "the Flax module Dense holds no parameters"),
        ("misfit", {}, ModelError, "the example inputs do not fit"),
        ("plain_function", {}, ModelError, "the factory returned a function(.|\n)*--framework jax"),
        ("fixed_batch", {}, ModelError, "can't run on its example inputs at another batch size"),
        ("function", {"dynamic": {"y": {1: "n"}}}, UsageError, "there is no input 'y'"),
    ],
)
def test_refusals_say_why_and_write_nothing(
    tmp_path: Path, name: str, options: dict[str, object], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        convert(source(name), tmp_path / "x.onnx", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["same_dense", "same_dense_in_equinox", "same_dense_as_a_function"])
def test_the_same_dense_network_is_pruned_the_same(tmp_path: Path, name: str) -> None:
    convert(source(name), tmp_path / "m.onnx")
    assert_same(record(tmp_path / "m.onnx", rows()), expected_dense())


def test_the_same_convolutional_network_is_pruned_the_same(tmp_path: Path) -> None:
    convert(source("same_image"), tmp_path / "m.onnx")
    assert_same(record(tmp_path / "m.onnx", images().transpose(0, 2, 3, 1)), expected_image())
