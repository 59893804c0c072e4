"""Operators that sum over an axis of two operands: MatMul, Gemm, Conv, ConvTranspose."""

from __future__ import annotations

from dataclasses import replace

from graphprune.algebra import Axis, merge
from graphprune.rules.context import Blocked, Context
from graphprune.rules.registry import rule

WINDOW = "a convolution's window computes the spatial axes"


def contract(ctx: Context, a: Axis, b: Axis) -> None:
    """``a`` and ``b`` are multiplied and summed over."""
    ctx.equate(a, b)
    ctx.summed(a, b)


@rule("MatMul")
def matmul(ctx: Context) -> list[list[Axis]]:
    """``[.., M, K] @ [.., K, N]``: K is equal and summed, leading axes broadcast.

    https://onnx.ai/onnx/operators/onnx__MatMul.html
    """
    return [product(ctx, ctx.axes(0), ctx.axes(1), (0, 1))]


def product(ctx: Context, a: list[Axis], b: list[Axis], operands: tuple[int, int]) -> list[Axis]:
    """Axes of the product of two stacks of matrices, which are the inputs ``operands``."""
    contract(ctx, a[-1], b[-2] if len(b) > 1 else b[-1])
    rows = a[-2:-1] if len(a) > 1 else []
    columns = b[-1:] if len(b) > 1 else []
    batch = _batch(ctx, a[:-2], b[:-2])
    if not any(ctx.is_constant(i) or ctx.is_computed_weight(i) for i in operands):
        for axis in batch:
            ctx.tag(axis, "heads")
        for axis in (a[-1], *rows, *columns):
            ctx.tag(axis, "head_dim")
    return [*batch, *rows, *columns]


def _batch(ctx: Context, a: list[Axis], b: list[Axis]) -> list[Axis]:
    out: list[Axis] = []
    for back in range(max(len(a), len(b)), 0, -1):
        here = [x[-back] for x in (a, b) if back <= len(x)]
        meeting = [x for x in here if x.size != 1]
        for other in meeting[1:]:
            ctx.equate(meeting[0], other)
        best = next((x for x in meeting if x.is_plain), meeting[0] if meeting else here[0])
        zero = any(x.zero for x in meeting)
        out.append(best if best.is_plain or best.zero == zero else replace(best, zero=zero))
    return out


@rule("Gemm")
def gemm(ctx: Context) -> list[list[Axis]]:
    """``alpha * A' @ B' + beta * C`` with C broadcast to ``[M, N]``.

    https://onnx.ai/onnx/operators/onnx__Gemm.html
    """
    a, b = list(ctx.axes(0)), list(ctx.axes(1))
    if ctx.attr_int("transA", 0):
        a.reverse()
    if ctx.attr_int("transB", 0):
        b.reverse()
    contract(ctx, a[1], b[0])
    out = [a[0], b[1]]
    if ctx.has(2):
        c = ctx.axes(2)
        for back, axis in enumerate(reversed(c), start=1):
            if axis.size != 1:
                ctx.equate(out[-back], axis)
        for d in range(2):
            added = c[d - 2] if 2 - d <= len(c) else None
            covered = added is not None and added.size == out[d].size and added.zero
            if not covered:
                out[d] = out[d].nonzero()
    return [out]


def _convolution(ctx: Context, *, transposed: bool) -> list[list[Axis]]:
    x, w = ctx.axes(0), ctx.axes(1)
    group = ctx.attr_int("group", 1)
    for axis in (*x[2:], *w[2:]):
        ctx.freeze(axis, WINDOW)
    channels = x[1]
    if transposed:
        out_channels = _transposed_channels(ctx, channels, w[0], w[1], group)
    else:
        out_channels = channels_of(ctx, channels, w[0], w[1], group)
    out_channels = replace(out_channels, zero=w[1 if transposed else 0].zero)
    if ctx.has(2):
        bias = ctx.axes(2)[0]
        ctx.equate(out_channels, bias)
        if not bias.zero:
            out_channels = out_channels.nonzero()
    spatial = [ctx.frozen(n, WINDOW) for n in ctx.out_shape()[2:]]
    return [[x[0].nonzero() if ctx.has(2) else x[0], out_channels, *spatial]]


def channels_of(ctx: Context, x: Axis, w_out: Axis, w_in: Axis, group: int) -> Axis:
    """Input ``group * in``, weight ``[group * out, in, ...]``."""
    if group == 1:
        contract(ctx, x, w_in)
        return w_out
    if x.size % group or w_out.size % group:
        message = f"{x.size} and {w_out.size} channels don't divide into {group} groups"
        raise Blocked(message)
    if x.size == group:  # depthwise: input channels are the groups
        groups = x
    else:
        groups, inner = ctx.split(x, (group, x.size // group))
        contract(ctx, inner, w_in)
        ctx.tag(groups, "conv_groups")
    out_groups = w_out if w_out.size == group else ctx.split(w_out, (group, w_out.size // group))[0]
    ctx.equate(groups, out_groups)
    return w_out


def _transposed_channels(ctx: Context, x: Axis, w_in: Axis, w_out: Axis, group: int) -> Axis:
    """Input ``group * in``, weight ``[group * in, out, ...]``, result ``group * out``."""
    contract(ctx, x, w_in)
    if group == 1:
        return w_out
    if x.size % group:
        message = f"{x.size} channels don't divide into {group} groups"
        raise Blocked(message)
    groups = x if x.size == group else ctx.split(x, (group, x.size // group))[0]
    if x.size != group:
        ctx.tag(groups, "conv_groups")
    return merge([groups, w_out]) if w_out.size > 1 else groups


@rule("Conv")
def conv(ctx: Context) -> list[list[Axis]]:
    """https://onnx.ai/onnx/operators/onnx__Conv.html."""
    return _convolution(ctx, transposed=False)


@rule("ConvTranspose")
def conv_transpose(ctx: Context) -> list[list[Axis]]:
    """https://onnx.ai/onnx/operators/onnx__ConvTranspose.html."""
    return _convolution(ctx, transposed=True)
