"""Canonical form: the same function under the same names, with less in the way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

import graphprune as gp
from graphprune.errors import ModelError
from graphprune.model import Model, load


def parse(text: str, **initializers: np.ndarray) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in initializers.items())
    return model


def ops(model: Model) -> list[str]:
    return [node.op_type for node in model.ir.graph]


def constant(model: Model, name: str) -> np.ndarray:
    tensor = model.ir.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


def run(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options)
    return list(session.run(None, dict(feeds)))


def check_same(source: onnx.ModelProto, **feeds: np.ndarray) -> Model:
    """The canonical form computes bit for bit what the source does, under the same interface."""
    model = load(source)
    result = model.to_proto()
    onnx.checker.check_model(result, full_check=True)
    assert [v.name for v in result.graph.output] == [v.name for v in source.graph.output]
    for before, after in zip(run(source, feeds), run(result, feeds), strict=True):
        np.testing.assert_array_equal(before, after, strict=True)
    return model


X = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
W = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)


def test_constants_become_initializers_of_the_same_name() -> None:
    source = parse(
        """<ir_version: 9, opset_import: ["" : 17]>
        net (float[n, 4] x) => (float[n, 4] y) {
            two = Constant <value = float {2.0}> ()
            ints = Constant <value_ints = [0, -1]> ()
            half = Constant <value_float = 0.5> ()
            a = Mul (x, two)
            b = Reshape (a, ints)
            y = Mul (b, half)
        }"""
    )
    model = check_same(source, x=X)
    assert ops(model) == ["Mul", "Reshape", "Mul"]
    assert constant(model, "two") == 2.0
    assert constant(model, "ints").tolist() == [0, -1]
    assert constant(model, "half") == 0.5


def test_identities_go_but_output_names_stay() -> None:
    source = parse(
        """<ir_version: 9, opset_import: ["" : 17]>
        net (float[n, 4] x) => (float[n, 3] y, float[n, 4] z, float[3, 4] v) {
            copy = Identity (w)
            again = Identity (copy)
            wt = Transpose <perm = [1, 0]> (again)
            h = MatMul (x, wt)
            y = Identity (h)
            z = Identity (x)
            v = Identity (w)
        }""",
        w=W,
    )
    model = check_same(source, x=X)
    assert ops(model) == ["MatMul", "Identity", "Identity", "Identity"]
    np.testing.assert_array_equal(constant(model, "wt"), W.T)


def test_only_what_the_rest_reads_is_kept() -> None:
    source = parse(
        """<ir_version: 9, opset_import: ["" : 17]>
        net (float[n, 4] x) => (float[n, 3] y) {
            one, two, three = Split <axis = 0> (w)
            r = Concat <axis = 0> (three, one, two)
            wt = Transpose <perm = [1, 0]> (r)
            y = MatMul (x, wt)
        }""",
        w=W,
    )
    model = check_same(source, x=X)
    assert ops(model) == ["MatMul"]
    assert list(model.ir.graph.initializers) == ["wt"]
    np.testing.assert_array_equal(constant(model, "wt"), W[[2, 0, 1]].T)


def cast_weight(dtype: int) -> onnx.ModelProto:
    """A product with a weight that is stored in some type, turned, and cast before use."""
    source = parse(
        """<ir_version: 10, opset_import: ["" : 21]>
        net (float[n, 4] x) => (float[n, 3] y) {
            wt = Transpose <perm = [1, 0]> (w)
            c = Cast <to = 1> (wt)
            y = MatMul (x, c)
        }"""
    )
    source.graph.initializer.append(helper.make_tensor("w", dtype, [3, 4], W.ravel()))
    return source


@pytest.mark.parametrize("dtype", [onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT16])
def test_a_weight_that_is_stored_in_fewer_bits_stays_so(dtype: int) -> None:
    source = cast_weight(dtype)
    model = load(source)
    assert ops(model) == ["Cast", "MatMul"]
    expected = numpy_helper.to_array(source.graph.initializer[0]).T
    np.testing.assert_array_equal(constant(model, "wt"), expected, strict=True)
    assert ops(gp.analyze(model).model) == ["Cast", "MatMul"]


@pytest.mark.parametrize("dtype", [onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE])
def test_folding_keeps_the_type(dtype: int) -> None:
    source = cast_weight(dtype)
    model = load(source)
    assert ops(model) == ["MatMul"]
    expected = numpy_helper.to_array(source.graph.initializer[0]).astype(np.float32).T
    np.testing.assert_array_equal(constant(model, "c"), expected, strict=True)


def test_type_that_onnxruntime_cannot_return_is_folded_by_the_reference() -> None:
    source = parse(
        """<ir_version: 10, opset_import: ["" : 21]>
        net (bfloat16[n, 4] x) => (bfloat16[n, 3] y) {
            wt = Transpose <perm = [1, 0]> (w)
            y = MatMul (x, wt)
        }"""
    )
    source.graph.initializer.append(helper.make_tensor("w", onnx.TensorProto.BFLOAT16, [3, 4], W.ravel()))
    model = load(source)
    assert ops(model) == ["MatMul"]
    value = model.ir.graph.initializers["wt"]
    assert value.dtype == ir.DataType.BFLOAT16
    before = numpy_helper.to_array(source.graph.initializer[0])
    np.testing.assert_array_equal(constant(model, "wt"), before.T)


def test_op_that_nobody_can_run_is_left_alone() -> None:
    source = parse(
        """<ir_version: 9, opset_import: ["" : 17, "com.example" : 1]>
        net (float[n, 4] x) => (float[n, 3] y) {
            u = com.example.Unknown (w)
            wt = Transpose <perm = [1, 0]> (u)
            y = MatMul (x, wt)
        }""",
        w=W,
    )
    assert ops(load(source)) == ["Unknown", "Transpose", "MatMul"]


def test_random_and_quantized_weights_are_left_alone() -> None:
    source = parse(
        """<ir_version: 9, opset_import: ["" : 17]>
        net (float[n, 4] x) => (float[n, 4] y) {
            noise = RandomNormal <shape = [4, 4]> ()
            q = DequantizeLinear (w, s)
            qt = Transpose <perm = [1, 0]> (q)
            a = MatMul (x, qt)
            y = MatMul (a, noise)
        }""",
        w=np.arange(16, dtype=np.int8).reshape(4, 4),
        s=np.float32(0.1),
    )
    expected = ["RandomNormal", "DequantizeLinear", "Transpose", "MatMul", "MatMul"]
    assert ops(load(source)) == expected


def test_blow_ups_are_not_folded() -> None:
    source = parse(
        """<ir_version: 9, opset_import: ["" : 17]>
        net (float[1024, 1024] x) => (float[1024, 1024] y, float[1024, 1024] z) {
            big = Expand (one, shape)
            more = Add (big, one)
            small = Expand (one, few)
            y = Add (x, more)
            z = Add (x, small)
        }""",
        one=np.ones((1,), np.float32),
        shape=np.array([1024, 1024]),
        few=np.array([1, 1024]),
    )
    model = load(source)
    assert ops(model) == ["Expand", "Add", "Add", "Add"]
    assert constant(model, "small").shape == (1, 1024)


def test_large_external_weights_are_moved_when_they_are_read(tmp_path: Path) -> None:
    weight = np.random.default_rng(2).standard_normal((700, 600)).astype(np.float32)
    source = parse(
        """<ir_version: 9, opset_import: ["" : 17]>
        net (float[n, 600] x) => (float[n, 700] y) {
            wt = Transpose <perm = [1, 0]> (w)
            y = MatMul (x, wt)
        }""",
        w=weight,
    )
    onnx.save(source, tmp_path / "m.onnx", save_as_external_data=True, location="m.data")
    model = load(tmp_path / "m.onnx")
    assert ops(model) == ["MatMul"]
    tensor = model.ir.graph.initializers["wt"].const_value
    assert isinstance(tensor, ir.LazyTensor)
    np.testing.assert_array_equal(tensor.numpy(), weight.T, strict=True)
    model.save(tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx.data").exists(), "external data stay external"
    saved = onnx.load(tmp_path / "out.onnx")
    np.testing.assert_array_equal(numpy_helper.to_array(saved.graph.initializer[0]), weight.T)


def test_constant_graph_outputs_stay_outputs() -> None:
    source = parse(
        """<ir_version: 9, opset_import: ["" : 17]>
        net (float[n, 4] x) => (float[n, 4] y, float[4, 3] wt) {
            wt = Transpose <perm = [1, 0]> (w)
            y = Relu (x)
        }""",
        w=W,
    )
    check_same(source, x=X)


def test_overridable_initializers_are_inputs() -> None:
    text = """<ir_version: IR, opset_import: ["" : 9]>
        net (float[2, 4] x, float[3, 4] w) => (float[2, 3] y) {
            wt = Transpose <perm = [1, 0]> (w)
            y = MatMul (x, wt)
        }"""
    new = load(parse(text.replace("IR", "7"), w=W))
    assert ops(new) == ["Transpose", "MatMul"]
    assert [value.name for value in new.ir.graph.inputs] == ["x", "w"]
    # Before IR version 4 every initializer had to be declared, and none could be replaced.
    old = load(parse(text.replace("IR", "3"), w=W))
    assert ops(old) == ["MatMul"]
    assert [value.name for value in old.ir.graph.inputs] == ["x"]
    onnx.checker.check_model(old.to_proto(), full_check=True)


def test_functions_are_inlined() -> None:
    source = parse(
        """<ir_version: 9, opset_import: ["" : 17, "local" : 1]>
        net (float[n, 4] x) => (float[n, 4] y) {
            h = local.twice (x)
            y = local.twice (h)
        }
        <domain: "local", opset_import: ["" : 17]>
        twice (a) => (b) {
            two = Constant <value = float {2.0}> ()
            b = Mul (a, two)
        }"""
    )
    model = load(source)
    assert ops(model) == ["Mul", "Mul"]
    assert not model.ir.functions
    (result,) = run(model.to_proto(), {"x": X})
    np.testing.assert_array_equal(result, X * 4)


def test_nodes_are_sorted() -> None:
    source = parse(
        """<ir_version: 9, opset_import: ["" : 17]>
        net (float[n, 4] x) => (float[n, 4] y) {
            h = Relu (x)
            y = Neg (h)
        }"""
    )
    nodes = [source.graph.node[1], source.graph.node[0]]
    swapped = onnx.ModelProto()
    swapped.CopyFrom(source)
    del swapped.graph.node[:]
    swapped.graph.node.extend(nodes)
    model = load(swapped)
    assert ops(model) == ["Relu", "Neg"]
    onnx.checker.check_model(model.to_proto())


def test_cast_like_becomes_cast() -> None:
    source = parse(
        """<ir_version: 9, opset_import: ["" : 17]>
        net (float[n, 4] x) => (float[n, 4] y) {
            h = Relu (x)
            c = CastLike (two, h)
            y = Mul (h, c)
        }""",
        two=np.float64(2),
    )
    model = check_same(source, x=X)
    assert ops(model) == ["Relu", "Mul"]
    assert constant(model, "c").dtype == np.float32


def test_bodies_of_control_flow_keep_working() -> None:
    source = parse(
        """<ir_version: 9, opset_import: ["" : 17]>
        net (bool flag, float[n, 4] x) => (float[n, 3] y) {
            wt = Transpose <perm = [1, 0]> (w)
            y = If (flag) <
                then_branch = yes () => (float[n, 3] a) {
                    two = Constant <value = float {2.0}> ()
                    s = Mul (wt, two)
                    a = MatMul (x, s)
                },
                else_branch = no () => (float[n, 3] b) { b = MatMul (x, wt) }
            >
        }""",
        w=W,
    )
    model = check_same(source, flag=np.array(True), x=X)
    check_same(source, flag=np.array(False), x=X)
    assert ops(model) == ["If"]


def test_function_that_calls_itself_is_refused() -> None:
    source = parse(
        """<ir_version: 9, opset_import: ["" : 17, "local" : 1]>
        net (float[n, 4] x) => (float[n, 4] y) { y = local.loop (x) }
        <domain: "local", opset_import: ["" : 17, "local" : 1]>
        loop (a) => (b) { b = local.loop (a) }"""
    )
    with pytest.raises(ModelError, match="calls itself"):
        load(source)
