"""The copy in real numbers: as near to the model as rounding, or none."""

from __future__ import annotations

import few_digits
import networks
import numpy as np
import onnx
import pytest
from cases_quantized import CASES
from onnx import TensorProto
from rule_law import Case, build

from graphprune.compare import run
from graphprune.model import load
from graphprune.realnumbers.copying import has_few_digits, real_copy
from graphprune.shapes.fold_shapes import prepare

ROUNDED = {case.name: case for case in CASES}
#: Integers that are read under another zero point than they were written with, or under an unknown one.
REFUSED = ("DequantizeLinear zero point at run time", "QuantizeLinear and back by another zero point")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_computes_the_same_but_for_rounding(case: Case) -> None:
    proto, feeds = build(case)
    model, _ = prepare(load(proto))
    found = real_copy(model) if has_few_digits(model) else None
    if found is None:
        return
    expected, actual = run(model, feeds), run(found[0], feeds)
    for name, array in expected.items():
        error = np.abs(array.astype(np.float64) - actual[name]).max(initial=0.0)
        assert error < 0.2 * np.abs(array).max(initial=0.0)


@pytest.mark.parametrize("name", REFUSED)
def test_there_is_none_where_the_numbers_are_not_known(name: str) -> None:
    model, _ = prepare(load(build(ROUNDED[name])[0]))
    assert has_few_digits(model)
    assert real_copy(model) is None


@pytest.mark.parametrize("way", few_digits.WAYS)
def test_nothing_of_few_digits_is_left(way: str) -> None:
    model, _ = prepare(load(few_digits.WAYS[way](few_digits.mlp())))
    found = real_copy(model)
    assert found is not None
    copy, places = found
    proto = copy.to_proto()
    assert set(few_digits.types_of(proto)) == {TensorProto.FLOAT}
    assert not {n.op_type for n in proto.graph.node} & {"Cast", "DequantizeLinear", "MatMulNBits"}
    assert places.is_quantized == ("int" in way or "Bits" in way or "float8" in way)
    onnx.checker.check_model(proto, full_check=True)
    feeds = few_digits.samples(2)
    expected, actual = (run(m, feeds)["y"].astype(np.float64) for m in (copy, load(proto)))
    assert np.array_equal(expected, actual)


def test_a_relu_that_a_quantization_holds_stays() -> None:
    zero = {"s": np.array(0.01, np.float32), "low": np.array(-128, np.int8), "mid": np.array(3, np.int8)}
    for point, is_cut in (("low", True), ("mid", False)):
        body = f"q = QuantizeLinear (x, s, {point}) d = DequantizeLinear (q, s, {point}) y = MatMul (d, w)"
        model = networks.build("(float[n, 4] x) => (float[n, 4] y)", body, {**zero, "w": (4, 4)}, opset=21)
        found = real_copy(prepare(load(model))[0])
        assert found is not None
        assert [n.op_type for n in found[0].ir.graph] == (["Clip", "MatMul"] if is_cut else ["MatMul"])


def test_a_model_in_float32_has_none() -> None:
    assert not has_few_digits(load(few_digits.mlp()))
