"""torch models in files: exported programs, pickled modules, and what is refused."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphprune.converters import convert
from same_network import assert_same, expected_image, images, record
from typer.testing import CliRunner

from graphprune.cli.app import app
from graphprune.errors import ModelError, UsageError, ValidationError

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]  # raised inside torch.export


@pytest.fixture
def factories(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module under its name, so that pickles can refer to it."""
    import torch_factories

    monkeypatch.setitem(sys.modules, "torch_factories", torch_factories)
    return torch_factories


@pytest.fixture
def program(factories: Any, tmp_path: Path) -> Path:
    import torch

    module, example = factories.same_image()
    free = torch.export.Dim("n", min=1, max=64)
    made = torch.export.export(module.eval(), (example,), dynamic_shapes={"x": {0: free}})
    torch.export.save(made, tmp_path / "m.pt2")
    return tmp_path / "m.pt2"


def test_an_exported_program(program: Path, tmp_path: Path) -> None:
    report = convert(program, tmp_path / "m.onnx")
    assert (report.framework, report.exporter) == ("torch", "torch.export")
    assert report.inputs[0].shape == ("batch", 3, 8, 8)
    assert report.outputs[0].shape == ("batch", 4)
    assert report.max_abs_diff <= 1e-5 * report.scale
    assert_same(record(tmp_path / "m.onnx", images()), expected_image())


def test_sizes_of_a_program_are_its_own(factories: Any, program: Path, tmp_path: Path) -> None:
    import torch

    with pytest.raises(UsageError, match=r"free axes of a torch.export program can't be changed"):
        convert(program, tmp_path / "m.onnx", dynamic={"x": {2: "height"}})
    module, arguments = factories.tokens()
    made = torch.export.export(module.eval(), (), arguments)
    torch.export.save(made, tmp_path / "fixed.pt2")
    report = convert(tmp_path / "fixed.pt2", tmp_path / "m.onnx")
    assert [(spec.name, spec.shape) for spec in report.inputs] == [("ids", (2, 7)), ("mask", (2, 7))]
    assert [spec.name for spec in report.outputs] == ["logits", "pooled"]


def changed(source: Path, out: Path, part: str, change: Any) -> Path:
    """A copy of an archive, in which the member with this part in its name is another one."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(old.read(name)) if part in name else old.read(name))
    return out


def test_a_program_with_a_pickled_object_needs_trust(program: Path, tmp_path: Path) -> None:
    import torch

    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return Path.touch, (tmp_path / "ran",)

    pickled = io.BytesIO()
    torch.save(Evil(), pickled)
    bad = changed(program, tmp_path / "bad.pt2", "sample_inputs", lambda _: pickled.getvalue())
    with pytest.raises(ModelError, match="could run code that is in it") as caught:
        convert(bad, tmp_path / "m.onnx")
    assert "--trust" in str(caught.value.hint)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ModelError, match="cannot load the program"):  # what was run gives no sample
        convert(bad, tmp_path / "m.onnx", trust=True)
    assert (tmp_path / "ran").exists()


def test_a_program_with_sizes_and_guards_needs_no_trust(tmp_path: Path) -> None:
    import torch
    from graphprune.converters.torch_archive import require_harmless

    class Halves(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x[: x.shape[0] // 2], torch.nn.functional.interpolate(x[None], scale_factor=1.5)

    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.AUTO}
    made = torch.export.export(Halves().eval(), (torch.ones(6, 8),), dynamic_shapes=(free,))
    torch.export.save(made, tmp_path / "m.pt2")
    text = next(n for n in zipfile.ZipFile(tmp_path / "m.pt2").namelist() if "models/" in n)
    program = zipfile.ZipFile(tmp_path / "m.pt2").read(text)
    assert b"Float('1.5'" in program
    assert b'"guards_code": []' not in program
    require_harmless(tmp_path / "m.pt2")


@pytest.mark.parametrize("name", ["weight_0", "custom_obj_0", "opaque_obj_0"])
def test_so_does_one_whose_weights_are_pickled(program: Path, tmp_path: Path, name: str) -> None:
    def change(content: bytes) -> bytes:
        first = content.replace(b'"path_name": "weight_0"', b'"path_name": "' + name.encode() + b'"', 1)
        return first.replace(b'"use_pickle": false', b'"use_pickle": true', 1)

    bad = changed(program, tmp_path / "bad.pt2", "model_weights_config", change)
    with pytest.raises(ModelError, match="could run code that is in it"):
        convert(bad, tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"target": "torch.ops.aten.relu.default"', b'"target": "torch.os.system"'),
        (b"Symbol('s", b"__import__('os').system('s"),
        (b'"guards_code": []', b'"guards_code": ["open(L)"]'),
        (b'\\"type\\": \\"builtins.tuple\\"', b'\\"type\\": \\"collections.defaultdict\\"'),
    ],
)
def test_a_program_that_names_other_functions_needs_trust(
    program: Path, tmp_path: Path, old: bytes, new: bytes
) -> None:
    def change(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new)

    bad = changed(program, tmp_path / "bad.pt2", "models/", change)
    with pytest.raises(ModelError, match="could run code that is in it"):
        convert(bad, tmp_path / "m.onnx")


def test_a_broken_program(tmp_path: Path) -> None:
    (tmp_path / "m.pt2").write_text("hello")
    with pytest.raises(ModelError, match="torch cannot load the program"):
        convert(tmp_path / "m.pt2", tmp_path / "m.onnx")


def test_a_pickled_module_needs_trust(factories: Any, tmp_path: Path) -> None:
    import torch

    module, example = factories.same_image()
    torch.save(module, tmp_path / "m.pt")
    np.savez(tmp_path / "x.npz", x=example.numpy())
    arguments = ["convert", str(tmp_path / "m.pt"), str(tmp_path / "m.onnx")]
    arguments += ["--inputs", str(tmp_path / "x.npz"), "--exporter", "torchscript"]
    with pytest.raises(ModelError) as caught:
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert caught.value.exit_code == 1
    assert "is a pickle, and loading it can run any code" in str(caught.value)
    assert "--trust" in str(caught.value)
    assert not (tmp_path / "m.onnx").exists()
    with pytest.raises(ModelError, match="without an example of its inputs") as caught:
        convert(tmp_path / "m.pt", tmp_path / "m.onnx", trust=True)
    assert "--inputs FILE.npz" in str(caught.value.hint)
    assert CliRunner().invoke(app, [*arguments, "--trust"]).exit_code == 0
    assert_same(record(tmp_path / "m.onnx", images()), expected_image())


def test_without_trust_no_code_runs(tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return Path.touch, (tmp_path / "ran",)

    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        archive.writestr("m/data.pkl", pickle.dumps(Evil(), 2))
        archive.writestr("m/version", "3")
    with pytest.raises(ModelError):
        convert(tmp_path / "m.pt", tmp_path / "m.onnx")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("trust", [False, True])
def test_other_files_of_torch(factories: Any, tmp_path: Path, trust: bool) -> None:
    import torch

    module, example = factories.same_dense()
    torch.save(module.state_dict(), tmp_path / "weights.pt")
    torch.jit.trace(module, example).save(tmp_path / "script.pt")
    (tmp_path / "text.pt").write_text("hello")
    for name, text in (
        ("weights.pt", "a checkpoint holds weights"),
        ("script.pt", "is a TorchScript archive"),
        ("text.pt", "torch cannot load"),
    ):
        with pytest.raises(ModelError, match=text):
            convert(tmp_path / name, tmp_path / "m.onnx", trust=trust)


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize(("name", "dtype"), [("half", "float16"), ("brain", "bfloat16")])
def test_half_precision_is_kept(tmp_path: Path, name: str, dtype: str, exporter: str) -> None:
    source = f"{Path(__file__).with_name('torch_factories.py')}:{name}"
    report = convert(source, tmp_path / "m.onnx", exporter=exporter)
    assert report.inputs[0].dtype == dtype
    assert report.scale > 0
    assert report.max_abs_diff <= 0.02 * report.scale
    kinds = {tensor.data_type for tensor in onnx.load(tmp_path / "m.onnx").graph.initializer}
    assert getattr(onnx.TensorProto, dtype.upper()) in kinds
    assert onnx.TensorProto.FLOAT not in kinds


def test_a_length_frozen_by_the_tracer_is_caught(tmp_path: Path) -> None:
    source = f"{Path(__file__).with_name('torch_factories.py')}:frozen_length"
    dynamic = {"x": {1: "length"}}
    with pytest.raises(ValidationError, match="output 'output' of the converted model is not"):
        convert(source, tmp_path / "m.onnx", exporter="torchscript", dynamic=dynamic)
    assert not list(tmp_path.iterdir())
