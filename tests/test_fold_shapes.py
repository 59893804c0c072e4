"""Partial evaluation of shape arithmetic: exact for every input size, and what is open stays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from graphprune.model import Model, load
from graphprune.shapes.fold_shapes import prepare


def parse(text: str, **initializers: np.ndarray) -> Model:
    model = onnx.parser.parse_model('<ir_version: 9, opset_import: ["" : 17]>' + text)
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in initializers.items())
    return load(model)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def ops(model: Model) -> list[str]:
    return [node.op_type for node in model.ir.graph]


def run(model: Model, x: np.ndarray) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return list(ort.InferenceSession(model.to_proto().SerializeToString(), options).run(None, {"x": x}))


def check_fold(model: Model, shapes: Sequence[tuple[int, ...]]) -> Model:
    """Fold, and compare bit for bit under sizes that were never traced."""
    before = model.to_proto().SerializeToString(deterministic=True)
    folded, found = prepare(model)
    assert model.to_proto().SerializeToString(deterministic=True) == before
    onnx.checker.check_model(folded.to_proto(), full_check=True)
    for shape in shapes:
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        for expected, result in zip(run(model, x), run(folded, x), strict=True):
            np.testing.assert_array_equal(expected, result, strict=True)
    for node in folded.ir.graph:
        for value in node.outputs:
            is_read = value.uses() or value.is_graph_output()
            assert value.name in found.shapes or not is_read, "the trace has to stay valid"
    return folded


def test_numbers_from_fixed_sizes_keep_their_value() -> None:
    model = parse(
        """net (float[batch, seq, 24] x) => (float[batch, seq, 4, d] y) {
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
            df = Cast <to = 1> (d)
            root = Sqrt (df)
            y = Div (h, root)
        }""",
        zero=np.int64(0),
        one=np.int64(1),
        two=np.int64(2),
        four=np.int64(4),
        axes=ints(0),
    )
    folded = check_fold(model, [(2, 9, 24), (1, 1, 24)])
    assert ops(folded) == [
        "Shape", "Gather", "Gather", "Unsqueeze", "Unsqueeze", "Concat", "Reshape", "Div",
    ]  # fmt: skip
    root = folded.ir.graph.initializers["root"].const_value
    du = folded.ir.graph.initializers["du"].const_value
    assert root is not None
    assert du is not None
    assert root.numpy() == np.sqrt(np.float32(6))
    assert du.numpy().tolist() == [6]


def test_what_depends_on_a_symbolic_dim_stays() -> None:
    model = parse(
        """net (float[batch, seq, 24] x) => (float[batch, seq, 24] y) {
            s = Shape (x)
            t = Gather <axis = 0> (s, one)
            f = Cast <to = 1> (t)
            y = Div (x, f)
        }""",
        one=np.int64(1),
    )
    assert ops(check_fold(model, [(2, 9, 24)])) == ["Shape", "Gather", "Cast", "Div"]


@pytest.mark.parametrize(
    ("steps", "is_folded"),
    [
        ("v = Slice (s, two, four, zero)", True),
        ("v = Slice (s, one, four, zero)", False),
        ("v = Slice (s, last, far, zero, back)", True),
        ("c, d = Split <axis = 0> (s, two_two); v = Identity (d)", True),
        ("c, d = Split <axis = 0> (s, two_two); v = Mul (c, d)", False),
        ("r = Reshape (s, square); v = Gather <axis = 0> (r, one)", True),
        ("r = Reshape (s, square); t = Transpose (r); v = Gather <axis = 0> (t, one)", False),
        ("e = Expand (s, two_four); t = Slice (e, two, four, one); v = Reshape (t, four)", True),
        ("f = Equal (s, minus); w = Where (f, s, s); v = Slice (w, two, four, zero)", True),
        ("v = Shape <start = 2> (x)", True),
        ("v = Shape <start = -3> (x)", False),
        ("n = Size (x); m = Unsqueeze (n, zero); v = Concat <axis = 0> (m, one)", False),
        ("k = Concat <axis = 0> (s, one); v = Gather <axis = 0> (k, three_four)", True),
        ("p = ReduceProd (s); v = Concat <axis = 0> (p, one)", False),
        ("q = Slice (s, two, four, zero); v = ReduceProd (q)", True),
        ("p = ReduceProd (s); k = Concat <axis = 0> (p, s); v = Gather <axis = 0> (k, four)", True),
    ],
)
def test_movement_of_known_elements(steps: str, is_folded: bool) -> None:
    steps = steps.replace(";", "\n")
    model = parse(
        f"""net (float[batch, seq, 6, 4] x) => (float y) {{
            s = Shape (x)
            {steps}
            f32 = Cast <to = 1> (v)
            peak = ReduceMax <keepdims = 0> (x)
            m32 = Mul (f32, peak)
            y = ReduceMax <keepdims = 0> (m32)
        }}""",
        zero=ints(0),
        one=ints(1),
        two=ints(2),
        four=ints(4),
        last=ints(-1),
        far=ints(-3),
        back=ints(-1),
        minus=ints(-1),
        two_two=ints(2, 2),
        two_four=ints(2, 4),
        three_four=ints(3, 4),
        square=ints(2, 2),
    )
    folded = check_fold(model, [(3, 5, 6, 4), (1, 2, 6, 4)])
    assert ("f32" in folded.ir.graph.initializers) == is_folded
    assert bool({"Shape", "Size"} & set(ops(folded))) != is_folded


def test_position_in_an_open_length_is_not_known() -> None:
    # Element 7 of [0 .. seq-1] + [64] is the 64 at one length only.
    model = parse(
        """net (float[batch, seq, 64] x) => (float[batch, seq, 64] y) {
            s = Shape (x)
            t = Gather <axis = 0> (s, one)
            r = Range (zero, t, one)
            c = Slice (s, two, three)
            k = Concat <axis = 0> (r, c)
            v = Gather <axis = 0> (k, seven)
            f = Cast <to = 1> (v)
            y = Mul (x, f)
        }""",
        zero=np.int64(0),
        one=np.int64(1),
        two=ints(2),
        three=ints(3),
        seven=np.int64(7),
    )
    assert "f" not in check_fold(model, [(1, 9, 64), (1, 12, 64)]).ir.graph.initializers


def test_values_that_are_graph_outputs_stay() -> None:
    model = parse(
        """net (float[batch, 24] x) => (int64[1] n, float[batch, 24] y) {
            n = Shape <start = 1> (x)
            f = Cast <to = 1> (n)
            y = Mul (x, f)
        }"""
    )
    folded = check_fold(model, [(2, 24)])
    assert [value.name for value in folded.ir.graph.outputs] == ["n", "y"]
    assert ops(folded) == ["Shape", "Mul"]
