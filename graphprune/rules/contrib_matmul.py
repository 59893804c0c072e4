"""Fused products of onnxruntime (domain com.microsoft): matrix products and convolutions.

https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from dataclasses import replace

from graphprune.algebra import Axis
from graphprune.rules.context import Blocked, Context
from graphprune.rules.contraction import WINDOW, channels_of, contract, conv, gemm, product
from graphprune.rules.quantized import in_blocks
from graphprune.rules.registry import rule

DOMAIN = "com.microsoft"
#: Fused activations behind which zero stays zero.
_ZERO_TO_ZERO = ("", "Relu", "LeakyRelu", "Tanh")


def _activated(ctx: Context, axes: list[Axis]) -> list[Axis]:
    name = ctx.attr_str("activation", "")
    keeps_zero = name in _ZERO_TO_ZERO
    if name == "Clip":
        given = ctx.node.attributes.get("activation_params")
        low, high = given.as_floats() if given is not None else (1.0, 0.0)
        keeps_zero = low <= 0.0 <= high
    return axes if keeps_zero else [axis.nonzero() for axis in axes]


def _plus_vector(ctx: Context, axes: list[Axis], i: int) -> list[Axis]:
    """An optional vector of inputs ``i`` is added along the last axis."""
    if not ctx.has(i):
        return axes
    bias = ctx.axes(i)[0]
    ctx.equate(axes[-1], bias)
    return [*(axis.nonzero() for axis in axes[:-1]), axes[-1] if bias.zero else axes[-1].nonzero()]


def _plus_residual(ctx: Context, axes: list[Axis], i: int) -> list[Axis]:
    """An optional tensor of the same shape is added."""
    if not ctx.has(i):
        return axes
    added = ctx.axes(i)
    for axis, other in zip(axes, added, strict=True):
        ctx.equate(axis, other)
    return [axis if other.zero else axis.nonzero() for axis, other in zip(axes, added, strict=True)]


def _matrices(ctx: Context, i: int, name: str) -> list[Axis]:
    """Axes of an operand of FusedMatMul as MatMul has them; a vector is not transposed."""
    axes = list(ctx.axes(i))
    if len(axes) > 1 and ctx.attr_int(f"transBatch{name}", 0):
        axes = [*axes[1:-1], axes[0], axes[-1]]
    if len(axes) > 1 and ctx.attr_int(f"trans{name}", 0):
        axes[-2:] = reversed(axes[-2:])
    return axes


@rule("FusedMatMul", "TransposeMatMul", domain=DOMAIN)
def fused_matmul(ctx: Context) -> list[list[Axis]]:
    """``alpha * A' @ B'``: the last two axes may be swapped, and the first may stand behind the batch."""
    return [product(ctx, _matrices(ctx, 0, "A"), _matrices(ctx, 1, "B"), (0, 1))]


@rule("GemmFastGelu", domain=DOMAIN)
def gemm_gelu(ctx: Context) -> list[list[Axis]]:
    """``FastGelu(X @ W + bias)``."""
    return [_plus_vector(ctx, product(ctx, ctx.axes(0), ctx.axes(1), (0, 1)), 2)]


@rule("FusedGemm", domain=DOMAIN)
def fused_gemm(ctx: Context) -> list[list[Axis]]:
    """Gemm, then an activation."""
    return [_activated(ctx, gemm(ctx)[0])]


@rule("FusedConv", domain=DOMAIN)
def fused_conv(ctx: Context) -> list[list[Axis]]:
    """Conv, plus an optional residual, then an activation."""
    return [_activated(ctx, _plus_residual(ctx, conv(ctx)[0], 3))]


@rule("NhwcConv", "NhwcFusedConv", domain=DOMAIN)
def channels_last_conv(ctx: Context) -> list[list[Axis]]:
    """The same with channels last; the weights ``[M, C / group, ..]`` are as in Conv."""
    x, w = ctx.axes(0), ctx.axes(1)
    for axis in (*x[1:-1], *w[2:]):
        ctx.freeze(axis, WINDOW)
    channels = channels_of(ctx, x[-1], w[0], w[1], ctx.attr_int("group", 1))
    spatial = [ctx.frozen(n, WINDOW) for n in ctx.out_shape()[1:-1]]
    out = _plus_vector(ctx, [x[0], *spatial, replace(channels, zero=w[0].zero)], 2)
    return [_activated(ctx, _plus_residual(ctx, out, 3))]


@rule("NhwcMaxPool", domain=DOMAIN)
def channels_last_pool(ctx: Context) -> list[list[Axis]]:
    """Windows over the axes between batch and channels."""
    x = ctx.axes(0)
    for axis in x[1:-1]:
        ctx.freeze(axis, "a window runs over this axis")
    spatial = [ctx.frozen(n, "a window runs over this axis") for n in ctx.out_shape()[1:-1]]
    return [[x[0], *spatial, x[-1]]]


@rule("MatMulNBits", domain=DOMAIN)
def matmul_bits(ctx: Context) -> list[list[Axis]]:
    """``A @ B'`` with B ``[N, blocks, bytes]``: rows of B go one by one, columns in whole blocks.

    Scales and zero points are ``[N, blocks]``, perhaps flat; zero points may be packed along the blocks.
    """
    if ctx.attr_int("weight_prepacked", 0) or ctx.has(4):
        message = "its weights are stored in a layout of one device, or regrouped"
        raise Blocked(message)
    x, b = ctx.axes(0), ctx.axes(1)
    if len(b) != 3:
        message = f"its weights have {len(b)} axes, not 3"
        raise Blocked(message)
    n, blocks, inner = b
    ctx.freeze(inner, "a block of weights is packed into bytes")
    size = ctx.attr_int("block_size", 0)
    if size < 1 or -(-x[-1].size // size) != blocks.size:
        message = f"{blocks.size} blocks of {size} are not {x[-1].size} columns"
        raise Blocked(message)
    contract(ctx, in_blocks(ctx, x[-1], blocks, size, "one scale stands for a block of weights"), blocks)
    for i in (2, 3):
        if ctx.has(i):
            _per_block(ctx, i, n, blocks)
    return [_plus_vector(ctx, [*x[:-1], n], 5)]


def _per_block(ctx: Context, i: int, n: Axis, blocks: Axis) -> None:
    """Scales or zero points ``[N, blocks]``, perhaps flat; fewer columns are packed ones."""
    axes = ctx.axes(i)
    if len(axes) == 1:
        axes = ctx.split(axes[0], (n.size, axes[0].size // max(n.size, 1)))
    ctx.equate(n, axes[0])
    if axes[1].size == blocks.size:
        ctx.equate(blocks, axes[1])
        return
    shared = -(-blocks.size // max(axes[1].size, 1))
    ctx.equate(in_blocks(ctx, blocks, axes[1], shared, "zero points of several blocks share a byte"), axes[1])
