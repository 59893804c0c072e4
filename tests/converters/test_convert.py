"""What needs no framework: telling sources apart, ONNX to ONNX, parity, staging, options."""

from __future__ import annotations

import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from graphprune.converters import convert, parity, parse_dynamic
from graphprune.converters.dynamic import resolve
from graphprune.converters.example import read_inputs
from graphprune.converters.source import EXTRA_OF_PACKAGE, framework_of, is_factory
from graphprune.converters.staging import staged
from typer.testing import CliRunner

from graphprune.cli import main
from graphprune.cli.app import app
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


def test_an_output_of_zeros_is_not_proven(model: Path, tmp_path: Path) -> None:
    silent = onnx.load(model)
    silent.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.full((3, 2), -1, np.float32), "w"))
    onnx.save(silent, model)
    found = CliRunner().invoke(app, ["convert", str(model), str(tmp_path / "out.onnx")])
    assert found.exit_code == 0
    assert "not proven: on random input the source gives nothing but zeros for 'y'" in found.stdout
    assert convert(model, tmp_path / "out.onnx").zeros == ("y",)


def test_opset_is_raised(model: Path, tmp_path: Path) -> None:
    report = convert(model, tmp_path / "out.onnx", opset=18)
    assert (report.exporter, report.opset) == ("version_converter", 18)
    assert report.max_abs_diff <= 1e-6


@pytest.mark.parametrize("dtype", ["FLOAT16", "BFLOAT16"])
def test_half_precision_is_kept(tmp_path: Path, dtype: str) -> None:
    kind = onnx.TensorProto.DataType.Value(dtype)
    text = MODEL.replace("float[", dtype.lower() + "[").replace('"" : 13', '"" : 17')
    weights = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    text = text.replace(
        text[text.index("<bfloat16[3" if "B" in dtype else "<float16[3") : text.index("{ h")], ""
    )
    half = onnx.parser.parse_model(text)
    half.graph.initializer.append(onnx.helper.make_tensor("w", kind, [3, 2], weights))
    onnx.save(half, tmp_path / "half.onnx")
    report = convert(tmp_path / "half.onnx", tmp_path / "out.onnx", opset=21)
    assert (report.opset, report.inputs[0].dtype) == (21, dtype.lower())
    assert report.scale > 1
    assert report.max_abs_diff <= 1e-2 * report.scale
    assert onnx.load(tmp_path / "out.onnx").graph.initializer[0].data_type == kind


def test_bfloat16_beside_float32_is_refused(tmp_path: Path) -> None:
    """onnxruntime can't run the file, and the copy in float32 that it can run would hide the mistake."""
    mixed = onnx.parser.parse_model(MODEL.replace("(float[N, 3] x)", "(bfloat16[N, 3] x)"))
    onnx.save(mixed, tmp_path / "mixed.onnx")
    with pytest.raises(ModelError, match=r"MatMul '' in 'mixed.onnx' mixes bfloat16 and float"):
        convert(tmp_path / "mixed.onnx", tmp_path / "out.onnx")


def test_bad_parity_is_exit_3_and_writes_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def another(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
        proto.graph.node[0].op_type, proto.graph.node[1].op_type = "MatMul", "Neg"
        return proto

    monkeypatch.setattr("onnx.version_converter.convert_version", another)
    arguments = ["convert", str(model), str(tmp_path / "out.onnx"), "--opset", "18"]
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert exited.value.code == 3
    assert list(tmp_path.iterdir()) == [model]


def test_example_inputs_from_a_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros(2), b=np.ones((1, 3), np.int64))
    found = read_inputs(tmp_path / "x.npz")
    assert {name: array.shape for name, array in found.items()} == {"a": (2,), "b": (1, 3)}
    np.save(tmp_path / "y.npy", np.zeros(2))
    np.savez(tmp_path / "z.npz")
    for name in ("absent.npz", "y.npy", "z.npz"):
        with pytest.raises(ModelError, match=f"{name}'"):
            read_inputs(tmp_path / name)


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
    with pytest.raises(UsageError, match="two of the files are the same"):
        convert(model, model)


@pytest.mark.parametrize("name", ["net.pt2", "net.pt", "net.keras", "net.py"])
def test_no_file_of_a_source_is_overwritten(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text("def make(): return None\n")
    for source in (str(file), f"{file}:make"):
        with pytest.raises(UsageError, match="two of the files are the same"):
            convert(source, file)
    assert file.read_text() == "def make(): return None\n"


def test_the_weights_beside_an_onnx_file_are_not_overwritten(tmp_path: Path) -> None:
    file, data = tmp_path / "net.onnx", tmp_path / "weights.bin"
    proto = onnx.parser.parse_model(MODEL)
    weights = onnx.numpy_helper.to_array(proto.graph.initializer[0])
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, "w"))  # not one by one
    onnx.save(proto, file, save_as_external_data=True, location=data.name, size_threshold=0)
    before = data.read_bytes()
    with pytest.raises(UsageError, match="two of the files are the same"):
        convert(file, data)
    assert data.read_bytes() == before
    convert(file, tmp_path / "out.onnx")
    assert onnx.load(tmp_path / "out.onnx").graph.initializer[0].raw_data == before


def test_a_live_model_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="convert takes no live OrderedDict"):
        convert(OrderedDict(), tmp_path / "out.onnx")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("body", "text", "line"),
    [
        ("return None", "the factory '.*' returns None", None),
        ("import sys; sys.exit(7)", r"because: it calls sys.exit\(7\)", 2),
        ("return helper()", r"because: KeyError: 'weights'", 5),
    ],
)
def test_a_factory_that_makes_no_model(tmp_path: Path, body: str, text: str, line: int | None) -> None:
    file = tmp_path / "net.py"
    file.write_text(f"def make():\n    {body}\n\ndef helper():\n    return {{}}['weights']\n")
    with pytest.raises(ModelError, match=text) as raised:
        convert(f"{file}:make", tmp_path / "out.onnx")
    assert raised.value.where == (None if line is None else f"{file}:{line}")


def test_where_importing_a_source_fails(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    for text, because in (("\nimport sys; sys.exit()", "sys.exit"), ("\ndef make(:", "SyntaxError")):
        file.write_text(text)
        with pytest.raises(ModelError, match=because) as raised:
            convert(f"{file}:make", tmp_path / "out.onnx")
        assert raised.value.where == f"{file}:2"


def test_a_missing_file_is_named_before_a_missing_framework(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ModelError, match=r"there is no file 'absent\.keras'"):
        convert("absent.keras", tmp_path / "out.onnx")


def test_unknown_framework(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no converter for 'caffe'"):
        convert(model, tmp_path / "out.onnx", framework="caffe")


@pytest.mark.parametrize(
    ("package", "extra", "name"),
    [
        ("torch", "torch", "net.py:make"),
        ("torch", "torch", "net.pt2"),
        ("torch", "torch", "net.pt"),
        ("torch", "torch", "."),
        ("tensorflow", "tensorflow", "net.py:make"),
        ("keras", "tensorflow", "net.py:make"),
        ("tensorflow", "tensorflow", "net.keras"),
        ("jax", "jax", "net.py:make"),
        ("flax", "jax", "net.py:make"),
        ("sklearn", "sklearn", "net.py:make"),
        ("transformers", "transformers", "net.py:make"),
    ],
)
def test_a_missing_framework_says_which_extra_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, extra: str, name: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(f"import {package}\ndef make(): ...\n")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    for file in ("net.pt2", "net.pt", "net.keras", "model.safetensors"):
        (tmp_path / file).touch()
    with pytest.raises(ModelError, match=rf"{package} is not installed") as caught:
        convert(name, tmp_path / "out.onnx")
    assert f"pip install 'graphprune[{extra}]'" in str(caught.value)


@pytest.mark.parametrize(
    ("model", "package", "extra"),
    [
        ("sklearn", "skl2onnx", "sklearn"),
        ("sklearn", "sklearn", "sklearn"),
        ("jax", "jax", "jax"),
        ("tensorflow", "tensorflow", "tensorflow"),
        ("torch", "torch", "torch"),
    ],
)
def test_a_missing_exporter_says_so_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    if package == "skl2onnx":
        pytest.importorskip("sklearn")
    (tmp_path / "net.py").write_text("def make(): return object()\n")
    with pytest.raises(ModelError, match=rf"{package} is not installed(.|\n)*graphprune\[{extra}\]"):
        convert(f"{tmp_path / 'net.py'}:make", tmp_path / "out.onnx", framework=model)


def test_every_extra_that_is_named_exists() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert all(f"\n{extra} = [" in project for extra in EXTRA_OF_PACKAGE.values())


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
    array = type("Array", (), {"__module__": "jaxlib._jax"})()
    assert framework_of((len, {"x": [array]})) == "jax"
    assert framework_of(len) is None


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

    def test_zeros_prove_nothing(self) -> None:
        x, zeros = np.ones(3, np.float32), np.zeros(3, np.float32)
        found = parity.check([x, zeros], {"y": x, "z": zeros}, where="m")
        assert found == parity.Parity(0.0, 1.0, ("z",))

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
