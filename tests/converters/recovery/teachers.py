"""Pairs of a reference and a student: the same little network with other numbers in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from networks import build, weight
from onnx import helper, numpy_helper

Array = npt.NDArray[Any]


def mlp(salt: str = "", *, classes: int = 3, sharp: float = 4.0, width: int = 8) -> onnx.ModelProto:
    """``x [batch, 6] -> h [batch, width] -> y [batch, classes]``; ``salt`` changes the numbers alone."""
    return build(
        f"(float[batch, 6] x) => (float[batch, {classes}] y)",
        "h = Gemm (x, a.w, a.b) r = Relu (h) y = Gemm (r, c.w, c.b)",
        {
            "a.w": weight(f"a{salt}", (6, width)) * np.float32(1.5),
            "a.b": weight(f"ab{salt}", (width,)),
            "c.w": weight(f"c{salt}", (width, classes)) * np.float32(sharp),
            "c.b": weight(f"cb{salt}", (classes,)),
        },
    )


def nudged(model: onnx.ModelProto, by: float = 0.3) -> onnx.ModelProto:
    """The network with noise on all floating-point numbers: what a cut leaves, roughly."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype.kind == "f" and array.size > 1 and not tensor.name.endswith(("mean", "var")):
            noise = weight(f"noise{tensor.name}", (1, array.size)).reshape(array.shape)
            noisy = array + by * array.std() * np.sqrt(array.size) * noise
            tensor.CopyFrom(numpy_helper.from_array(noisy.astype(array.dtype), tensor.name))
    return copy


def images() -> onnx.ModelProto:
    """A convolution with BatchNormalization before a head: ``x [batch, 3, 8, 8] -> y [batch, 5]``."""
    return build(
        "(float[batch, 3, 8, 8] x) => (float[batch, 5] y)",
        """
        p = Conv <pads = [1, 1, 1, 1]> (x, conv.w)
        n = BatchNormalization (p, bn.scale, bn.bias, bn.mean, bn.var)
        r = Relu (n) g = GlobalAveragePool (r) f = Flatten (g) y = Gemm <transB = 1> (f, fc.w, fc.b)
        """,
        {
            "conv.w": (6, 3, 3, 3), "bn.scale": (6,), "bn.bias": (6,), "bn.mean": (6,), "bn.var": (6,),
            "fc.w": weight("head", (5, 6)) * np.float32(20), "fc.b": (5,),
        },
    )  # fmt: skip


def tokens() -> onnx.ModelProto:
    """Logits for every position: ``ids, mask [batch, time] -> y [batch, time, 7]``."""
    return build(
        "(int64[batch, time] ids, int64[batch, time] mask) => (float[batch, time, 7] y)",
        """
        e = Gather (table, ids) m = Cast <to = 1> (mask) u = Unsqueeze (m, last) v = Mul (e, u)
        w = MatMul (v, head.w) y = Add (w, head.b)
        """,
        {
            "table": weight("table", (7, 5)) * np.float32(3), "last": [-1],
            "head.w": weight("token head", (5, 7)) * np.float32(3), "head.b": (7,),
        },
    )  # fmt: skip


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network in float16."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), tensor.name))
    for value in (*copy.graph.input, *copy.graph.output):
        value.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(np.float16))
    return copy


def rows(count: int = 192, features: int = 6, seed: int = 3) -> dict[str, Array]:
    """Samples for :func:`mlp`."""
    return {"x": np.random.default_rng(seed).standard_normal((count, features)).astype(np.float32)}


def pictures(count: int = 96) -> dict[str, Array]:
    """Samples for :func:`images`."""
    return {"x": np.random.default_rng(4).standard_normal((count, 3, 8, 8)).astype(np.float32)}
