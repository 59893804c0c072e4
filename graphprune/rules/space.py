"""Operators that rearrange or sample space, and others that keep some axes whole."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from graphprune.algebra import Axis, merge
from graphprune.rules.context import Blocked, Context
from graphprune.rules.contraction import WINDOW, channels_of
from graphprune.rules.registry import rule

_BLOCK = "the pixels of a block stay together"
_SAMPLED = "it is sampled at positions known only at run time"


@rule("DepthToSpace")
def depth_to_space(ctx: Context) -> list[list[Axis]]:
    """Channels are ``block * block * c`` (DCR) or ``c * block * block`` (CRD); only c can shrink.

    https://onnx.ai/onnx/operators/onnx__DepthToSpace.html
    """
    batch, depth, *space = ctx.axes(0)
    block = ctx.attr_int("blocksize", 1)
    channels = _channels(ctx, depth, block)
    return [[batch, channels, *(merge([axis, ctx.frozen(block, _BLOCK)]) for axis in space)]]


@rule("SpaceToDepth")
def space_to_depth(ctx: Context) -> list[list[Axis]]:
    """The inverse of DepthToSpace.

    https://onnx.ai/onnx/operators/onnx__SpaceToDepth.html
    """
    batch, channels, *space = ctx.axes(0)
    block = ctx.attr_int("blocksize", 1)
    outer = []
    for axis in space:
        rows, pixels = ctx.split(axis, (axis.size // block, block))
        ctx.freeze(pixels, _BLOCK)
        outer.append(rows)
    pixels = ctx.frozen(block * block, _BLOCK)
    is_outer = ctx.attr_str("mode", "DCR") == "DCR"
    depth = merge([pixels, channels] if is_outer else [channels, pixels])
    return [[batch, depth, *outer]]


def _channels(ctx: Context, depth: Axis, block: int) -> Axis:
    """The channels in an axis that holds whole blocks."""
    pixels = block * block
    channels = depth.size // pixels
    if ctx.attr_str("mode", "DCR") == "DCR":
        inner, outer = ctx.split(depth, (pixels, channels))
    else:
        outer, inner = ctx.split(depth, (channels, pixels))
    ctx.freeze(inner, _BLOCK)
    return outer


@rule("Col2Im")
def columns_to_image(ctx: Context) -> list[list[Axis]]:
    """Channels are ``c * block``: patches are added up to an image.

    https://onnx.ai/onnx/operators/onnx__Col2Im.html
    """
    batch, depth, patches = ctx.axes(0)
    block = ctx.ints(2)
    if block is None:
        message = "its block shape is computed at run time"
        raise Blocked(message)
    channels, pixels = ctx.split(depth, (depth.size // prod(block), prod(block)))
    ctx.freeze(pixels, _BLOCK)
    ctx.freeze(patches, "patches along this axis are added up to an image")
    out = [batch, channels]
    return [[*out, *(ctx.frozen(n, _BLOCK) for n in ctx.out_shape()[2:])]]


@rule("GridSample")
def grid_sample(ctx: Context) -> list[list[Axis]]:
    """Channels are carried, each position of the grid makes one of the result.

    https://onnx.ai/onnx/operators/onnx__GridSample.html
    """
    x, grid = ctx.axes(0), ctx.axes(1)
    ctx.equate(x[0], grid[0])
    for axis in x[2:]:
        ctx.freeze(axis, _SAMPLED)
    ctx.freeze(grid[-1], "coordinates stay together")
    return [[x[0], x[1], *(axis.nonzero() for axis in grid[1:-1])]]


@rule("RoiAlign", "MaxRoiPool")
def regions(ctx: Context) -> list[list[Axis]]:
    """Channels are carried, each region makes one entry of the result.

    https://onnx.ai/onnx/operators/onnx__RoiAlign.html
    """
    x, rois = ctx.axes(0), ctx.axes(1)
    for axis in (x[0], *x[2:]):
        ctx.freeze(axis, _SAMPLED)
    ctx.freeze(rois[1], "coordinates stay together")
    if ctx.has(2):
        ctx.equate(rois[0], ctx.axes(2)[0])
    out = [rois[0].nonzero(), x[1]]
    return [[*out, *(ctx.frozen(n, _SAMPLED) for n in ctx.out_shape()[2:])]]


@rule("DeformConv")
def deformable_convolution(ctx: Context) -> list[list[Axis]]:
    """A convolution whose ``offset_group`` groups of input channels have offsets (and masks) of their own.

    https://onnx.ai/onnx/operators/onnx__DeformConv.html
    """
    x, w, offset = ctx.axes(0), ctx.axes(1), ctx.axes(2)
    group, offset_group = ctx.attr_int("group", 1), ctx.attr_int("offset_group", 1)
    for axis in (*x[2:], *w[2:], *offset[2:]):
        ctx.freeze(axis, WINDOW)
    if any(size % n for size, n in ((x[1].size, group), (x[1].size, offset_group), (w[0].size, group))):
        message = f"{x[1].size} channels don't divide into {group} and {offset_group} groups"
        raise Blocked(message)
    _offset_groups(ctx, x, offset, offset_group)
    if ctx.has(4):
        mask = ctx.axes(4)
        for axis in mask[2:]:
            ctx.freeze(axis, WINDOW)
        _offset_groups(ctx, x, mask, offset_group)
    out = channels_of(ctx, x[1], w[0], w[1], group)
    if ctx.has(3):
        bias = ctx.axes(3)[0]
        ctx.equate(out, bias)
        out = replace(out, zero=out.zero and bias.zero)
    batch = x[0].nonzero() if ctx.has(3) else x[0]
    return [[batch, out, *(ctx.frozen(n, WINDOW) for n in ctx.out_shape()[2:])]]


def _offset_groups(ctx: Context, x: list[Axis], offset: list[Axis], count: int) -> None:
    """Channels ``count * inner`` go with offsets ``count * window``."""
    ctx.equate(x[0], offset[0])
    groups, window = ctx.split(offset[1], (count, offset[1].size // count))
    ctx.freeze(window, WINDOW)
    if count > 1:
        ctx.equate(groups, ctx.split(x[1], (count, x[1].size // count))[0])
        ctx.tag(groups, "conv_groups")


@rule("CenterCropPad")
def center_crop_pad(ctx: Context) -> list[list[Axis]]:
    """An axis that keeps its size is carried; the others lose or gain positions at both ends.

    https://onnx.ai/onnx/operators/onnx__CenterCropPad.html
    """
    x, new = ctx.axes(0), ctx.out_shape()
    axes = ctx.attr_ints("axes")
    named = set(range(len(x))) if axes is None else {d % len(x) for d in axes}
    out = []
    for d, (axis, size) in enumerate(zip(x, new, strict=True)):
        if d not in named or (axis.size == size and not ctx.is_dynamic(d)):
            out.append(axis)
        else:
            ctx.freeze(axis, "it is cropped or padded to a given size")
            out.append(ctx.frozen(size, "it is cropped or padded to a given size"))
    return [out]


@rule("CumProd", since=26)
def cumulative_product(ctx: Context) -> list[list[Axis]]:
    """A product of all positions before; an exclusive one starts with 1.

    https://onnx.ai/onnx/operators/onnx__CumProd.html
    """
    at = ctx.ints(1)
    if at is None:
        message = "its axis is computed at run time"
        raise Blocked(message)
    x = list(ctx.axes(0))
    ctx.freeze(x[at[0]], "the order of positions along this axis matters")
    x[at[0]] = ctx.frozen(x[at[0]].size, "the order of positions along this axis matters")
    return [[axis.nonzero() for axis in x] if ctx.attr_int("exclusive", 0) else x]


@rule("Det")
def determinant(ctx: Context) -> list[list[Axis]]:
    """A number for each matrix in the last two axes.

    https://onnx.ai/onnx/operators/onnx__Det.html
    """
    x = ctx.axes(0)
    for axis in x[-2:]:
        ctx.freeze(axis, "a determinant needs the whole matrix")
    return [x[:-2]]


@rule("DFT", since=17)
def fourier_transform_attribute(ctx: Context) -> list[list[Axis]]:
    """Before opset 20 the axis is an attribute."""
    return _fourier_transform(ctx, ctx.attr_int("axis", 1))


@rule("DFT", since=20)
def fourier_transform(ctx: Context) -> list[list[Axis]]:
    """All axes but that of the signal are carried.

    https://onnx.ai/onnx/operators/onnx__DFT.html
    """
    at = ctx.ints(2) if ctx.has(2) else [-2]
    if at is None:
        message = "its axis is computed at run time"
        raise Blocked(message)
    return _fourier_transform(ctx, at[0])


def _fourier_transform(ctx: Context, at: int) -> list[list[Axis]]:
    x, new = list(ctx.axes(0)), ctx.out_shape()
    for d in (at % len(x), len(x) - 1):
        text = "a Fourier transform runs over this axis"
        ctx.freeze(x[d], text)
        x[d] = ctx.frozen(new[d], text)
    return [x]
