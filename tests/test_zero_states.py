"""An initial state of zeros is left out; any other stays."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from graphprune.model import Model, load


def lstm(state: str, **constants: object) -> onnx.ModelProto:
    """A layer whose two states come from ``state``, nodes that make ``h`` and ``c``."""
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> n (float[3, b, 5] x) => (float[3, 1, b, 4] y) {'
        + state.replace(";", "\n")
        + "y = LSTM <hidden_size = 4> (x, w, r, , , h, c) }"
    )
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((1, 16, 5)), "r": rng.standard_normal((1, 16, 4))}
    arrays = {name: np.asarray(array, np.float32) for name, array in weights.items()}
    arrays |= {name: np.asarray(value) for name, value in constants.items()}
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in arrays.items())
    return model


_SHAPE = "s = Shape <start = 1, end = 2> (x); t = Concat <axis = 0> (one, s, four);"
_SIZES = {"one": np.array([1]), "two": np.array([2]), "four": np.array([4]), "end": np.array([9])}
_ZERO, _HALF = np.zeros((1, 1, 1), np.float32), np.full((1, 1, 1), 0.5, np.float32)


def layer(model: Model) -> list[str | None]:
    node = next(n for n in model.ir.graph if n.op_type == "LSTM")
    return [None if v is None else v.name for v in node.inputs]


@pytest.mark.parametrize(
    ("state", "constants"),
    [
        (f"{_SHAPE} h = ConstantOfShape(t); c = Expand(z, t);", {"z": _ZERO}),
        (
            "s = Shape <start = 1, end = 2> (x); u = Concat <axis = 0> (two, s, four);"
            "a = ConstantOfShape(u); h = Slice(a, zero, one, zero); c = Slice(a, one, two, zero);",
            {"zero": np.array([0])},
        ),
        (
            f"{_SHAPE} a = ConstantOfShape(t); h = Concat <axis = 0> (a);d = Transpose(b); c = Expand(d, t);",
            {"b": _ZERO},
        ),
        ("", {"h": np.zeros((1, 2, 4), np.float32), "c": np.zeros((1, 2, 4), np.float32)}),
    ],
)
def test_zeros_are_left_out(state: str, constants: dict[str, np.ndarray]) -> None:
    proto = lstm(state, **_SIZES, **constants)
    model = load(proto)
    assert layer(model)[5:] == [None, None]
    assert [n.op_type for n in model.ir.graph] == ["LSTM"]
    feeds = {"x": np.random.default_rng(1).standard_normal((3, 2, 5)).astype(np.float32)}
    before, after = (
        ort.InferenceSession(m.SerializeToString()).run(None, feeds)[0] for m in (proto, model.to_proto())
    )
    assert np.array_equal(before, after)
    assert before.any()


@pytest.mark.parametrize(
    ("state", "constants"),
    [
        (f"{_SHAPE} h = Expand(z, t); c = Expand(z, t);", {"z": _HALF}),
        (
            f"{_SHAPE} a = ConstantOfShape(t); k = Exp(a); h = Expand(k, t); c = Expand(k, t);",
            {},
        ),
        ("h = Slice(x, zero, one, zero); c = Slice(x, zero, one, zero);", {"zero": np.array([0])}),
    ],
)
def test_other_states_stay(state: str, constants: dict[str, np.ndarray]) -> None:
    assert layer(load(lstm(state, **_SIZES, **constants)))[5:] == ["h", "c"]


def test_zeros_that_are_read_elsewhere_stay() -> None:
    proto = lstm(f"{_SHAPE} h = ConstantOfShape(t); c = ConstantOfShape(t);", **_SIZES)
    proto.graph.output.append(onnx.ValueInfoProto(name="h"))
    model = load(proto)
    assert layer(model)[5:] == [None, None]
    assert [n.op_type for n in model.ir.graph] == ["Shape", "Concat", "ConstantOfShape", "LSTM"]
