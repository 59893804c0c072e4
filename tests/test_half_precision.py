"""Models in float16 and bfloat16 go through the whole pipeline, the oracle included."""

from __future__ import annotations

import ml_dtypes
import networks
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

import graphprune as gp
from graphprune.errors import ValidationError
from graphprune.model import load
from graphprune.oracle import verify
from graphprune.planner import removed_units
from graphprune.rewrite import cut
from graphprune.widened import widened

TYPES = {TensorProto.FLOAT16: np.float16, TensorProto.BFLOAT16: ml_dtypes.bfloat16}
EVERY = pytest.mark.parametrize("dtype", TYPES, ids=["float16", "bfloat16"])


def half(name: str, dtype: int) -> onnx.ModelProto:
    """A small network with all its numbers in 16 bits."""
    model = networks.NETWORKS[name]()
    model.opset_import[0].version, model.ir_version = 23, 10
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            array = numpy_helper.to_array(tensor).astype(TYPES[dtype])
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for value in [*model.graph.input, *model.graph.output]:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = dtype
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = dtype
    return model


@EVERY
@pytest.mark.parametrize("name", ["cnn", "attention", "shape_arithmetic", "gated_mlp", "tied_embedding"])
def test_pruned_and_verified(name: str, dtype: int) -> None:
    result = gp.prune(half(name, dtype), target={"macs": 0.7}, criterion="l2")
    assert result.verdict is not None
    assert result.verdict.scale > 0
    kept = {t.data_type for t in result.model.to_proto().graph.initializer}
    assert kept <= {dtype, TensorProto.INT64, TensorProto.BOOL}


@EVERY
def test_a_wrong_cut_is_noticed(dtype: int) -> None:
    graph = gp.analyze(load(half("mlp", dtype)))
    removed = removed_units(graph, gp.plan(graph, target={"macs": 0.6}, criterion="l2"))
    proto = cut(graph.analysis, removed).to_proto()
    weight = next(t for t in proto.graph.initializer if t.name == "b.w")
    rolled = np.roll(numpy_helper.to_array(weight), 1, axis=0)
    weight.CopyFrom(numpy_helper.from_array(rolled, weight.name))
    with pytest.raises(ValidationError, match="differs from the masked original"):
        verify(graph.analysis, removed, load(proto))


def test_only_bfloat16_is_widened() -> None:
    model = load(half("cnn", TensorProto.FLOAT16))
    assert widened(model) is model
    proto = widened(load(half("shape_arithmetic", TensorProto.BFLOAT16))).to_proto()
    assert TensorProto.BFLOAT16 not in {t.data_type for t in proto.graph.initializer}
    onnx.checker.check_model(proto, full_check=True)
