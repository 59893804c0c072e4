"""torch to ONNX with both exporters: names, free axes, parity, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from graphprune.converters import convert
from same_network import assert_same, expected_dense, expected_image, images, record, rows

from graphprune.errors import ModelError, UsageError, ValidationError

pytestmark = [
    pytest.mark.torch,
    # Raised inside torch's own exporters.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
FACTORIES = Path(__file__).with_name("torch_factories.py")
EXPORTERS = ("dynamo", "torchscript")


def source(name: str) -> str:
    return f"{FACTORIES}:{name}"


def test_every_part_is_in_its_own_mode_again(tmp_path: Path) -> None:
    import torch
    from graphprune.converters.torch import export_module

    frozen = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout()).eval()
    module = torch.nn.Sequential(frozen, torch.nn.Linear(4, 2))
    assert module.training
    export_module(module, torch.ones(2, 4), tmp_path / "m.onnx", source="test", exporter="torchscript")
    assert module.training
    assert module[1].training
    assert not any(part.training for part in frozen.modules())


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_batch_is_free_and_outputs_agree(tmp_path: Path, exporter: str) -> None:
    out = tmp_path / "small.onnx"
    report = convert(source("with_inputs"), out, exporter=exporter)
    assert report.framework == "torch"
    assert report.exporter == exporter
    assert [spec.shape for spec in report.inputs] == [("batch", 3, 8, 8)]
    assert [spec.shape for spec in report.outputs] == [("batch", 5)]
    assert report.scale > 0
    assert report.max_abs_diff <= 1e-5 * report.scale
    session = ort.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": np.ones((7, 3, 8, 8), np.float32)})
    assert logits.shape == (7, 5)
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_keyword_inputs_mapping_outputs_and_named_axes(tmp_path: Path, exporter: str) -> None:
    dynamic = {"ids": {1: "sequence"}, "mask": {1: "sequence"}}
    out = tmp_path / "tokens.onnx"
    report = convert(source("tokens"), out, exporter=exporter, dynamic=dynamic)
    assert [(spec.name, spec.shape) for spec in report.inputs] == [
        ("ids", ("batch", "sequence")),
        ("mask", ("batch", "sequence")),
    ]
    assert [spec.name for spec in report.outputs] == ["logits", "pooled"]
    assert report.inputs[0].dtype == "int64"


def test_no_paths_of_this_machine_in_the_file(tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    convert(source("with_inputs"), out)
    nodes = onnx.load(out).graph.node
    keys = {entry.key for node in nodes for entry in node.metadata_props}
    assert "pkg.torch.onnx.name_scopes" in keys
    assert str(FACTORIES.parent).encode() not in out.read_bytes()


def test_example_inputs_from_an_attribute(tmp_path: Path) -> None:
    report = convert(source("with_attribute"), tmp_path / "small.onnx")
    assert report.inputs[0].shape == ("batch", 3, 8, 8)


def test_fixed_batch_and_opset(tmp_path: Path) -> None:
    report = convert(source("with_inputs"), tmp_path / "small.onnx", batch=None, opset=19)
    assert report.inputs[0].shape == (1, 3, 8, 8)
    assert report.opset == 19


@pytest.mark.filterwarnings("ignore")
def test_batch_frozen_by_the_tracer_is_caught(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"output 'output' of the converted model is not"):
        convert(source("frozen_batch"), tmp_path / "x.onnx", exporter="torchscript")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "options", "error", "text"),
    [
        ("raises", {}, ModelError, "FileNotFoundError: no checkpoint here$"),
        ("bare", {}, ModelError, "an example of its inputs"),
        ("not_a_module", {}, ModelError, "the factory returned a dict"),
        ("not_a_module", {"framework": "torch"}, ModelError, "example of its inputs"),
        ("absent", {}, ModelError, "has no function 'absent'"),
        ("with_inputs", {"exporter": "caffe"}, UsageError, "no torch exporter 'caffe'"),
        ("with_inputs", {"dynamic": {"x": {1: "n"}}}, UsageError, "there is no input 'x'"),
        ("with_inputs", {"dynamic": {"images": {4: "n"}}}, UsageError, "has no axis 4"),
        ("cannot_export", {}, ModelError, "cannot export .* with its dynamo exporter"),
        (
            "cannot_export",
            {"exporter": "torchscript"},
            ModelError,
            "cannot export .* with its torchscript exporter",
        ),
    ],
)
def test_refusals_say_why_and_write_nothing(
    tmp_path: Path, name: str, options: dict[str, object], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=f"(?m){text}"):
        convert(source(name), tmp_path / "x.onnx", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_the_same_networks_are_pruned_the_same(tmp_path: Path, exporter: str) -> None:
    convert(source("same_dense"), tmp_path / "dense.onnx", exporter=exporter)
    assert_same(record(tmp_path / "dense.onnx", rows()), expected_dense())
    convert(source("same_image"), tmp_path / "image.onnx", exporter=exporter)
    assert_same(record(tmp_path / "image.onnx", images()), expected_image())
