"""Normalisation operators, and others whose entries along an axis depend on each other."""

from __future__ import annotations

from graphprune.algebra import Axis, merge
from graphprune.rules.context import Blocked, Context
from graphprune.rules.registry import rule

_CHANGED = "its statistic runs over this axis"


def _first_output_only(ctx: Context, axes: list[Axis]) -> list[list[Axis]]:
    """Further outputs (running statistics, means) must be unused."""
    if any(ctx.is_used(i) for i in range(1, len(ctx.node.outputs))):
        message = "its statistics are used elsewhere"
        raise Blocked(message)
    return [axes, *([ctx.plain(n) for n in ctx.out_shape(i)] for i in _known_outputs(ctx))]


def _known_outputs(ctx: Context) -> list[int]:
    return [i for i, o in enumerate(ctx.node.outputs) if i and (o.name or "") in ctx.trace.shapes]


def _channel_parameters(ctx: Context, channels: Axis, inputs: tuple[int, ...]) -> None:
    for i in inputs:
        if ctx.has(i):
            ctx.equate(channels, ctx.axes(i)[0])


@rule("BatchNormalization")
def batch_norm(ctx: Context) -> list[list[Axis]]:
    """One scale, bias, mean and variance per channel (inference form).

    https://onnx.ai/onnx/operators/onnx__BatchNormalization.html
    """
    if ctx.attr_int("training_mode", 0) or (ctx.opset < 7 and not ctx.attr_int("is_test", 0)):
        message = "it normalises by the statistics of the batch"
        raise Blocked(message)
    if not ctx.attr_int("spatial", 1):
        message = "spatial is 0: its parameters are no vectors of channels"
        raise Blocked(message)
    x = ctx.axes(0)
    channels = x[1] if len(x) > 1 else ctx.plain(1)
    _channel_parameters(ctx, channels, (1, 2, 3, 4))
    return _first_output_only(ctx, _shifted(ctx, x))


def _shifted(ctx: Context, x: list[Axis]) -> list[Axis]:
    """A bias per channel: zero stays zero along the channels only, and only if the bias is zero there."""
    bias_is_zero = not ctx.has(2) or all(axis.zero for axis in ctx.axes(2))
    return [axis if d == 1 and bias_is_zero else axis.nonzero() for d, axis in enumerate(x)]


@rule("InstanceNormalization")
def instance_norm(ctx: Context) -> list[list[Axis]]:
    """Mean and variance over the spatial axes, scale and bias per channel."""
    x = ctx.axes(0)
    for axis in x[2:]:
        ctx.statistic(axis, _CHANGED)
    _channel_parameters(ctx, x[1], (1, 2))
    return [_shifted(ctx, x)]


@rule("GroupNormalization", since=18)
def group_norm(ctx: Context) -> list[list[Axis]]:
    """Mean and variance over each group of channels and all of space; whole groups go exactly.

    Scale and bias are per group in opset 18, per channel from 21.
    https://onnx.ai/onnx/operators/onnx__GroupNormalization.html
    """
    x, groups = ctx.axes(0), ctx.attr_int("num_groups", 1)
    outer, inner = ctx.split(x[1], (groups, x[1].size // groups))
    for axis in (inner, *x[2:]):
        ctx.statistic(axis, _CHANGED)
    ctx.tag(outer, "norm_groups")
    for i in (1, 2):
        scale = ctx.axes(i)[0]
        ctx.equate(scale, x[1] if scale.size == x[1].size else outer)
    return [_shifted(ctx, [x[0], merge([outer, inner]), *x[2:]])]


@rule("LayerNormalization", "RMSNormalization", since=17)
def layer_norm(ctx: Context) -> list[list[Axis]]:
    """Statistics over all axes from ``axis`` on.

    https://onnx.ai/onnx/operators/onnx__LayerNormalization.html
    """
    x = ctx.axes(0)
    first = ctx.attr_int("axis", -1) % len(x)
    for axis in x[first:]:
        ctx.statistic(axis, _CHANGED)
    for i in (1, 2):
        if ctx.has(i):
            for a, b in zip(reversed(x), reversed(ctx.axes(i)), strict=False):
                if b.size != 1:
                    ctx.equate(a, b)
    bias_is_zero = not ctx.has(2) or all(axis.zero for axis in ctx.axes(2))
    normed = [a if bias_is_zero else a.nonzero() for a in x[first:]]
    return _first_output_only(ctx, [a.nonzero() for a in x[:first]] + normed)


def _along(ctx: Context, axis: int, text: str) -> list[list[Axis]]:
    x = ctx.axes(0)
    if not x:
        message = "a scalar has no axis"
        raise Blocked(message)
    ctx.statistic(x[axis], text)
    return [[a.nonzero() for a in x]]


@rule("Softmax", "LogSoftmax", "Hardmax")
def softmax_flattened(ctx: Context) -> list[list[Axis]]:
    """Before opset 13 the input is seen as a matrix: all axes from ``axis`` on are normalised together."""
    x = ctx.axes(0)
    for axis in x[ctx.attr_int("axis", 1) % max(len(x), 1) :]:
        ctx.statistic(axis, "a softmax runs over this axis")
    return [[a.nonzero() for a in x]]


@rule("Softmax", "LogSoftmax", "Hardmax", since=13)
def softmax(ctx: Context) -> list[list[Axis]]:
    """Entries along ``axis`` are normalised together."""
    return _along(ctx, ctx.attr_int("axis", -1), "a softmax runs over this axis")


@rule("LpNormalization")
def lp_norm(ctx: Context) -> list[list[Axis]]:
    """A norm along one axis: a removed position that was zero does not count."""
    x = ctx.axes(0)
    ctx.summed(x[ctx.attr_int("axis", -1)])
    return [[a.nonzero() for a in x]]


@rule("LRN")
def local_response_norm(ctx: Context) -> list[list[Axis]]:
    """A window over neighbouring channels: once some are gone, others are neighbours."""
    x = ctx.axes(0)
    ctx.statistic(x[1], "its window runs over neighbouring channels")
    return [x]


@rule("MeanVarianceNormalization")
def mean_variance_norm(ctx: Context) -> list[list[Axis]]:
    """Mean and variance over ``axes``."""
    x = ctx.axes(0)
    for d in ctx.attr_ints("axes") or [0, 2, 3]:
        ctx.statistic(x[d], _CHANGED)
    return [[a.nonzero() for a in x]]
