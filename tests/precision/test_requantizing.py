"""New numbers in the types of quantized constants."""

from __future__ import annotations

import few_digits
import ml_dtypes
import networks
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

import graphprune as gp
from graphprune.compare import run, session
from graphprune.model import Model
from graphprune.quantization import real_weights
from graphprune.realnumbers.nbits import Packed
from graphprune.realnumbers.requantizing import requantize
from graphprune.realnumbers.scales import best_factors

CONVOLUTIONS = """
    a = Conv <pads = [1, 1, 1, 1]> (x, a.w, a.b) r = Relu (a)
    y = Conv (r, b.w, b.b)
"""


class _Batch(CalibrationDataReader):
    def __init__(self, model: onnx.ModelProto) -> None:
        self._left = [networks.feeds(model)]

    def get_next(self) -> dict[str, networks.Array] | None:
        return self._left.pop() if self._left else None


@pytest.fixture(params=[QuantFormat.QDQ, QuantFormat.QOperator], ids=["QDQ", "QOperator"])
def quantized(request: pytest.FixtureRequest, tmp_path: object) -> Model:
    """Two convolutions, a scale for each channel."""
    shapes = {"a.w": (6, 3, 3, 3), "a.b": (6,), "b.w": (4, 6, 1, 1), "b.b": (4,)}
    plain = networks.build(
        "(float[batch, 3, 8, 8] x) => (float[batch, 4, 8, 8] y)", CONVOLUTIONS, shapes, opset=21
    )
    path = f"{tmp_path}/quantized.onnx"
    quantize_static(plain, path, _Batch(plain), per_channel=True, quant_format=request.param)
    return gp.load(onnx.load(path))


def weight_of(model: Model) -> tuple[object, int]:
    """Where the second convolution's weight stands."""
    for node in model.ir.graph:
        for i, value in enumerate(node.inputs):
            if value is not None and value.name == "b.w_quantized":
                return node, i
    raise AssertionError


def test_a_scale_follows_its_channel_and_the_bias_follows_the_scale(quantized: Model) -> None:
    model = quantized.clone()
    node, i = weight_of(model)
    old = real_weights(node, i, node.inputs[i].const_value.numpy())  # type: ignore[attr-defined]
    new = old * np.array([1, 4, 1, 0.2]).reshape(-1, 1, 1, 1)
    requantize(model.ir.graph, {(node, i): np.asarray(new, np.float64)})  # type: ignore[dict-item]
    found = real_weights(node, i, node.inputs[i].const_value.numpy())  # type: ignore[attr-defined]
    assert np.abs(found - new).max(axis=(1, 2, 3)) == pytest.approx(0, abs=0.006 * np.abs(new).max())
    feeds = {"x": networks.feeds(model.to_proto())["x"]}
    before, after = (run(session(m), feeds)["y"] for m in (quantized, model))
    fused = run(session(model, optimize=True), feeds)["y"]
    # The first channel is as before: its scale and its bias are the old ones.
    assert np.array_equal(before[:, 0], after[:, 0])
    steps = np.unique(np.abs(np.diff(np.unique(after))))[0]
    assert np.abs(fused - after).max() <= 1.01 * steps  # kernels take the bias' scale for the product
    bias = {t.name: numpy_helper.to_array(t) for t in model.to_proto().graph.initializer}
    own = {t.name: numpy_helper.to_array(t) for t in quantized.to_proto().graph.initializer}
    name = next(n for n in bias if n.startswith("b.b_quantized") and n in own and bias[n].dtype == np.int32)
    assert bias[name][0] == own[name][0]
    assert bias[name][1] == pytest.approx(own[name][1] / 4, abs=1)


def test_what_has_not_changed_is_written_as_it_was(quantized: Model) -> None:
    model = quantized.clone()
    node, i = weight_of(model)
    old = real_weights(node, i, node.inputs[i].const_value.numpy())  # type: ignore[attr-defined]
    requantize(model.ir.graph, {(node, i): np.asarray(old, np.float64)})  # type: ignore[dict-item]
    assert model.to_proto() == quantized.to_proto()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("points", [False, True])
def test_packed_numbers_come_back_as_they_were(bits: int, points: bool) -> None:
    model = gp.load(few_digits.packed(few_digits.mlp(), 16, bits=bits, points=points))
    for node in model.ir.graph:
        if node.op_type != "MatMulNBits":
            continue
        packed = Packed.of(node)
        assert packed is not None
        codes = node.inputs[1].const_value.numpy()  # type: ignore[union-attr]
        rescaled = packed.rescaled(packed.numbers, lambda scales: scales)
        assert np.array_equal(packed.coded(packed.numbers), codes)
        assert np.array_equal(rescaled.scales, packed.scales)


@pytest.mark.parametrize("dtype", [np.int8, ml_dtypes.int4])
def test_layers_that_read_what_they_read_before_stay_as_they_are(dtype: type) -> None:
    model = few_digits.dequantized(few_digits.mlp(), dtype)
    result = gp.prune(
        model, target={"macs": 0.85}, recipe="obspa", calibration=few_digits.samples(), exclude=["b.*"]
    )
    before, after = (dict(few_digits.arrays_of(m)) for m in (model, result.model.to_proto()))
    for name in ("b.up.w/steps", "b.up.w/scale", "b.down.w/steps", "head.w/steps", "a.up.b"):
        kept = before[name] if before[name].shape == after[name].shape else None
        assert name == "a.up.b" or np.array_equal(kept, after[name])
    assert after["a.down.w/steps"].shape[0] < before["a.down.w/steps"].shape[0]
    kept_rows = [row.tolist() in before["a.down.w/steps"].tolist() for row in after["a.down.w/steps"]]
    assert not all(kept_rows)  # and that one was re-solved


def test_scales_grow_where_numbers_do_and_stay_where_they_fit() -> None:
    rng = np.random.default_rng(0)
    scales = np.array([0.01, 0.02, 0.03])
    steps = rng.integers(-127, 128, (3, 50))
    steps[:, 0] = 127
    numbers = steps * scales[:, None]
    numbers[1] *= 3.0
    which = np.repeat(np.arange(3), 50).reshape(3, 50)
    found = best_factors(numbers, scales, np.zeros((3, 50)), which, (-128, 127), lambda s: s)
    assert found[0] == found[2] == 1.0
    assert found[1] == pytest.approx(3.0, rel=0.01)


def test_with_few_steps_the_largest_numbers_are_cut_off() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal((1, 4000))
    which, points = np.zeros((1, 4000), np.int64), np.zeros((1, 4000))
    whole = np.abs(numbers).max() / 7
    found = best_factors(numbers, np.array([whole]), points, which, (-8, 7), lambda s: s)
    assert found[0] < 0.85
