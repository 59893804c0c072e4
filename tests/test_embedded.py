"""Weights inside a model file: what the parser makes of them, and only from the file that was loaded."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphprune.errors import ModelError
from graphprune.model import load
from graphprune.storage import embedded
from graphprune.storage.embedded import load_split

RNG = np.random.default_rng(0)
FLOATS = RNG.standard_normal((40, 50)).astype(np.float32)


def tensors() -> list[onnx.TensorProto]:
    listed = helper.make_tensor("listed", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])
    packed = helper.make_tensor("packed", TensorProto.INT4, [5], [1, -2, 3, -4, 5])
    packed_raw = onnx.TensorProto(
        name="packed_raw", dims=[4], data_type=TensorProto.INT4, raw_data=b"\x21\x43"
    )
    texts = helper.make_tensor("texts", TensorProto.STRING, [2], ["a", "b"])
    documented = numpy_helper.from_array(FLOATS[:3], "documented")
    documented.doc_string = "three rows"
    return [
        numpy_helper.from_array(FLOATS, "floats"),
        numpy_helper.from_array(FLOATS.astype(ml_dtypes.bfloat16).reshape(-1), "halves"),
        numpy_helper.from_array(np.array(7, np.int64), "number"),
        numpy_helper.from_array(np.zeros((0, 4), np.float32), "empty"),
        listed, packed, packed_raw, texts, documented,
    ]  # fmt: skip


def proto() -> onnx.ModelProto:
    node = helper.make_node("MatMul", ["x", "floats"], ["y"])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 40])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 50])
    graph = helper.make_graph([node], "g", [x], [y], tensors())
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    model.metadata_props.add(key="k", value="v")
    return model


@pytest.fixture(params=[1 << 25, 0], ids=["at once", "when needed"])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(embedded, "SMALL_FILE", request.param)
    monkeypatch.setattr(embedded, "_SMALL_BYTES", 1000)
    onnx.save(proto(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_every_kind_of_tensor_is_what_the_parser_makes_of_it(path: Path) -> None:
    found = {t.name: t for t in load(path).to_proto().graph.initializer}
    assert found == {t.name: t for t in load(proto()).to_proto().graph.initializer}
    assert found["documented"].doc_string == "three rows"
    assert np.array_equal(numpy_helper.to_array(found["floats"]), FLOATS)


def test_the_parser_gets_no_raw_data(path: Path) -> None:
    split = load_split(path)
    assert split is not None
    rest, weights = split
    assert {"floats", "halves", "number", "empty", "documented"} == set(weights)
    raw = {t.name for t in rest.graph.initializer if t.HasField("raw_data")}
    assert raw == {"packed_raw"}
    assert [p.key for p in rest.metadata_props] == ["k"]


def test_a_deleted_file_can_still_be_read(path: Path) -> None:
    model = load(path)
    path.unlink()
    (floats,) = (t for t in model.to_proto().graph.initializer if t.name == "floats")
    assert np.array_equal(numpy_helper.to_array(floats), FLOATS)


def test_a_file_that_was_written_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "SMALL_FILE", 0)
    monkeypatch.setattr(embedded, "_SMALL_BYTES", 1000)
    path = tmp_path / "model.onnx"
    onnx.save(proto(), path)
    os.utime(path, (1, 1))
    model = load(path)
    other = proto()
    other.graph.initializer[0].CopyFrom(numpy_helper.from_array(FLOATS + 1, "floats"))
    onnx.save(other, path)  # in place: same file, other weights
    with pytest.raises(ModelError, match="was changed after it was loaded"):
        model.to_proto()


def test_the_file_is_closed_with_the_last_weight(path: Path) -> None:
    def is_open() -> bool:
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return any(link.samefile(path) for link in links if link.exists() and path.exists())

    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc")
    model = load(path)
    assert is_open() == (embedded.SMALL_FILE == 0)
    del model
    gc.collect()
    assert not is_open()


@pytest.mark.parametrize("cut", [1, 100, 5000])
def test_a_file_cut_off_is_left_to_the_parser(path: Path, cut: int) -> None:
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ModelError, match="truncated"):
        load(path)


def test_wrong_raw_data_are_left_to_the_checks(tmp_path: Path) -> None:
    wrong = proto()
    wrong.graph.initializer[0].raw_data = wrong.graph.initializer[0].raw_data[:-4]
    onnx.save(wrong, tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="has 7996 bytes, not 8000"):
        load(tmp_path / "model.onnx")
