"""Quantized operators of onnxruntime's own domain, which its quantizer and its optimizer write.

https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from graphprune.algebra import Axis, concat
from graphprune.rules.context import Blocked, Context
from graphprune.rules.contraction import product
from graphprune.rules.elementwise import broadcast_axes
from graphprune.rules.quantized import along, quantized, real, scalar_only, vector, zero_point
from graphprune.rules.registry import rule

DOMAIN = "com.microsoft"


def _written(ctx: Context, axes: list[Axis], point: int) -> list[list[Axis]]:
    """Axes of a result that is quantized with one scale and the zero point at input ``point``."""
    scalar_only(ctx, point - 1)
    scalar_only(ctx, point)
    found = zero_point(ctx, point)
    return [[quantized(axis, found) for axis in axes]]


def _read(ctx: Context, i: int) -> list[Axis]:
    """Axes of an input with one scale and one zero point, which follow it."""
    scalar_only(ctx, i + 1)
    scalar_only(ctx, i + 2)
    return real(ctx, i, i + 2)


@rule("QLinearAdd", "QLinearMul", domain=DOMAIN)
def binary(ctx: Context) -> list[list[Axis]]:
    """Add and Mul of quantized tensors, with broadcasting."""
    zero = "all" if ctx.node.op_type == "QLinearAdd" else "any"
    return _written(ctx, broadcast_axes(ctx, [_read(ctx, 0), _read(ctx, 3)], zero=zero), 7)


@rule("QLinearLeakyRelu", domain=DOMAIN)
def leaky_relu(ctx: Context) -> list[list[Axis]]:
    """Zero stays zero."""
    return _written(ctx, _read(ctx, 0), 4)


@rule("QLinearSigmoid", domain=DOMAIN)
def sigmoid(ctx: Context) -> list[list[Axis]]:
    """Zero becomes one half."""
    return _written(ctx, [axis.nonzero() for axis in _read(ctx, 0)], 4)


@rule("QLinearSoftmax", domain=DOMAIN)
def softmax(ctx: Context) -> list[list[Axis]]:
    """Softmax as the default domain defined it at the version that the attribute ``opset`` names."""
    x = _read(ctx, 0)
    at = ctx.attr_int("axis", -1) % len(x)
    for axis in x[at : at + 1] if ctx.attr_int("opset", 13) >= 13 else x[at:]:
        ctx.statistic(axis, "a softmax runs over this axis")
    return _written(ctx, [axis.nonzero() for axis in x], 4)


@rule("QLinearGlobalAveragePool", "QLinearAveragePool", domain=DOMAIN)
def pool(ctx: Context) -> list[list[Axis]]:
    """Means over windows, or over all positions."""
    x = _read(ctx, 0)
    if ctx.attr_int("channels_last", 0):
        message = "its channels are the last axis"
        raise Blocked(message)
    spatial = []
    for axis, n in zip(x[2:], ctx.out_shape()[2:], strict=True):
        if ctx.node.op_type == "QLinearGlobalAveragePool":
            ctx.statistic(axis, "a global pool runs over this axis")
            spatial.append(ctx.plain(1))
        else:
            ctx.freeze(axis, "a window runs over this axis")
            spatial.append(ctx.frozen(n, "a window runs over this axis"))
    return _written(ctx, [*x[:2], *spatial], 4)


@rule("QLinearConcat", domain=DOMAIN)
def concatenate(ctx: Context) -> list[list[Axis]]:
    """Scale and zero point of the result come first, then each operand with its own."""
    inputs = [_read(ctx, i) for i in range(2, ctx.n_inputs, 3)]
    at = ctx.attr_int("axis", 0) % len(inputs[0])
    rest = [axes[:at] + axes[at + 1 :] for axes in inputs]
    out = broadcast_axes(ctx, rest, zero="all") if rest[0] else []
    out.insert(at, concat([axes[at] for axes in inputs]))
    return _written(ctx, out, 1)


def _bias(ctx: Context, i: int, out: list[Axis]) -> list[Axis]:
    """Adds the vector at input ``i`` to the columns."""
    if not ctx.has(i):
        return out
    vector(ctx, i, out[-1])
    bias = ctx.axes(i)
    covers = len(bias) == 1 and bias[0].size == out[-1].size and bias[0].zero
    return [*(axis.nonzero() for axis in out[:-1]), out[-1] if covers else out[-1].nonzero()]


@rule("QGemm", domain=DOMAIN)
def gemm(ctx: Context) -> list[list[Axis]]:
    """``alpha * A' @ B' + C``; without a scale for it, the result is not quantized."""
    a, b = _read(ctx, 0), real(ctx, 3, 5)
    if ctx.attr_int("transA", 0):
        a.reverse()
    if ctx.attr_int("transB", 0):
        b.reverse()
    for i in (4, 5):
        along(ctx, i, b, -1)
    out = _bias(ctx, 6, product(ctx, a, b, (0, 3)))
    return _written(ctx, out, 8) if ctx.has(7) else [out]


@rule("MatMulIntegerToFloat", domain=DOMAIN)
def matmul_to_float(ctx: Context) -> list[list[Axis]]:
    """``(A - a_zero) @ (B - b_zero) * a_scale * b_scale + bias``."""
    a, b = real(ctx, 0, 4), real(ctx, 1, 5)
    for i, operand, at in ((2, a, -2), (4, a, -2), (3, b, -1), (5, b, -1)):
        along(ctx, i, operand, at)
    return [_bias(ctx, 6, product(ctx, a, b, (0, 1)))]


@rule("DynamicQuantizeMatMul", domain=DOMAIN)
def dynamic_matmul(ctx: Context) -> list[list[Axis]]:
    """Scale and zero point of A come from its smallest and largest element, zero included."""
    a, b = ctx.axes(0), real(ctx, 1, 3)
    for axis in a:
        if not axis.zero:
            ctx.statistic(axis, "its smallest and largest elements are looked for along this axis")
    for i in (2, 3):
        along(ctx, i, b, -1)
    return [_bias(ctx, 4, product(ctx, a, b, (0, 1)))]
