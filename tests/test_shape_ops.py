"""Every op of `graphprune.shapes.shape_ops` against onnxruntime, bit for bit."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from graphprune.runtime import Fragment, evaluate
from graphprune.shapes.shape_ops import _OPS, compute

I = np.array([7, 3, -5, 64], np.int64)  # noqa: E741
J = np.array([2, 3, 4, -7], np.int64)
F = np.array([0.5, 6.0, 49.0, 2.0], np.float32)
G = np.array([3.0, -0.7, 1.0, 0.1], np.float32)
M = np.arange(24, dtype=np.int64).reshape(2, 3, 4)
B = np.array([True, False, True, True])
C = np.array([True, True, False, True])


def vec(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


CASES: list[tuple[str, list[np.ndarray | None]]] = [
    *((op, [a, b]) for op in ("Add", "Sub", "Mul", "Div", "Max", "Min")
      for a, b in ((I, J), (F, G))),
    *((op, [a, b]) for op in ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual")
      for a, b in ((I, J), (F, G))),
    *((op, [a]) for op in ("Abs", "Neg") for a in (I, G)),
    *((op, [a]) for op in ("Sqrt", "Floor", "Ceil") for a in (F, np.float32(24))),
    ("Max", [I, J, vec(1)]),
    ("Mod", [I, J]),
    ("And", [B, C]), ("Or", [B, C]), ("Not", [B]), ("Identity", [I]),
    ("Where", [B, I, J]), ("Where", [B, F, np.float32(0)]),
    *((f"Cast <to = {to}>", [a]) for to in (1, 6, 7, 9) for a in (I, G, B)),
    ("Concat <axis = 0>", [I, J]), ("Concat <axis = -1>", [M, M]),
    ("ConstantOfShape", [vec(2, 3)]), ("ConstantOfShape <value = int64[1] {5}>", [vec(3)]),
    ("ConstantOfShape", [np.zeros(0, np.int64)]),
    ("Expand", [I, vec(3, 1)]), ("Expand", [np.int64(4), vec(2)]),
    ("Gather <axis = 0>", [I, np.int64(-1)]), ("Gather <axis = 1>", [M, vec(2, 0)]),
    ("Gather", [M, np.array([[1], [0]], np.int32)]),
    ("Range", [np.int64(1), np.int64(10), np.int64(3)]),
    ("Range", [np.int64(5), np.int64(-2), np.int64(-2)]),
    ("Range", [np.int64(5), np.int64(5), np.int64(1)]),
    ("ReduceProd", [M]), ("ReduceProd <keepdims = 0>", [I]),
    ("ReduceProd <keepdims = 0>", [M, vec(0, -1)]),
    ("ReduceProd <noop_with_empty_axes = 1>", [M]),
    ("Reshape", [M, vec(0, -1)]), ("Reshape", [M, vec(4, 6)]),
    ("Reshape <allowzero = 1>", [np.zeros((0, 3), np.int64), vec(3, 0)]),
    ("Slice", [I, vec(1), vec(3)]), ("Slice", [I, vec(-1), vec(-(2**63)), vec(0), vec(-1)]),
    ("Slice", [I, vec(3), vec(-5), vec(0), vec(-2)]), ("Slice", [I, vec(2), vec(2**63 - 1)]),
    ("Slice", [I, vec(2), vec(-3), vec(0), vec(-1)]),
    ("Slice", [M, vec(0, 1), vec(9, -1), vec(-1, 1), vec(3, 1)]),
    ("Slice", [M, vec(1), vec(2), None, vec(1)]),
    ("Split <axis = 0>", [I, vec(1, 3)]), ("Split <axis = 1, num_outputs = 2>", [M]),
    ("Squeeze", [M[:1, :, :1]]), ("Squeeze", [M[:1, :, :1], vec(-1)]),
    ("Transpose", [M]), ("Transpose <perm = [1, 0, 2]>", [M]),
    ("Unsqueeze", [I, vec(0)]), ("Unsqueeze", [M, vec(-1, 0)]),
]  # fmt: skip


def node_of(text: str, inputs: list[np.ndarray | None]) -> tuple[ir.Node, Fragment]:
    op, _, attributes = text.partition(" ")
    outputs = "a, b" if op == "Split" else "a"
    names = [f"i{k}" if array is not None else "" for k, array in enumerate(inputs)]
    given = ", ".join(name or '""' for name in names)
    call = f"{outputs} = {op} {attributes} ({given})"
    model = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["" : 18]> g () => (float[n] a) {{ {call} }}'
    )
    tensors = {name: ir.tensor(array) for name, array in zip(names, inputs, strict=True) if array is not None}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(array), name)
        for name, array in zip(names, inputs, strict=True)
        if array is not None
    )
    node = ir.serde.deserialize_model(model).graph[0]
    return node, Fragment([node], tensors, {"": 18}, 9)


@pytest.mark.parametrize(("text", "inputs"), CASES, ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)])
def test_same_as_onnxruntime(text: str, inputs: list[np.ndarray | None]) -> None:
    node, fragment = node_of(text, inputs)
    names = [value.name or "" for value in node.outputs]
    expected = evaluate(fragment, names, refuse=True)
    results = compute(node, [None if array is None else np.asarray(array) for array in inputs])
    assert results is not None
    for name, result in zip(names, results, strict=True):
        np.testing.assert_array_equal(result, expected[name], strict=True)


def test_every_op_has_a_case() -> None:
    assert {text.partition(" ")[0] for text, _ in CASES} == set(_OPS)


@pytest.mark.parametrize(
    ("text", "inputs"),
    [
        ("Div", [I, vec(0, 1, 1, 1)]),
        ("Mod", [I, vec(0, 1, 1, 1)]),
        ("Reshape", [M, vec(5, 5)]),
        ("Add", [I, vec(1, 2, 3)]),
        ("Gather", [I, vec(9)]),
        ("Expand", [np.int64(1), vec(10**6)]),
        ("ConstantOfShape", [vec(10**6)]),
        ("Range", [np.int64(0), np.int64(10**9), np.int64(1)]),
        ("Cast <to = 7>", [np.array([np.nan], np.float32)]),
        ("Cast <to = 16>", [F]),
        ("Erf", [F]),
    ],
)
def test_what_it_cannot_do_is_left_to_the_runtime(text: str, inputs: list[np.ndarray | None]) -> None:
    node, _ = node_of(text, inputs)
    assert compute(node, [None if array is None else np.asarray(array) for array in inputs]) is None
