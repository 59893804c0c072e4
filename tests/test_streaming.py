"""A model as bytes, piece by piece: the same message, of the size that was announced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks import NETWORKS
from onnx import TensorProto, helper, numpy_helper

from graphprune.model import load
from graphprune.storage.streaming import Stream

WEIGHT = np.arange(48 * 16, dtype=np.float32).reshape(48, 16)


def linear(**stored: bytes | int) -> onnx.ModelProto:
    weight = (
        numpy_helper.from_array(WEIGHT, "w")
        if not stored
        else onnx.TensorProto(name="w", dims=[48, 16], **stored)
    )
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 48])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16])
    graph = helper.make_graph([node], "g", [x], [y], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_bytes_are_the_model(name: str) -> None:
    model = load(NETWORKS[name]())
    stream = Stream(model.ir)
    found = b"".join(stream.chunks())
    assert onnx.ModelProto.FromString(found) == model.to_proto()
    assert stream.size == len(found) == model.file_bytes


def test_weights_from_a_file_and_lazy_ones(tmp_path: Path) -> None:
    onnx.save(linear(), tmp_path / "m.onnx")
    model = load(tmp_path / "m.onnx")
    expected = model.to_proto()
    value = model.ir.graph.initializers["w"]
    real = value.const_value
    assert real is not None
    lazy = ir.LazyTensor(lambda: ir.tensor(WEIGHT), dtype=real.dtype, shape=real.shape, name="w")  # type: ignore[arg-type]
    value.const_value = lazy
    assert onnx.ModelProto.FromString(b"".join(Stream(model.ir).chunks())) == expected
    assert value.const_value is lazy


def test_four_bits_stay_packed() -> None:
    model = load(linear())
    packed = ir.tensor(
        (np.arange(48 * 16).reshape(48, 16) % 16 - 8).astype(np.int8), dtype=ir.DataType.INT4, name="w"
    )
    model.ir.graph.initializers["w"].const_value = packed
    stream = Stream(model.ir)
    found = onnx.ModelProto.FromString(b"".join(stream.chunks()))
    assert len(found.graph.initializer[0].raw_data) == 48 * 16 // 2
    assert found.ByteSize() == stream.size


def test_external_weights_count_as_part_of_the_file(tmp_path: Path) -> None:
    onnx.save(linear(), tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    model = load(tmp_path / "m.onnx")
    assert Stream(model.ir).size == model.to_proto().ByteSize()


def test_skeleton_has_inputs_for_weights() -> None:
    found = Stream(load(linear()).ir).skeleton()
    assert [value.name for value in found.graph.input] == ["x", "w"]
    assert not found.graph.initializer
    onnx.checker.check_model(found, full_check=True)


def test_a_failure_half_way_leaves_the_model_as_it_was() -> None:
    def fail() -> ir.TensorProtocol:
        raise RuntimeError

    model = load(linear())
    value = model.ir.graph.initializers["w"]
    broken = ir.LazyTensor(fail, dtype=ir.DataType.FLOAT, shape=ir.Shape([48, 16]), name="w")
    value.const_value = broken
    with pytest.raises(RuntimeError):
        b"".join(Stream(model.ir).chunks())
    assert value.const_value is broken
