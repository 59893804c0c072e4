"""External data: nothing outside the model's folder is read, sent or written; offsets are checked."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import NETWORKS, feeds, run
from onnx import TensorProto

import graphprune as gp
from graphprune.errors import ModelError
from graphprune.limits import max_bytes
from graphprune.storage.external_places import external_files

SECRET = b"secret!!" * 512


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """A model with its weights in a file, in a folder with ways out of it."""
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(SECRET)
    path = folder / "m.onnx"
    onnx.save(NETWORKS["mlp"](), path, save_as_external_data=True, location="m.data", size_threshold=0)
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "up").symlink_to(tmp_path)
    os.link(tmp_path / "secret", folder / "hard")
    os.mkfifo(folder / "pipe")
    (folder / "sub").mkdir()
    return path


def entry(path: Path, key: str, value: str, tensors: int = 1) -> None:
    """Changes one entry of the first tensors."""
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer[:tensors]:
        entries = {e.key: e.value for e in tensor.external_data}
        del tensor.external_data[:]
        for name, text in {**entries, key: value}.items():
            tensor.external_data.add(key=name, value=text)
    path.write_bytes(model.SerializeToString())


PLACES = [
    "/etc/passwd", "../secret", "sub/../../secret", "..", ".", "link", "up/secret", "hard", "pipe", "sub",
    "missing", "", "a\x00b", "x" * 300, "/dev/zero", "C:\\secret", "..\\secret", "\x1b[2Jx", "~/secret",
]  # fmt: skip


@pytest.mark.parametrize("location", PLACES)
def test_no_other_file_is_read(refusal, external: Path, location: str) -> None:  # type: ignore[no-untyped-def]
    entry(external, "location", location)
    error = refusal("inspect", external)
    assert "external data file" in error or "cannot be read" in error
    out = external.parent / "out.onnx"
    refusal("prune", external, out, "--target", "macs=50%", "--criterion", "l2")
    refusal("convert", external, out)
    refusal("profile", external, "--repeat", 1)
    assert not out.exists()


@pytest.mark.parametrize("location", PLACES)
def test_no_other_file_is_sent_to_a_device(external: Path, location: str) -> None:
    entry(external, "location", location)
    with pytest.raises(ModelError):
        external_files(external)


def test_the_own_file_is_sent(external: Path) -> None:
    assert external_files(external) == ["m.data"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("offset", "-8"), ("offset", str(1 << 62)), ("offset", str(-(1 << 63))), ("offset", "9" * 30),
        ("offset", "x"), ("offset", "1e3"), ("length", "-1"), ("length", str(1 << 62)), ("length", "7"),
        ("length", "9" * 5000),
    ],
)  # fmt: skip
def test_offsets_stay_within_the_file(refusal, external: Path, key: str, value: str) -> None:  # type: ignore[no-untyped-def]
    entry(external, key, value)
    refusal("inspect", external)


def test_tensors_that_overlap_are_read_as_they_say(external: Path, tmp_path: Path) -> None:
    entry(external, "offset", "0", tensors=3)
    out = tmp_path / "o.onnx"
    gp.prune(external, out, target={"macs": 0.6}, criterion="l2")
    model = onnx.load(external)
    assert all(np.isfinite(array).all() for array in run(onnx.load(out), feeds(model)))


def test_overlapping_tensors_count_as_often_as_they_are_declared(external: Path) -> None:
    size = external.stat().st_size + (external.parent / "m.data").stat().st_size
    with max_bytes(size):
        gp.load(external)
    model = onnx.load(external, load_external_data=False)
    large = max(model.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    for number in range(40):
        copy = model.graph.initializer.add()
        copy.CopyFrom(large)
        copy.name = f"copy{number}"
    external.write_bytes(model.SerializeToString())
    with max_bytes(size + 5000), pytest.raises(ModelError, match="too large"):
        gp.load(external)


@pytest.mark.parametrize(
    "dims", [[1 << 33, 1 << 33], [-3, -4], [1 << 62], [0, 1 << 62, 5], [-1], [(1 << 63) - 1] * 4]
)
@pytest.mark.parametrize("form", ["raw", "floats", "external"])
def test_sizes_that_overflow(refusal, external: Path, dims: list[int], form: str) -> None:  # type: ignore[no-untyped-def]
    model = onnx.load(external, load_external_data=form != "external")
    tensor = model.graph.initializer[0]
    count = int(np.prod(tensor.dims))
    tensor.dims[:] = dims
    if form == "floats":
        tensor.ClearField("raw_data")
        tensor.float_data.extend([0.5] * count)
    external.write_bytes(model.SerializeToString())
    refusal("inspect", external)
    refusal("prune", external, external.parent / "o.onnx", "--target", "macs=50%")


@pytest.mark.parametrize("kind", [TensorProto.STRING, TensorProto.UNDEFINED, TensorProto.INT4, 99, -1])
def test_types_that_the_bytes_are_not_of(refusal: Callable[..., str], external: Path, kind: int) -> None:
    model = onnx.load(external, load_external_data=False)
    model.graph.initializer[0].data_type = kind
    external.write_bytes(model.SerializeToString())
    refusal("inspect", external)


def with_function(path: Path, tensor: TensorProto, *, in_body: bool) -> None:
    """A model whose function has external data: in a Constant, or among the initializers of a body."""
    constant = onnx.helper.make_node("Constant", [], ["k"], value=tensor)
    product = onnx.helper.make_node("MatMul", ["r", "k"], ["y"])
    nodes = [constant, product]
    if in_body:
        tensor.name = "k"
        out = onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        body = onnx.helper.make_graph([product], "body", [], [out], [tensor])
        yes = onnx.helper.make_node(
            "Constant", [], ["yes"], value=onnx.numpy_helper.from_array(np.array(True))
        )
        nodes = [yes, onnx.helper.make_node("If", ["yes"], ["y"], then_branch=body, else_branch=body)]
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("my", 1)]
    function = onnx.helper.make_function("my", "F", ["r"], ["y"], nodes, opsets[:1])
    ends = [onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 4]) for name in "xy"]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("F", ["x"], ["y"], domain="my")], "g", ends[:1], ends[1:]
    )
    model = onnx.helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=9)
    path.write_bytes(model.SerializeToString())


def stored_at(location: str, array: np.ndarray) -> TensorProto:
    tensor = onnx.numpy_helper.from_array(array, "t")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


@pytest.mark.parametrize("in_body", [False, True])
def test_data_of_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_body: bool) -> None:
    """They stand beside the model, too, and not where the command was given."""
    folder, here = tmp_path / "model", tmp_path / "here"
    folder.mkdir()
    here.mkdir()
    weight = np.arange(16, dtype=np.float32).reshape(4, 4)
    (folder / "m.data").write_bytes(weight.tobytes())
    (here / "m.data").write_bytes(bytes(64))
    monkeypatch.chdir(here)
    with_function(folder / "m.onnx", stored_at("m.data", weight), in_body=in_body)
    constants = [v.const_value for v in gp.load(folder / "m.onnx").ir.graph.initializers.values()]
    found = [tensor.numpy() for tensor in constants if tensor is not None and tensor.size == weight.size]
    assert found
    assert all((array == weight).all() for array in found)
    with_function(folder / "m.onnx", stored_at("../here/m.data", weight), in_body=in_body)
    with pytest.raises(ModelError, match="not in the model's folder"):
        gp.load(folder / "m.onnx")


def test_data_of_an_attribute_come_along(tmp_path: Path) -> None:
    """A Constant that is an output stays a node; its numbers are not in the new data file."""
    proto, array = NETWORKS["mlp"](), np.arange(2048, dtype=np.float32)
    tensor = stored_at("m.data", array)
    proto.graph.node.append(onnx.helper.make_node("Constant", [], ["constant"], value=tensor))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("constant", TensorProto.FLOAT, [2048]))
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    (tmp_path / "m.data").write_bytes(array.tobytes())
    (tmp_path / "out").mkdir()
    gp.load(tmp_path / "m.onnx").save(tmp_path / "out" / "o.onnx")
    (tmp_path / "m.data").unlink()
    assert (run(onnx.load(tmp_path / "out" / "o.onnx"), feeds(proto))[-1] == array).all()


@pytest.mark.parametrize("in_body", [False, True])
def test_no_other_file_of_a_function_is_sent_to_a_device(tmp_path: Path, in_body: bool) -> None:
    with_function(tmp_path / "m.onnx", stored_at("../secret", np.ones((4, 4))), in_body=in_body)
    with pytest.raises(ModelError, match="not in the model's folder"):
        external_files(tmp_path / "m.onnx")


@pytest.mark.parametrize("command", ["convert", "profile"])
def test_data_beside_a_model_count_for_max_bytes(refusal, tmp_path: Path, command: str) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "m.data").write_bytes(bytes(1 << 16))
    with_function(tmp_path / "m.onnx", stored_at("m.data", np.zeros((128, 128), np.float32)), in_body=False)
    out = (tmp_path / "out.onnx",) if command == "convert" else ()
    assert "hold is too large" in refusal("--max-bytes", "60kB", command, tmp_path / "m.onnx", *out)
