"""Operators that move elements: Reshape, Transpose, Concat, Split, Slice, Gather, Pad, Expand, Tile."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from graphprune.algebra import Axis, concat, merge
from graphprune.rules.context import EMPTY, ZEROS, Blocked, Context
from graphprune.rules.registry import rule


def reshape_blocks(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Smallest runs of old and new axes that hold the same elements; axes of size 1 are left out.

    >>> reshape_blocks((2, 6, 4), (2, 3, 8))
    [([0], [0]), ([1, 2], [1, 2])]
    """
    left = [d for d, n in enumerate(old) if n != 1]
    right = [d for d, n in enumerate(new) if n != 1]
    blocks = []
    while left or right:
        a, b = [left.pop(0)], [right.pop(0)]
        size_a, size_b = old[a[0]], new[b[0]]
        while size_a != size_b:
            if size_a < size_b:
                a.append(left.pop(0))
                size_a *= old[a[-1]]
            else:
                b.append(right.pop(0))
                size_b *= new[b[-1]]
        blocks.append((a, b))
    return blocks


@rule("Flatten", "Squeeze", "Unsqueeze")
@rule("Reshape", since=5)
def reshape(ctx: Context) -> list[list[Axis]]:
    """Axes are merged into products and products are split, in the order of the elements.

    Shapes are those of the traced run, so it does not matter how the target shape is computed.
    """
    x, old, new = ctx.axes(0), ctx.shape(0), ctx.out_shape()
    if prod(old) != prod(new):
        message = f"{old} and {new} do not hold the same number of elements"
        raise Blocked(message)
    if 0 in old:
        message = "an empty tensor is reshaped"
        raise Blocked(message)
    out = [ctx.plain(1) for _ in new]
    for a, b in reshape_blocks(old, new):
        whole = x[a[0]] if len(a) == 1 else merge([x[d] for d in a])
        for d, axis in zip(b, ctx.split(whole, [new[d] for d in b]), strict=True):
            out[d] = axis
    return [out]


@rule("Transpose")
def transpose(ctx: Context) -> list[list[Axis]]:
    """Axes change places."""
    x = ctx.axes(0)
    perm = ctx.attr_ints("perm") or list(reversed(range(len(x))))
    return [[x[d] for d in perm]]


@rule("Concat", since=4)
def concatenate(ctx: Context) -> list[list[Axis]]:
    """A sum along ``axis``; all other axes are equal.  A piece that dies is a piece of removed positions."""
    inputs = [list(ctx.axes(i)) for i in range(ctx.n_inputs)]
    at = ctx.attr_int("axis", 0) % len(inputs[0])
    for i, axes in enumerate(inputs):
        life = ctx.life(i)
        if life is not None:
            ctx.drops(i, ZEROS, EMPTY, dies=False)
            axes[at] = merge([life, axes[at]])
    if _is_stack([axes[at] for axes in inputs]):
        made = ctx.fresh(len(inputs), zero=False)
        for i, axes in enumerate(inputs):
            axes[at] = ctx.optional(i, made.take(np.arange(i, i + 1)))
    out = []
    for d in range(len(inputs[0])):
        here = [axes[d] for axes in inputs]
        if d == at:
            axis = concat(here)
            needs_reason = not axis.why and any(a.is_plain for a in here)
            why = ctx.reason("a piece of it can't shrink") if needs_reason else axis.why
            out.append(replace(axis, why=why))
            continue
        for other in here[1:]:
            ctx.equate(here[0], other)
        best = next((a for a in here if a.is_plain), here[0])
        out.append(best if all(a.zero for a in here) else best.nonzero())
    return [out]


def _is_stack(pieces: list[Axis]) -> bool:
    """Single positions that nothing holds, one per input: each of them may be left out.

    Two are mostly halves that are put together again (rotary embeddings), and are tied anyway.
    """
    return len(pieces) > 2 and all(axis.size == 1 and axis.is_plain and not axis.why for axis in pieces)


@rule("Split", since=2)
def split(ctx: Context) -> list[list[Axis]]:
    """Consecutive pieces along ``axis``."""
    x = ctx.axes(0)
    at = ctx.attr_int("axis", 0) % len(x)
    out, start = [], 0
    for i in range(len(ctx.node.outputs)):
        size = ctx.out_shape(i)[at]
        if ctx.is_dynamic(at, i):
            ctx.freeze(x[at], "the sizes of its pieces are computed at run time")
        piece = _piece(ctx, x[at], np.arange(start, start + size), i)
        out.append([*x[:at], piece, *x[at + 1 :]])
        start += size
    return out


def _piece(ctx: Context, axis: Axis, index: np.ndarray, output: int = 0) -> Axis:
    """Chosen positions of an axis; without a single one the whole tensor is gone."""
    piece = axis.take(index)
    return ctx.single(piece, output) if len(index) == 1 else piece


@rule("Slice")
def slice_attributes(ctx: Context) -> list[list[Axis]]:
    """Before opset 10, starts, ends and axes are attributes."""
    starts, ends = ctx.attr_ints("starts") or [], ctx.attr_ints("ends") or []
    return _slice(ctx, starts, ends, ctx.attr_ints("axes"), None)


@rule("Slice", since=10)
def slice_inputs(ctx: Context) -> list[list[Axis]]:
    """https://onnx.ai/onnx/operators/onnx__Slice.html."""
    axes, steps = (ctx.ints(i) if ctx.has(i) else None for i in (3, 4))
    if ctx.has(3) and axes is None:
        message = "its axes are computed at run time"
        raise Blocked(message)
    if ctx.has(4) and steps is None:
        message = "its steps are computed at run time"
        raise Blocked(message)
    return _slice(ctx, ctx.ints(1), ctx.ints(2), axes, steps)


def _slice(
    ctx: Context,
    starts: list[int] | None,
    ends: list[int] | None,
    axes: list[int] | None,
    steps: list[int] | None,
) -> list[list[Axis]]:
    x, old, new = list(ctx.axes(0)), ctx.shape(0), ctx.out_shape()
    count = len(axes) if axes is not None else len(starts or ends or old)
    for i, d in enumerate(axes if axes is not None else range(count)):
        d %= len(x)
        if x[d].is_plain:
            x[d] = ctx.algebra.plain(new[d], x[d].why)
        elif starts is None or ends is None:
            ctx.freeze(x[d], "its start or end is computed at run time")
            x[d] = ctx.frozen(new[d], "its start or end is computed at run time")
        else:
            step = steps[i] if steps else 1
            # ONNX writes "to the beginning" with a negative step as a very negative end.
            end: int | None = ends[i]
            if step < 0 and ends[i] < -old[d]:
                end = None
            x[d] = _piece(ctx, x[d], np.arange(old[d])[slice(starts[i], end, step)])
    return [x]


@rule("Gather")
def gather(ctx: Context) -> list[list[Axis]]:
    """Constant indices choose positions; runtime indices may ask for any, so none can go.

    Indices that are known to be positions of some axis ask for those alone that are left of it.

    https://onnx.ai/onnx/operators/onnx__Gather.html
    """
    x = ctx.axes(0)
    at = ctx.attr_int("axis", 0) % len(x)
    shape = ctx.shape(1)
    index = ctx.constant(1)
    if ctx.looks_up(x[at], 1):
        chosen = [axis.nonzero() for axis in ctx.axes(1)]  # index 0 reads a row like any other
    elif index is None:
        ctx.freeze(x[at], "it is indexed by values known only at run time")
        chosen = [axis.nonzero() for axis in ctx.axes(1)]
    elif x[at].is_plain:
        chosen = [ctx.algebra.plain(n, x[at].why) for n in shape]
    else:
        flat = np.asarray(index, np.int64).reshape(-1) % x[at].size
        piece = _piece(ctx, x[at], flat)
        chosen = ctx.split(piece, shape) if shape else []
    return [[*x[:at], *chosen, *x[at + 1 :]]]


@rule("Pad")
def pad_attributes(ctx: Context) -> list[list[Axis]]:
    """Before opset 11 the paddings are an attribute."""
    return _pad(ctx, ctx.attr_ints("pads") or ctx.attr_ints("paddings"), None)


@rule("Pad", since=11)
def pad(ctx: Context) -> list[list[Axis]]:
    """https://onnx.ai/onnx/operators/onnx__Pad.html."""
    axes = ctx.ints(3) if ctx.has(3) else None
    if ctx.has(3) and axes is None:
        message = "its axes are computed at run time"
        raise Blocked(message)
    return _pad(ctx, ctx.ints(1), axes)


def _pad(ctx: Context, pads: list[int] | None, axes: list[int] | None) -> list[list[Axis]]:
    """New positions before and after: a sum with pieces that no parameter makes."""
    x, new = list(ctx.axes(0)), ctx.out_shape()
    where = [d % len(x) for d in axes] if axes is not None else list(range(len(x)))
    value = _pad_value(ctx)
    is_constant = ctx.attr_str("mode", "constant") == "constant"
    for i, d in enumerate(where):
        if x[d].is_plain:
            x[d] = ctx.algebra.plain(new[d], x[d].why)
            continue
        before, after = (pads[i], pads[i + len(where)]) if pads is not None else (-1, -1)
        if before == after == 0:
            continue
        if min(before, after) < 0 or not is_constant:
            ctx.freeze(x[d], "its padding depends on this axis")
            x[d] = ctx.frozen(new[d], "its padding depends on this axis")
            continue
        sides = [_padding(ctx, n, zero=value == 0) for n in (before, after)]
        x[d] = concat([sides[0], x[d], sides[1]])
    if value != 0:
        x = [a.nonzero() for a in x]
    return [x]


def _padding(ctx: Context, size: int, *, zero: bool) -> Axis:
    # A single padded position is made together with one that is dropped, so that it gets a unit of its own.
    return ctx.fresh(2, zero=zero).take(np.arange(1)) if size == 1 else ctx.fresh(size, zero=zero)


def _pad_value(ctx: Context) -> float | None:
    if ctx.opset < 11:
        attr = ctx.node.attributes.get("value")
        return 0.0 if attr is None else attr.as_float()
    return ctx.scalar(2) if ctx.has(2) else 0.0


@rule("Expand")
def expand(ctx: Context) -> list[list[Axis]]:
    """An axis of size 1 is repeated: new positions that no parameter makes."""
    x, new = ctx.axes(0), ctx.out_shape()
    x = [*(ctx.plain(1) for _ in range(len(new) - len(x))), *x]
    return [[_repeat(ctx, axis, n, d) for d, (axis, n) in enumerate(zip(x, new, strict=True))]]


def _repeat(ctx: Context, axis: Axis, size: int, d: int) -> Axis:
    if axis.size == size:
        return axis
    if ctx.is_dynamic(d):
        return ctx.frozen(size, "its size is that of an input")
    constant = ctx.constant(0)
    return ctx.fresh(size, zero=constant is not None and not constant.any())


@rule("Tile", since=6)
def tile(ctx: Context) -> list[list[Axis]]:
    """A whole axis is repeated: a product of the repetition and the axis."""
    x, new = ctx.axes(0), ctx.out_shape()
    out = []
    for d, (axis, n) in enumerate(zip(x, new, strict=True)):
        if axis.size == n:
            out.append(axis)
        elif ctx.is_dynamic(d):
            ctx.freeze(axis, "it is repeated as often as an input says")
            out.append(ctx.frozen(n, "its size is that of an input"))
        elif axis.size == 1:
            out.append(_repeat(ctx, axis, n, d))
        else:
            out.append(merge([ctx.fresh(n // axis.size, zero=False), axis]))
    return [out]
