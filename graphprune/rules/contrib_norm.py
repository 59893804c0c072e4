"""Fused normalisation of onnxruntime (domain com.microsoft).

https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from collections.abc import Sequence

from graphprune.algebra import Axis, merge
from graphprune.rules.attention import equate_unless_one
from graphprune.rules.context import Blocked, Context
from graphprune.rules.elementwise import broadcast
from graphprune.rules.norm import layer_norm
from graphprune.rules.registry import rule

DOMAIN = "com.microsoft"
_CHANGED = "its statistic runs over this axis"
_ROW = "an index picks a row at run time"


def _unused(ctx: Context, *outputs: int) -> None:
    """Means and deviations that were saved for training."""
    if any(ctx.is_used(i) for i in outputs):
        message = "its statistics are used elsewhere"
        raise Blocked(message)


def _plain_outputs(ctx: Context, last: int) -> list[list[Axis]]:
    """Axes of the unused outputs 1 to ``last``, as far as their shapes are known."""
    known = ctx.trace.shapes
    outputs = ctx.node.outputs[1 : last + 1]
    return [[ctx.plain(n) for n in known.get(value.name or "", ())] for value in outputs]


def _over_last(ctx: Context, x: list[Axis], gamma: int, beta: int | None) -> list[Axis]:
    """A norm over the last axis, with scale and bias."""
    ctx.statistic(x[-1], _CHANGED)
    ctx.equate(x[-1], ctx.axes(gamma)[0])
    is_shifted = beta is not None and ctx.has(beta)
    last = x[-1]
    if is_shifted:
        assert beta is not None
        shift = ctx.axes(beta)[0]
        ctx.equate(last, shift)
        last = last if shift.zero else last.nonzero()
    return [*(axis.nonzero() for axis in x[:-1]), last]


def _skip(ctx: Context, gamma: int, beta: int | None, bias: int) -> list[list[Axis]]:
    _unused(ctx, 1, 2)
    total = broadcast(ctx, [i for i in (0, 1, bias) if ctx.has(i)], zero="all")
    normed = _over_last(ctx, total, gamma, beta)
    return [normed, *_plain_outputs(ctx, 2), total]


@rule("SkipLayerNormalization", domain=DOMAIN)
def skip_layer_norm(ctx: Context) -> list[list[Axis]]:
    """``LayerNormalization(input + skip + bias)``; the sum is the fourth output."""
    return _skip(ctx, gamma=2, beta=3, bias=4)


@rule("SkipSimplifiedLayerNormalization", domain=DOMAIN)
def skip_rms_norm(ctx: Context) -> list[list[Axis]]:
    """``RMSNormalization(input + skip + bias)``; the sum is the fourth output."""
    return _skip(ctx, gamma=2, beta=None, bias=3)


@rule("SimplifiedLayerNormalization")
def rms_norm(ctx: Context) -> list[list[Axis]]:
    """RMSNormalization under onnxruntime's name, which it keeps in the default domain."""
    return layer_norm(ctx)


@rule("EmbedLayerNormalization", domain=DOMAIN)
def embed_layer_norm(ctx: Context) -> list[list[Axis]]:
    """Sum of the embeddings of words, positions and segments, then LayerNormalization."""
    tables = [ctx.axes(i) for i in (2, 3, 4) if ctx.has(i)]
    for table in tables:
        ctx.freeze(table[0], _ROW)
        ctx.equate(tables[0][1], table[1])
    hidden = tables[0][1]
    positions = [ctx.frozen(n, "its values are positions") for n in ctx.out_shape()[:2]]
    hidden = hidden if all(table[1].zero for table in tables) else hidden.nonzero()
    total = [*positions, hidden]
    normed = _over_last(ctx, total, 5, 6)
    return [normed, *_plain_outputs(ctx, 1), total]


@rule("GatedRMSNorm", domain=DOMAIN)
def gated_rms_norm(ctx: Context) -> list[list[Axis]]:
    """``RMSNormalization(X) * activation(gate)`` over each run of as many positions as the scale has."""
    x, gate, scale = ctx.axes(0), ctx.axes(2), ctx.axes(1)[0]
    if scale.size < 1 or x[-1].size % scale.size:
        message = f"{x[-1].size} positions are no runs of {scale.size}"
        raise Blocked(message)
    outer, inner = ctx.split(x[-1], (x[-1].size // scale.size, scale.size))
    ctx.statistic(inner, _CHANGED)
    ctx.equate(inner, scale)
    for axis, other in zip(x, gate, strict=True):
        ctx.equate(axis, other)
    return [[*x[:-1], merge([outer, inner])]]


def _by_groups(ctx: Context, x: Sequence[Axis]) -> list[Axis]:
    """Mean and variance over each group of channels and all of space."""
    last = bool(ctx.attr_int("channels_last", 1))
    at = len(x) - 1 if last else 1
    channels, groups = x[at], ctx.attr_int("groups", 1)
    if groups < 1 or channels.size % groups:
        message = f"{channels.size} channels don't divide into {groups} groups"
        raise Blocked(message)
    outer, inner = ctx.split(channels, (groups, channels.size // groups))
    for axis in (inner, *(a for d, a in enumerate(x) if d not in (0, at))):
        ctx.statistic(axis, _CHANGED)
    ctx.tag(outer, "norm_groups")
    scale, shift = ctx.axes(1)[0], ctx.axes(2)[0]
    ctx.equate(channels, scale)
    ctx.equate(channels, shift)
    normed = merge([outer, inner])
    normed = normed if shift.zero else normed.nonzero()
    return [normed if d == at else axis.nonzero() for d, axis in enumerate(x)]


@rule("GroupNorm", domain=DOMAIN)
def group_norm(ctx: Context) -> list[list[Axis]]:
    """GroupNormalization in channels-last layout by default, with an activation that keeps zero."""
    return [_by_groups(ctx, ctx.axes(0))]


@rule("SkipGroupNorm", domain=DOMAIN)
def skip_group_norm(ctx: Context) -> list[list[Axis]]:
    """The same on ``x + skip + bias``, whose sum is the second output."""
    x, skip = list(ctx.axes(0)), ctx.axes(3)
    if not ctx.attr_int("channels_last", 1):
        message = "its skip and bias are added to channels that come first"
        raise Blocked(message)
    if len(skip) < len(x):  # [N, C]
        skip = [skip[0], *(ctx.plain(1) for _ in x[1:-1]), skip[-1]]
    for d, axis in enumerate(skip):
        equate_unless_one(ctx, x[d], axis)
        is_added = axis.size == x[d].size
        x[d] = x[d] if is_added and axis.zero else x[d].nonzero()
    if ctx.has(4):
        bias = ctx.axes(4)[0]
        ctx.equate(x[-1], bias)
        x = [*(axis.nonzero() for axis in x[:-1]), x[-1] if bias.zero else x[-1].nonzero()]
    return [_by_groups(ctx, x), x]
