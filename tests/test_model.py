"""Reading and writing: what is kept, what is refused, and that nothing is ever half written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from graphprune.errors import ModelError
from graphprune.model import Model, load
from graphprune.storage.streaming import Stream

TEXT = """
<ir_version: 9, opset_import: ["" : 17, "com.example" : 3], producer_name: "somebody">
net (float[batch, 4] x, float[batch, "time + 1"] z) => (float[batch, 3] y, float[batch, m] z2)
<float[4, 3] w, float[3] b>
{
    h = MatMul (x, w)
    y = Add (h, b)
    z2 = Relu (z)
}
"""


def proto() -> onnx.ModelProto:
    model = onnx.parser.parse_model(TEXT.replace('"time + 1"', "t"))
    model.graph.input[1].type.tensor_type.shape.dim[1].dim_param = "time + 1"
    values = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(values, "w"))
    model.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "b"))
    model.graph.doc_string = "a graph"
    model.doc_string = "a model"
    model.model_version = 7
    model.domain = "org.example"
    for node in model.graph.node:
        node.ClearField("domain")
    node = model.graph.node[0]
    node.name, node.doc_string = "first", "multiplies"
    node.metadata_props.add(key="layer", value="encoder.0")
    model.metadata_props.add(key="author", value="me")
    model.graph.metadata_props.add(key="graph", value="yes")
    note = model.graph.quantization_annotation.add(tensor_name="h")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="b")
    return model


def write(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, path)
    return path


def external(tmp_path: Path, name: str = "big.onnx") -> Path:
    path = tmp_path / name
    onnx.save(proto(), path, save_as_external_data=True, location=name + ".data", size_threshold=0)
    return path


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_round_trip_keeps_everything(tmp_path: Path) -> None:
    source = proto()
    load(write(source, tmp_path / "in.onnx")).save(tmp_path / "out.onnx")
    saved = onnx.load(tmp_path / "out.onnx")
    onnx.checker.check_model(saved)
    for name in ("ir_version", "producer_name", "doc_string", "model_version", "domain"):
        assert getattr(saved, name) == getattr(source, name)
    assert list(saved.opset_import) == list(source.opset_import)
    assert list(saved.metadata_props) == list(source.metadata_props)
    assert saved.graph.name == "net"
    assert list(saved.graph.input) == list(source.graph.input)
    assert list(saved.graph.output) == list(source.graph.output)
    assert list(saved.graph.node) == list(source.graph.node)
    assert list(saved.graph.metadata_props) == list(source.graph.metadata_props)
    assert list(saved.graph.quantization_annotation) == list(source.graph.quantization_annotation)
    for before, after in zip(source.graph.initializer, saved.graph.initializer, strict=True):
        np.testing.assert_array_equal(
            numpy_helper.to_array(before), numpy_helper.to_array(after), strict=True
        )


def test_sha256_is_of_the_file(tmp_path: Path) -> None:
    path = write(proto(), tmp_path / "in.onnx")
    assert load(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert load(path).clone().sha256 == load(path).sha256
    assert load(proto()).sha256 == load(proto()).sha256 != load(path.parent / "in.onnx").opset


def test_sources(tmp_path: Path) -> None:
    path = write(proto(), tmp_path / "in.onnx")
    graph = gs.import_onnx(proto())
    for source in (path, str(path), proto(), graph, ir.load(path)):
        model = load(source)
        assert [node.op_type for node in model.ir.graph] == ["MatMul", "Add", "Relu"]
        assert model.opset == 17
    assert load(path).path == path
    assert load(proto()).path is None
    model = load(path)
    assert load(model) is model
    with pytest.raises(ModelError, match="cannot load a model from a int"):
        load(3)  # type: ignore[arg-type]


def test_sources_are_not_changed(tmp_path: Path) -> None:
    given = proto()
    model = load(given)
    copy = model.clone()
    copy.ir.graph.initializers["w"].name = "renamed"
    copy.ir.graph.remove(copy.ir.graph[2], safe=False)
    copy.save(tmp_path / "out.onnx")
    assert given.SerializeToString(deterministic=True) == proto().SerializeToString(deterministic=True)
    assert len(model.ir.graph) == 3
    assert [tensor.name for tensor in model.to_proto().graph.initializer] == ["w", "b"]


def test_to_graphsurgeon(tmp_path: Path) -> None:
    graph = load(external(tmp_path)).to_graphsurgeon()
    assert [node.op for node in graph.nodes] == ["MatMul", "Add", "Relu"]
    assert graph.tensors()["w"].values.shape == (4, 3)


def test_external_data_stay_external_and_lazy(tmp_path: Path) -> None:
    path = external(tmp_path)
    model = load(path)
    tensor = model.ir.graph.initializers["w"].const_value
    assert isinstance(tensor, ir.ExternalTensor)
    assert tensor.raw is None, "nothing may be mapped before it is needed"
    (tmp_path / "out").mkdir()
    model.clone().save(tmp_path / "out" / "small.onnx")
    assert names(tmp_path / "out") == ["small.onnx", "small.onnx.data"]
    saved = onnx.load(tmp_path / "out" / "small.onnx")
    np.testing.assert_array_equal(
        numpy_helper.to_array(saved.graph.initializer[0]),
        numpy_helper.to_array(proto().graph.initializer[0]),
    )


def test_saving_keeps_the_model_usable(tmp_path: Path) -> None:
    model = load(external(tmp_path))
    model.save(tmp_path / "a.onnx")
    (tmp_path / "a.onnx").unlink()
    (tmp_path / "a.onnx.data").unlink()
    model.save(tmp_path / "b.onnx")
    onnx.checker.check_model(str(tmp_path / "b.onnx"), full_check=True)


def test_source_data_are_not_overwritten(tmp_path: Path) -> None:
    path = external(tmp_path)
    before = {file: (tmp_path / file).read_bytes() for file in names(tmp_path)}
    with pytest.raises(ModelError, match="its data file is still in use"):
        load(path).save(path)
    assert {file: (tmp_path / file).read_bytes() for file in names(tmp_path)} == before


def test_unwritable_target_leaves_nothing(tmp_path: Path) -> None:
    model = load(proto())
    with pytest.raises(ModelError, match=r"cannot write .*\n.*where.*\n.*because.*\n.*try"):
        model.save(tmp_path / "no" / "such" / "folder.onnx")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ModelError, match="it is a folder"):
        model.save(tmp_path / "folder")
    assert names(tmp_path) == ["folder"]


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out.onnx"
    target.write_bytes(b"old")

    def full(stream: Stream) -> Iterator[bytes]:
        yield b"half"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Stream, "chunks", full)
    with pytest.raises(ModelError, match="No space left on device"):
        load(proto()).save(target)
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["out.onnx"]


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model file '.*nowhere\.onnx' does not exist"):
        load(tmp_path / "nowhere.onnx")
    with pytest.raises(ModelError, match="is a folder"):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"not a model at all", b"\x08", b"PK\x03\x04zip", b"\x89HDF"])
def test_not_onnx(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"is not an ONNX file|holds no graph|is truncated"):
        load(path)


def test_empty_file_holds_no_graph(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"")
    with pytest.raises(ModelError, match="the model holds no graph"):
        load(path)
    with pytest.raises(ModelError, match="the model holds no graph"):
        load(onnx.ModelProto(ir_version=9))


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
def test_truncated(tmp_path: Path, keep: float) -> None:
    content = proto().SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(ModelError, match="is truncated"):
        load(path)


def test_external_data_missing_or_short(tmp_path: Path) -> None:
    path = external(tmp_path)
    data = tmp_path / "big.onnx.data"
    data.write_bytes(data.read_bytes()[:20])
    with pytest.raises(ModelError, match=r"big\.onnx\.data' is too short"):
        load(path)
    data.unlink()
    with pytest.raises(ModelError, match=r"of tensor 'w' does not exist"):
        load(path)


def test_external_data_elsewhere_are_refused(tmp_path: Path) -> None:
    path = external(tmp_path)
    data = tmp_path / "big.onnx.data"
    inside = tmp_path / "inside"
    inside.mkdir()
    data.rename(inside / "data")
    data.symlink_to(inside / "data")
    load(path).save(tmp_path / "out.onnx")  # a link that stays in the folder is fine
    (inside / "big.onnx").write_bytes(path.read_bytes())
    (inside / "big.onnx.data").symlink_to(tmp_path / "out.onnx.data")
    with pytest.raises(ModelError, match=r"not in the model's folder(.|\n)*cp -L"):
        load(inside / "big.onnx")


def test_external_data_of_another_length(tmp_path: Path) -> None:
    path = external(tmp_path)
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].dims[0] = 2
    onnx.save(model, path)
    with pytest.raises(ModelError, match="has 48 bytes of external data, not 24"):
        load(path)


def test_embedded_tensor_of_another_length() -> None:
    model = proto()
    model.graph.initializer[0].dims[0] = 2
    with pytest.raises(ModelError, match="tensor 'w' has 48 bytes, not 24"):
        load(model)


def test_sparse_initializer_is_refused() -> None:
    model = proto()
    values = helper.make_tensor("s", onnx.TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("i", onnx.TensorProto.INT64, [1], [2])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    with pytest.raises(ModelError, match="sparse initializer 's' can't be kept"):
        load(model)


def test_cycle_is_refused() -> None:
    model = proto()
    model.graph.node[0].input[0] = "y"
    with pytest.raises(ModelError, match="the graph has a cycle"):
        load(model)


def test_duplicate_and_undefined_names_are_refused() -> None:
    model = proto()
    model.graph.node[2].output[0] = "h"
    with pytest.raises(ModelError, match="value 'h' is defined more than once"):
        load(model)
    model = proto()
    model.graph.node[2].input[0] = "nobody"
    with pytest.raises(ModelError, match="input 'nobody' of Relu '' is not defined"):
        load(model)
    model = proto()
    model.graph.output[0].name = "nothing"
    with pytest.raises(ModelError, match="graph output 'nothing' is not defined"):
        load(model)


def test_missing_opset_is_refused() -> None:
    model = proto()
    del model.opset_import[:]
    with pytest.raises(ModelError, match="which version of the ONNX operators"):
        load(model)


def test_every_dtype_survives(tmp_path: Path) -> None:
    dtypes = ["FLOAT16", "BFLOAT16", "DOUBLE", "INT8", "INT4", "UINT4", "FLOAT8E4M3FN", "BOOL"]
    model = proto()
    for name in dtypes:
        dtype = getattr(onnx.TensorProto, name)
        values = [1, 0, 1, 0, 1] if name == "BOOL" else [1, 2, 3, 4, 5]
        model.graph.initializer.append(helper.make_tensor(name, dtype, [5], values))
    loaded = load(model)
    loaded.save(tmp_path / "out.onnx")
    again = Model.load(tmp_path / "out.onnx")
    for name in dtypes:
        before = loaded.ir.graph.initializers[name].const_value
        after = again.ir.graph.initializers[name].const_value
        assert before is not None
        assert after is not None
        np.testing.assert_array_equal(before.numpy(), after.numpy(), strict=True)
