"""Shapes from concrete sizes: right, telling, and found without running what needn't be run."""

from __future__ import annotations

import itertools
import time

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from graphprune.errors import UsageError
from graphprune.model import Model, load
from graphprune.shapes.sizes import Interface
from graphprune.shapes.trace import Trace, trace


def parse(text: str, **initializers: np.ndarray) -> Model:
    model = onnx.parser.parse_model('<ir_version: 9, opset_import: ["" : 17, "x" : 1]>' + text)
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in initializers.items())
    return load(model)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


CONV = """net (float[batch, 3, height, width] image) => (float[batch, 10] y) {
    h = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (image, w)
    p = GlobalAveragePool (h)
    f = Flatten (p)
    y = MatMul (f, fc)
}"""


def conv() -> Model:
    return parse(CONV, w=np.ones((8, 3, 3, 3), np.float32), fc=np.ones((8, 10), np.float32))


def test_sizes_are_telling() -> None:
    found = trace(conv())
    assert found.traced
    batch, height, width = (found.dims[name] for name in ("batch", "height", "width"))
    assert len({batch, height // 32, width // 32}) == 3
    for prime in (batch, height // 32, width // 32):
        assert all(prime % k for k in range(2, prime))
        assert all(size % prime for size in (3, 8, 10))
    assert found.shapes["h"] == (batch, 8, height // 2, width // 2)
    assert found.nominal_dims == {"batch": 1, "height": 224, "width": 224}
    assert found.nominal["h"] == (1, 8, 112, 112)
    assert found.shapes["w"] == found.nominal["w"] == (8, 3, 3, 3)
    assert found.shapes["y"] == (batch, 10)


def test_dynamic_axes() -> None:
    found = trace(conv())
    assert [found.is_dynamic("h", axis) for axis in range(4)] == [True, False, True, True]
    assert not found.is_dynamic("h", -3)
    assert [found.is_dynamic("y", axis) for axis in range(2)] == [True, False]
    assert found.is_dynamic("no such value", 0)


def test_overrides() -> None:
    found = trace(conv(), {"batch": 2, "height": 96})
    assert found.nominal["image"] == (2, 3, 96, 224)
    assert found.dims["batch"] % 2 == 0
    assert found.dims["height"] % 96 == 0
    assert found.dims["batch"] != 2
    assert found.is_dynamic("image", 0)
    assert found.is_dynamic("image", 2)
    with pytest.raises(UsageError, match=r"'hight' is not a symbolic dim(.|\n)*batch, height"):
        trace(conv(), {"hight": 96})
    with pytest.raises(UsageError, match="cannot be 0"):
        trace(conv(), {"batch": 0})


def test_unnamed_and_computed_dims() -> None:
    model = parse(
        """net (float[?, past, 4] old, float[?, new, 4] x, float[?, total, 4] mask)
            => (float[?, ?, 4] y) {
            all = Concat <axis = 1> (old, x)
            y = Mul (all, mask)
        }"""
    )
    model.ir.graph.inputs[2].shape = ir.Shape([None, "past + new", 4])
    found = trace(model)
    assert set(found.dims) == {"old:0", "x:0", "mask:0", "past", "new"}
    assert found.traced
    assert found.shapes["y"][1] == found.dims["past"] + found.dims["new"]
    assert found.dims["past"] != found.dims["new"]


def test_shape_arithmetic_is_followed() -> None:
    model = parse(
        """net (float[batch, seq, 24] x) => (float[batch, heads, seq, d] y) {
            s = Shape (x)
            b = Gather <axis = 0> (s, zero)
            t = Gather <axis = 0> (s, one)
            n = Gather <axis = 0> (s, two)
            d = Div (n, four)
            bu = Unsqueeze (b, axes)
            tu = Unsqueeze (t, axes)
            du = Unsqueeze (d, axes)
            fu = Unsqueeze (four, axes)
            target = Concat <axis = 0> (bu, tu, fu, du)
            h = Reshape (x, target)
            q = Transpose <perm = [0, 2, 1, 3]> (h)
            df = Cast <to = 1> (d)
            root = Sqrt (df)
            y = Div (q, root)
        }""",
        zero=np.int64(0),
        one=np.int64(1),
        two=np.int64(2),
        four=np.int64(4),
        axes=ints(0),
    )
    found = trace(model)
    batch, seq = found.dims["batch"], found.dims["seq"]
    assert found.shapes["y"] == (batch, 4, seq, 6)
    assert found.values["target"].tolist() == [batch, seq, 4, 6]
    assert found.values["root"] == np.sqrt(np.float32(6))
    assert found.values["axes"].tolist() == [0]
    assert [found.is_dynamic("y", axis) for axis in range(4)] == [True, False, True, False]


def test_sizes_that_depend_on_values_are_run() -> None:
    model = parse(
        """net (float[batch, 4] x, bool[batch] mask) => (float[n, 4] y) {
            i = NonZero (mask)
            t = Transpose <perm = [1, 0]> (i)
            r = Relu (x)
            y = GatherND (r, t)
        }"""
    )
    found = trace(model)
    assert found.shapes["i"] == (1, found.dims["batch"])
    assert found.shapes["y"] == (found.dims["batch"], 4)


def test_sizes_that_cannot_be_run_are_not_used() -> None:
    # Halved and doubled again: the sides have to be even, and the literal target fixes the batch.
    model = parse(
        """net (float[batch, 4, h, w] x) => (float[1, n] y) {
            p = MaxPool <kernel_shape = [3, 3], strides = [3, 3]> (x)
            u = ConvTranspose <strides = [3, 3], kernel_shape = [3, 3]> (p, k)
            s = Add (u, x)
            m = GlobalAveragePool (s)
            y = Reshape (m, target)
        }""",
        k=np.zeros((4, 4, 3, 3), np.float32),
        target=ints(1, 4),
    )
    found = trace(model)
    assert found.traced
    assert found.dims["batch"] == 1
    assert found.dims["h"] % 3 == 0
    assert found.shapes["s"] == (1, 4, found.dims["h"], found.dims["w"])
    assert found.is_dynamic("s", 2)


def test_what_could_not_be_varied_counts_as_dynamic() -> None:
    # The literal target fixes the batch, so both runs have the same; a range over it is no proof.
    model = parse(
        """net (float[batch, 6] x) => (float[1, 6] y, int64[n] r) {
            s = Shape <end = 1> (x)
            n = Squeeze (s)
            r = Range (zero, n, one)
            y = Reshape (x, target)
        }""",
        zero=np.int64(0),
        one=np.int64(1),
        target=ints(1, 6),
    )
    found = trace(model)
    assert found.traced
    assert found.dims == found.nominal_dims == {"batch": 1}
    assert found.is_dynamic("r", 0)
    assert not found.is_dynamic("y", 1)


def test_nothing_that_fits_falls_back_to_static_inference() -> None:
    model = parse(
        """net (float[batch, 5] x) => (float[batch, 3] y) {
            h = Reshape (x, target)
            y = MatMul (h, w)
        }""",
        target=ints(977, 5),
        w=np.ones((5, 3), np.float32),
    )
    found = trace(model)
    assert not found.traced
    assert found.nominal["x"] == (1, 5)


def test_unknown_ops_leave_gaps_only_behind_them() -> None:
    model = parse(
        """net (float[batch, 4] x) => (float[batch, 4] y, float[batch, 4] z) {
            h = x.Unknown (x)
            y = Relu (h)
            z = Relu (x)
        }"""
    )
    found = trace(model)
    assert found.traced
    assert "h" not in found.shapes
    assert "y" not in found.shapes
    assert found.shapes["z"] == (found.dims["batch"], 4)
    assert found.is_dynamic("y", 1)


def test_declared_shape_of_an_unknown_op_is_believed() -> None:
    source = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 17, "x" : 1]>
        net (float[batch, 4] x) => (float[batch, 6] y) <float[batch, 6] h> {
            h = x.Unknown (x)
            y = Relu (h)
        }"""
    )
    found = trace(load(source))
    assert found.shapes["y"] == (found.dims["batch"], 6)


def test_contrib_ops_are_inferred() -> None:
    text = """<ir_version: 9, opset_import: ["" : 17, "com.microsoft" : 1]>
        net (float[n, 512, height, width] x) => (float[n, 512, a, b] y) {
"""
    names = ["x", *(f"h{i}" for i in range(1, 10)), "y"]
    for before, after in itertools.pairwise(names):
        text += f'{after} = com.microsoft.FusedConv <activation = "Relu"> ({before}, w)\n'
    source = onnx.parser.parse_model(text + "}")
    weight = np.zeros((512, 512, 3, 3), np.float32)
    source.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    start = time.perf_counter()
    found = trace(load(source))
    assert time.perf_counter() - start < 5
    assert found.shapes["y"] == (*found.shapes["x"][:2], *(n - 20 for n in found.shapes["x"][2:]))


def test_ops_whose_shape_onnxruntime_does_not_infer_either() -> None:
    """No shape is not the shape of a scalar."""
    scaler = onnx.helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[0.0], scale=[2.0])
    values = [onnx.helper.make_tensor_value_info(name, 1, ["N", 6]) for name in ("x", "y")]
    values.append(onnx.helper.make_tensor_value_info("z", 1, None))
    nodes = [scaler, onnx.helper.make_node("Abs", ["y"], ["z"])]
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("ai.onnx.ml", 1)]
    graph = onnx.helper.make_graph(nodes, "scaled", values[:1], values[2:])
    found = trace(load(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)))
    assert found.shapes["y"] == found.shapes["z"] == found.shapes["x"]


def test_texts_that_an_op_looks_up() -> None:
    """Class names of a classifier are a constant of numpy's type for texts."""
    pick = onnx.helper.make_node("ArrayFeatureExtractor", ["names", "i"], ["y"], domain="ai.onnx.ml")
    names = onnx.helper.make_tensor("names", onnx.TensorProto.STRING, [2], [b"yes", b"no"])
    index = onnx.helper.make_tensor_value_info("i", onnx.TensorProto.INT64, ["N"])
    label = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.STRING, None)
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("ai.onnx.ml", 1)]
    graph = onnx.helper.make_graph([pick], "named", [index], [label], [names])
    found = trace(load(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)))
    assert found.shapes["i"] == (found.dims["N"],)


def test_contrib_op_with_a_large_weight() -> None:
    source = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 17, "com.microsoft" : 1]>
        net (float[batch, 300] x) => (float[batch, 7] y) {
            y = com.microsoft.FusedMatMul (x, w)
        }"""
    )
    weight = np.ones((300, 7), np.float32)
    source.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    found = trace(load(source))
    assert found.shapes["y"] == (found.dims["batch"], 7)


def test_control_flow_is_run() -> None:
    model = parse(
        """net (bool flag, float[n, 4] x) => (float[n, k] y, float[n, k] r) {
            y = If (flag) <
                then_branch = yes () => (float[n, 3] a) { a = MatMul (x, w) },
                else_branch = no () => (float[n, 3] b) { b = MatMul (x, w) }
            >
            r = Relu (y)
        }""",
        w=np.ones((4, 3), np.float32),
    )
    found = trace(model)
    assert found.shapes["r"] == (found.dims["n"], 3)


def test_sequences_are_left_out() -> None:
    model = parse(
        """net (float[n, 4] x) => (float[n, 4] y) {
            s = SequenceConstruct (x, x)
            y = ConcatFromSequence <axis = 1> (s)
        }"""
    )
    found = trace(model)
    assert "s" not in found.shapes
    assert found.shapes["y"] == (found.dims["n"], 8)


def test_values_are_exact_even_behind_large_constants() -> None:
    # The target is read from a weight that is too large to be propagated and must not be zeroed.
    table = np.full((40, 40), 2, np.float32)
    model = parse(
        """net (float[n, 4] x) => (float[n, a, b] y) {
            s = Shape (x)
            sf = Cast <to = 1> (s)
            one = Gather <axis = 0> (sf, zero)
            grid = Mul (table, one)
            twos = Div (grid, one)
            row = ReduceMax <axes = [0, 1], keepdims = 0> (twos)
            two = Cast <to = 7> (row)
            tu = Unsqueeze (two, axes)
            target = Concat <axis = 0> (minus, tu, tu)
            y = Reshape (x, target)
        }""",
        table=table,
        zero=np.int64(0),
        axes=ints(0),
        minus=ints(-1),
    )
    found = trace(model)
    assert found.values["target"].tolist() == [-1, 2, 2]
    assert found.shapes["y"] == (found.dims["n"], 2, 2)


def test_a_fixed_model_needs_one_run() -> None:
    found = trace(parse("net (float[2, 3] x) => (float[2, 3] y) { y = Relu (x) }"))
    assert found.dims == found.nominal_dims == {}
    assert not found.is_dynamic("y", 0)


def test_symbolic_axis_is_dynamic_even_if_the_sizes_agree() -> None:
    # One size is forced on both runs, but the caller may still choose another.
    model = parse("net (float[k, 3] x) => (float[k, 3] y) { y = Relu (x) }")
    found = trace(model)
    same = Trace(
        shapes=found.nominal,
        nominal=found.nominal,
        values={},
        dims={},
        nominal_dims={},
        traced=True,
        symbolic=found.symbolic,
    )
    assert same.is_dynamic("y", 0)
    assert not same.is_dynamic("y", 1)


@pytest.mark.parametrize(
    ("declaration", "expected"),
    [
        ("float[N, 3, H, W] x", {"N": 1, "H": 224, "W": 224}),
        ("float[?, 3, ?, ?] x", {"x:0": 1, "x:2": 224, "x:3": 224}),
        ("int64[b, sequence_length] ids", {"b": 1, "sequence_length": 128}),
        ("float[a, frames, 80] x", {"a": 1, "frames": 128}),
        ("float[seq, batch_size, 16] x", {"seq": 128, "batch_size": 1}),
    ],
)
def test_roles(declaration: str, expected: dict[str, int]) -> None:
    name = declaration.split()[-1]
    model = parse(f"net ({declaration}) => (float[q] y) {{ y = Identity ({name}) }}")
    assert next(Interface(model.ir).nominal({})) == expected


def test_weights_are_not_touched_and_nothing_heavy_runs() -> None:
    # Some 10^13 multiply-adds with these sizes: a run would take minutes.
    text = "net (float[n, 512, height, width] x) => (float[n, 512, a, b] y) {\n"
    names = ["x", *(f"h{i}" for i in range(1, 30)), "y"]
    for before, after in itertools.pairwise(names):
        text += f"{after} = Conv <pads = [1, 1, 1, 1]> ({before}, w)\n"
    model = parse(text + "}", w=np.zeros((512, 512, 3, 3), np.float32))
    start = time.perf_counter()
    found = trace(model)
    assert time.perf_counter() - start < 5
    assert found.shapes["y"] == found.shapes["x"]
