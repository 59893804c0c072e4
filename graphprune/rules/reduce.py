"""Reductions, pooling and resizing."""

from __future__ import annotations

from graphprune.algebra import Axis
from graphprune.rules.context import Blocked, Context
from graphprune.rules.registry import rule

# Sums: a removed position that is zero contributes nothing, so the result is exact.
SUMS = ("ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2")
STATISTICS = (
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceLogSum",
    "ReduceLogSumExp",
)
_LOGARITHMIC = ("ReduceLogSum", "ReduceLogSumExp")
_WINDOW = "a window runs over this axis"


def reduced_axes(ctx: Context) -> list[int]:
    """The axes a Reduce operator runs over (attribute, or input since 13/18)."""
    rank = len(ctx.shape(0))
    axes = ctx.attr_ints("axes")
    if axes is None and ctx.has(1):
        axes = ctx.ints(1)
        if axes is None:
            message = "its axes are computed at run time"
            raise Blocked(message)
    if not axes:
        return [] if ctx.attr_int("noop_with_empty_axes", 0) else list(range(rank))
    return [d % rank for d in axes]


@rule(*SUMS, *STATISTICS)
def reduce(ctx: Context) -> list[list[Axis]]:
    """The reduced axes vanish (or become 1); the others are carried."""
    x, reduced = ctx.axes(0), reduced_axes(ctx)
    op_type = ctx.node.op_type
    if 0 in ctx.shape(0):
        message = "an empty tensor is reduced"
        raise Blocked(message)
    for d in reduced:
        if op_type in SUMS:
            ctx.summed(x[d])
        else:
            ctx.statistic(x[d], f"{op_type} runs over this axis")
    keep = ctx.attr_int("keepdims", 1)
    out = []
    for d, axis in enumerate(x):
        if d not in reduced:
            out.append(axis.nonzero() if op_type in _LOGARITHMIC else axis)
        elif keep:
            out.append(ctx.plain(1))
    return [out]


@rule("CumSum", "Trilu", "Unique", "ReverseSequence")
def ordered(ctx: Context) -> list[list[Axis]]:
    """Positions along one axis (Trilu: the last two) stand in an order that a cut would change."""
    op_type, x = ctx.node.op_type, list(ctx.axes(0))
    if op_type in ("Unique", "ReverseSequence"):
        message = "it reorders positions at run time"
        raise Blocked(message)
    if op_type == "CumSum":
        at = ctx.ints(1)
        if at is None:
            message = "its axis is computed at run time"
            raise Blocked(message)
        where = [at[0] % len(x)]
    else:
        where = [len(x) - 2, len(x) - 1]
    for d in where:
        ctx.freeze(x[d], "the order of positions along this axis matters")
    out = []
    for i in range(len(ctx.node.outputs)):
        axes = [a.nonzero() for a in x] if i else list(x)
        for d in where:
            axes[d] = ctx.frozen(ctx.out_shape(i)[d], "the order of positions along this axis matters")
        out.append(axes)
    return out


@rule("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(ctx: Context) -> list[list[Axis]]:
    """All axes but batch and channels are reduced."""
    x = ctx.axes(0)
    for axis in x[2:]:
        ctx.statistic(axis, "a global pool runs over this axis")
    return [[*x[:2], *(ctx.plain(1) for _ in x[2:])]]


@rule("AveragePool", "MaxPool", "LpPool")
def pool(ctx: Context) -> list[list[Axis]]:
    """Windows over the spatial axes."""
    x = ctx.axes(0)
    if ctx.is_used(1):
        message = "its Indices output counts positions in the whole tensor"
        raise Blocked(message)
    for axis in x[2:]:
        ctx.freeze(axis, _WINDOW)
    out = [*x[:2], *(ctx.frozen(n, _WINDOW) for n in ctx.out_shape()[2:])]
    return [out for _ in ctx.node.outputs]


@rule("Resize", "Upsample")
def resize(ctx: Context) -> list[list[Axis]]:
    """An axis that is not scaled is carried; the others are interpolated.

    https://onnx.ai/onnx/operators/onnx__Resize.html
    """
    x, new = ctx.axes(0), ctx.out_shape()
    scales = _scales(ctx, len(x))
    crops = ctx.attr_str("coordinate_transformation_mode", "") == "tf_crop_and_resize"
    out = []
    for axis, n, scale in zip(x, new, scales, strict=True):
        if axis.size == n and scale == 1 and not crops:
            out.append(axis)
        else:
            ctx.freeze(axis, "it is interpolated along this axis")
            out.append(ctx.frozen(n, "it is interpolated along this axis"))
    return [out]


def _scales(ctx: Context, rank: int) -> list[float | None]:
    """Scale of each axis: 1 where a target size is given instead, None where it is not known.

    A scale of 1.05 may leave the size of an axis as it is, and still moves its elements.  Where the
    aspect ratio is kept, the scale of each axis depends on the sizes of all.
    """
    attribute = ctx.node.attributes.get("scales")
    if attribute is not None:
        return list(attribute.as_floats())
    at = 1 if ctx.node.op_type == "Upsample" or ctx.opset < 11 else 2
    given: list[float | None] = [None] * rank
    if not ctx.has(at) or (ctx.is_constant(at) and 0 in ctx.shape(at)):
        if ctx.attr_str("keep_aspect_ratio_policy", "stretch") == "stretch":
            return [1.0] * rank
    elif (value := ctx.constant(at)) is not None:
        given = [float(v) for v in value.reshape(-1)]
    axes = ctx.attr_ints("axes")
    scales: list[float | None] = [1.0] * rank
    for d, scale in zip(range(rank) if axes is None else axes, given, strict=False):
        scales[d] = scale
    return scales
