"""Operators on quantized numbers, which stand for ``(q - zero_point) * scale``.

Zero is written as the zero point here: an axis whose removed slices hold the zero point is as good as one
whose removed slices hold zeros, as long as its reader subtracts the same one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graphprune.algebra import Axis, concat
from graphprune.quantization import QUANTIZED
from graphprune.rules.context import Blocked, Context
from graphprune.rules.contraction import WINDOW, channels_of, product
from graphprune.rules.registry import rule

#: Operators behind which a removed slice still holds the zero point that it held in front of them.
KEEPS_ZERO_POINT = frozenset({
    "Concat", "DepthToSpace", "DynamicQuantizeLinear", "Flatten", "Gather", "Identity", "MaxPool", "QGemm",
    "QLinearAdd", "QLinearAveragePool", "QLinearConcat", "QLinearConv", "QLinearGlobalAveragePool",
    "QLinearLeakyRelu", "QLinearMatMul", "QLinearMul", "QuantizeLinear", "Reshape", "Slice", "SpaceToDepth",
    "Split", "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip


def zero_point(ctx: Context, i: int) -> int | str | None:
    """The one zero point at input ``i``: a number, the name of a computed one, or None for several."""
    if not ctx.has(i):
        return 0
    value = ctx.constant(i)
    if value is None:
        one = all(n == 1 for n in ctx.shape(i))
        return ctx.node.inputs[i].name if one else None  # type: ignore[union-attr]
    flat = value.reshape(-1)
    return int(flat[0]) if (flat == flat[0]).all() else None


def real(ctx: Context, i: int, point: int) -> list[Axis]:
    """Axes of input ``i``, zero where a removed slice stands for zero under the zero point at ``point``.

    The oracle sets removed slices of a constant to its zero point, if that is constant too.
    """
    is_known = (ctx.node.op_type, i) in QUANTIZED and (not ctx.has(point) or ctx.is_constant(point))
    is_reset = ctx.is_constant(i) and is_known
    expected = zero_point(ctx, point)
    out = []
    for axis in ctx.axes(i):
        holds = 0 if axis.zero else axis.zero_point
        is_zero = is_reset or (holds is not None and holds == expected)
        out.append(replace(axis, zero=is_zero, zero_point=None))
    return out


def quantized(axis: Axis, point: int | str | None) -> Axis:
    """An axis of real numbers once these are quantized with this zero point."""
    if axis.is_plain or not axis.zero or point == 0:
        return axis
    return replace(axis, zero=False, zero_point=point)


def _per_axis(ctx: Context, x: list[Axis], inputs: tuple[int, int]) -> None:
    """Scale and zero point of each position of an axis, or of each block of positions.

    https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html
    """
    block = ctx.attr_int("block_size", 0)
    for i in inputs:
        if not ctx.has(i) or all(n == 1 for n in ctx.shape(i)):
            continue
        axes, at = ctx.axes(i), ctx.attr_int("axis", 1)
        if not -len(x) <= at < len(x) or len(axes) != (len(x) if block else 1):
            message = f"a scale of shape {list(ctx.shape(i))} along axis {at} does not fit its tensor"
            raise Blocked(message)
        at %= len(x)
        if not block:
            ctx.equate(x[at], axes[0])
            continue
        for d, (axis, scale) in enumerate(zip(x, axes, strict=True)):
            if d != at:
                ctx.equate(axis, scale)
            else:
                _blocks(ctx, axis, scale, block)


def _blocks(ctx: Context, axis: Axis, scale: Axis, block: int) -> None:
    """One scale for each ``block`` positions: they go together.  A single block may lose any position."""
    if scale.size == 1:
        return
    if -(-axis.size // block) != scale.size:
        ctx.freeze(axis, f"{scale.size} blocks of {block} are not its {axis.size} positions")
        ctx.freeze(scale, f"{scale.size} blocks of {block} are not {axis.size} positions")
        return
    ctx.equate(in_blocks(ctx, axis, scale, block, f"{block} positions share one scale"), scale)


def in_blocks(ctx: Context, axis: Axis, blocks: Axis, size: int, reason: str) -> Axis:
    """The blocks that an axis consists of, each of which goes as a whole; a last one that is not full stays.

    Args:
        ctx: of the node.
        axis: of positions.
        blocks: an axis as long as there are blocks.
        size: positions of a full block.
        reason: why they go together.
    """
    full = axis.size // size
    whole, within = ctx.split(axis.take(np.arange(full * size)), (full, size))
    ctx.freeze(within, reason)
    if full == blocks.size:
        return whole
    last = f"its last block of {size} is not full"
    ctx.freeze(axis.take(np.arange(full * size, axis.size)), last)
    return concat([whole, ctx.frozen(blocks.size - full, last)])


@rule("QuantizeLinear", since=10)
@rule("QuantizeLinear", domain="com.microsoft")
def quantize(ctx: Context) -> list[list[Axis]]:
    """``round(x / scale) + zero_point``, with one scale, one per position or one per block.

    https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html
    """
    x = ctx.axes(0)
    _per_axis(ctx, x, (1, 2))
    point = zero_point(ctx, 2)
    return [[quantized(axis, point) for axis in x]]


@rule("DequantizeLinear", since=10)
@rule("DequantizeLinear", domain="com.microsoft")
def dequantize(ctx: Context) -> list[list[Axis]]:
    """``(x - zero_point) * scale``."""
    x = real(ctx, 0, 2)
    _per_axis(ctx, x, (1, 2))
    return [x]


@rule("DynamicQuantizeLinear", since=11)
def dynamic_quantize(ctx: Context) -> list[list[Axis]]:
    """Scale and zero point from the smallest and largest element, zero included.

    So positions that are zero don't change them.
    https://onnx.ai/onnx/operators/onnx__DynamicQuantizeLinear.html
    """
    x = ctx.axes(0)
    for axis in x:
        if not axis.zero:
            ctx.statistic(axis, "its smallest and largest elements are looked for along this axis")
    point = ctx.node.outputs[2].name
    scalars = [list[Axis]() for _ in ctx.node.outputs[1:]]
    return [[quantized(axis, point) for axis in x], *scalars]


def _convolution(ctx: Context, x: list[Axis], w: list[Axis]) -> list[Axis]:
    """``[N, C, ...]`` without a bias, zero as real numbers."""
    for axis in (*x[2:], *w[2:]):
        ctx.freeze(axis, WINDOW)
    channels = channels_of(ctx, x[1], w[0], w[1], ctx.attr_int("group", 1))
    spatial = [ctx.frozen(n, WINDOW) for n in ctx.out_shape()[2:]]
    return [x[0], replace(channels, zero=w[0].zero), *spatial]


def vector(ctx: Context, i: int, axis: Axis) -> None:
    """A scale, zero point or bias per position of ``axis``, or one for all."""
    if ctx.has(i) and any(n != 1 for n in ctx.shape(i)):
        if len(ctx.shape(i)) != 1:
            message = f"input {i} of shape {list(ctx.shape(i))} is neither a scalar nor a vector"
            raise Blocked(message)
        ctx.equate(axis, ctx.axes(i)[0])


@rule("ConvInteger", since=10)
def conv_integer(ctx: Context) -> list[list[Axis]]:
    """https://onnx.ai/onnx/operators/onnx__ConvInteger.html."""
    out = _convolution(ctx, real(ctx, 0, 2), real(ctx, 1, 3))
    scalar_only(ctx, 2)
    vector(ctx, 3, out[1])
    return [out]


@rule("QLinearConv", since=10)
def qlinear_conv(ctx: Context) -> list[list[Axis]]:
    """https://onnx.ai/onnx/operators/onnx__QLinearConv.html."""
    out = _convolution(ctx, real(ctx, 0, 2), real(ctx, 3, 5))
    for i in (1, 2, 6, 7):
        scalar_only(ctx, i)
    for i in (4, 5, 8):
        vector(ctx, i, out[1])
    if ctx.has(8):
        bias = ctx.axes(8)[0]
        out = [
            axis if d == 1 and (bias.zero or axis.is_plain) else axis.nonzero() for d, axis in enumerate(out)
        ]
    point = zero_point(ctx, 7)
    return [[quantized(axis, point) for axis in out]]


def scalar_only(ctx: Context, i: int) -> None:
    """One scale or zero point at input ``i``, if any."""
    if ctx.has(i) and any(n != 1 for n in ctx.shape(i)):
        message = f"input {i} holds more than one scale or zero point"
        raise Blocked(message)


def along(ctx: Context, i: int, axes: list[Axis], at: int) -> None:
    """Scales or zero points per row (``at`` -2) or column (-1) of a matrix, or of a stack of matrices."""
    if not ctx.has(i) or all(n == 1 for n in ctx.shape(i)):
        return
    given = ctx.axes(i)
    if len(given) == 1:
        if len(axes) < -at:
            message = f"{given[0].size} scales or zero points for the rows of a vector"
            raise Blocked(message)
        ctx.equate(axes[at], given[0])
        return
    for back, axis in enumerate(reversed(given), start=1):
        if axis.size != 1:
            ctx.equate(axes[-back], axis)


@rule("MatMulInteger", since=10)
def matmul_integer(ctx: Context) -> list[list[Axis]]:
    """https://onnx.ai/onnx/operators/onnx__MatMulInteger.html."""
    a, b = real(ctx, 0, 2), real(ctx, 1, 3)
    along(ctx, 2, a, -2)
    along(ctx, 3, b, -1)
    return [product(ctx, a, b, (0, 1))]


@rule("QLinearMatMul", since=10)
def qlinear_matmul(ctx: Context) -> list[list[Axis]]:
    """https://onnx.ai/onnx/operators/onnx__QLinearMatMul.html."""
    a, b = real(ctx, 0, 2), real(ctx, 3, 5)
    for i in (1, 2):
        along(ctx, i, a, -2)
    for i in (4, 5):
        along(ctx, i, b, -1)
    out = product(ctx, a, b, (0, 3))
    for i in (6, 7):
        along(ctx, i, out, -2)
    point = zero_point(ctx, 7)
    return [[quantized(axis, point) for axis in out]]
