"""What needs no framework: telling sources apart, ONNX to ONNX, parity, staging, options."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from graphprune.converters import convert, parity, parse_dynamic
from graphprune.converters.dynamic import resolve
from graphprune.converters.source import framework_of, is_factory
from graphprune.converters.staging import staged

from graphprune.errors import ModelError, UsageError, ValidationError

MODEL = """
<ir_version: 8, opset_import: ["" : 13]>
small (float[N, 3] x) => (float[N, 2] y)
<float[3, 2] w = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}>
{ h = MatMul (x, w)  y = Relu (h) }
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    onnx.save(onnx.parser.parse_model(MODEL), path)
    return path


def test_onnx_is_copied_and_checked(model: Path, tmp_path: Path) -> None:
    report = convert(model, tmp_path / "out.onnx")
    assert (report.framework, report.exporter, report.opset) == ("onnx", "copy", 13)
    assert report.max_abs_diff == 0
    assert report.scale > 0
    assert report.to_json()["inputs"][0] == {"name": "x", "dtype": "float", "shape": ("N", 3)}
    assert onnx.load(tmp_path / "out.onnx") == onnx.load(model)


def test_opset_is_raised(model: Path, tmp_path: Path) -> None:
    report = convert(model, tmp_path / "out.onnx", opset=18)
    assert (report.exporter, report.opset) == ("version_converter", 18)
    assert report.max_abs_diff <= 1e-6


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("absent.onnx", "cannot read the ONNX file"),
        ("weights.safetensors", "a checkpoint holds weights"),
        ("absent", "there is no such file"),
        ("no_such_module_here:make", "cannot import 'no_such_module_here'"),
        ("no_such_file.py:make", "no such file: 'no_such_file.py'"),
        ("json:absent", "'json' has no function 'absent'"),
        ("collections:OrderedDict", "the factory returned a OrderedDict"),
    ],
)
def test_sources_that_are_none(tmp_path: Path, source: str, text: str) -> None:
    (tmp_path / "weights.safetensors").touch()
    found = tmp_path / source if source.startswith("weights") else source
    with pytest.raises(ModelError, match=text):
        convert(found, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_a_text_file_is_not_onnx(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_text("hello")
    with pytest.raises(ModelError, match="cannot read the ONNX file"):
        convert(tmp_path / "a.onnx", tmp_path / "b.onnx")


def test_source_is_never_overwritten(model: Path) -> None:
    with pytest.raises(UsageError, match="is the source itself"):
        convert(model, model)


def test_unknown_framework(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no converter for 'caffe'"):
        convert(model, tmp_path / "out.onnx", framework="caffe")


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="shows what happens without torch")
def test_missing_torch_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("import torch\ndef make(): ...\n")
    with pytest.raises(ModelError, match=r"torch is not installed(.|\n)*graphprune\[torch\]"):
        convert(f"{tmp_path / 'net.py'}:make", tmp_path / "out.onnx")


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is not None, reason="shows what happens without it"
)
def test_missing_tensorflow_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "net.keras").touch()
    with pytest.raises(ModelError, match=r"tensorflow is not installed(.|\n)*\[tensorflow\]"):
        convert(tmp_path / "net.keras", tmp_path / "out.onnx")


def test_factory_form() -> None:
    assert is_factory("package.module:make")
    assert is_factory("net.py:make")
    assert not is_factory("model.onnx")
    assert not is_factory("C:/models/net.onnx")


def test_framework_is_told_from_the_class() -> None:
    module = type("Net", (type("Module", (), {"__module__": "torch.nn.modules.module"}),), {})()
    assert framework_of((module, ())) == "torch"
    assert framework_of(type("Model", (), {"__module__": "keras.src.models"})()) == "tensorflow"
    assert framework_of({}) is None


def test_dynamic_axes_are_read() -> None:
    assert parse_dynamic(["a:1=t", "a:2=u", "b.c:0=n"]) == {"a": {1: "t", 2: "u"}, "b.c": {0: "n"}}


@pytest.mark.parametrize("item", ["a", "a:1", "a=t", "a:x=t", ":1=t", "a:1=", "a:-1=t"])
def test_unreadable_dynamic_axes(item: str) -> None:
    with pytest.raises(UsageError, match="cannot read the dynamic axis"):
        parse_dynamic([item])


def test_batch_is_the_first_axis_of_like_inputs() -> None:
    axes = resolve({"x": (2, 3), "mask": (2,), "table": (9, 2), "scalar": ()}, {"x": {1: "t"}}, "batch")
    assert axes == {"x": {0: "batch", 1: "t"}, "mask": {0: "batch"}, "table": {}, "scalar": {}}


class TestParity:
    def test_equal(self) -> None:
        x = np.array([1.0, -4.0, np.nan, np.inf], np.float32)
        assert parity.check([x], {"y": x}, where="m") == parity.Parity(0.0, 4.0)

    @pytest.mark.parametrize(
        "got",
        [
            np.array([1.0, 2.001], np.float32),
            np.array([1.0, np.nan], np.float32),
            np.array([1.0, np.inf], np.float32),
            np.array([[1.0, 2.0]], np.float32),
        ],
    )
    def test_different(self, got: np.ndarray) -> None:
        with pytest.raises(ValidationError, match="output 'y'"):
            parity.check([np.array([1.0, 2.0], np.float32)], {"y": got}, where="m")

    def test_one_wrong_index(self) -> None:
        with pytest.raises(ValidationError, match="off by up to 1 "):
            parity.check([np.array([3, 4])], {"y": np.array([3, 5])}, where="m")

    def test_a_source_of_nothing_but_nan(self) -> None:
        nothing = np.full(3, np.nan)
        with pytest.raises(ModelError, match="no finite value"):
            parity.check([nothing], {"y": nothing}, where="m")

    def test_missing_output(self) -> None:
        with pytest.raises(ValidationError, match="2 outputs and the converted model 1"):
            parity.check([np.zeros(1), np.zeros(1)], {"y": np.zeros(1)}, where="m")


class TestStaging:
    def test_a_failure_leaves_the_old_file(self, tmp_path: Path) -> None:
        out = tmp_path / "m.onnx"
        out.write_text("old")

        def interrupted() -> None:
            with staged(out) as file:
                file.write_text("half")
                message = "stop"
                raise RuntimeError(message)

        with pytest.raises(RuntimeError, match="stop"):
            interrupted()
        assert out.read_text() == "old"
        assert list(tmp_path.iterdir()) == [out]

    def test_external_data_goes_along(self, tmp_path: Path) -> None:
        with staged(tmp_path / "m.onnx") as file:
            file.write_text("model")
            file.with_name("m.onnx.data").write_text("weights")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]

    def test_no_such_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="cannot write"), staged(tmp_path / "no" / "m.onnx"):
            pass
