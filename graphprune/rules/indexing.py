"""Operators that make or read positions: TopK, ArgMax, OneHot, Equal, GatherElements, GatherND, Scatter...

TopK and ArgMax return positions of an axis as numbers.  Whoever reads such a tensor as an index into another
axis has that axis tied to the first; whoever compares it with constants has a test per position.  In both
cases the numbers follow the cut, so that routers with their experts can shrink.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graphprune.algebra import Axis
from graphprune.rules.context import EMPTY, ZEROS, Blocked, Context
from graphprune.rules.elementwise import broadcast
from graphprune.rules.registry import rule

_LIST = "it lists what is written"
_RUNTIME = "it is indexed by values known only at run time"


@rule("TopK", since=10)
def top_k(ctx: Context) -> list[list[Axis]]:
    """The k largest of what is left along ``axis``, and their positions.

    https://onnx.ai/onnx/operators/onnx__TopK.html
    """
    x = list(ctx.axes(0))
    at = ctx.attr_int("axis", -1) % len(x)
    k = ctx.ints(1)
    if k is None:
        ctx.freeze(x[at], "how many are chosen is computed at run time")
    else:
        ctx.statistic(x[at], "the largest are chosen along this axis")
        ctx.at_least(x[at], k[0], f"the {k[0]} largest are chosen along this axis")
    ctx.makes_index(x[at], 1)
    chosen = ctx.frozen(ctx.out_shape()[at], "its positions are ranks")
    values = [*x[:at], chosen, *x[at + 1 :]]
    return [values, [a.nonzero() for a in values]]


@rule("ArgMax", "ArgMin")
def arg_max(ctx: Context) -> list[list[Axis]]:
    """The position of the largest of what is left along ``axis``."""
    x = ctx.axes(0)
    at = ctx.attr_int("axis", 0) % len(x)
    ctx.statistic(x[at], "the largest is chosen along this axis")
    ctx.makes_index(x[at])
    rest = [a.nonzero() for a in x]
    return [[*rest[:at], *([ctx.plain(1)] if ctx.attr_int("keepdims", 1) else []), *rest[at + 1 :]]]


@rule("OneHot", since=9)
def one_hot(ctx: Context) -> list[list[Axis]]:
    """A new axis, "on" at the position that the index says.

    https://onnx.ai/onnx/operators/onnx__OneHot.html
    """
    index, depth, values = list(ctx.axes(0)), ctx.ints(1), ctx.constant(2)
    at = ctx.attr_int("axis", -1) % (len(index) + 1)
    size = ctx.out_shape()[at]
    indexed = ctx.index_of(0)
    off_is_zero = values is not None and not values.reshape(-1)[0]
    new = ctx.frozen(size, "its positions are classes")
    if indexed is not None:
        if depth is None or depth[0] != indexed.size:
            ctx.freeze(indexed, "its positions are classes")
        else:
            ctx.indexed.add(0)
            ctx.tag(indexed, "experts")
            new = replace(indexed, zero=off_is_zero)
    index = [a.nonzero() for a in index]
    return [[*index[:at], new, *index[at:]]]


@rule("Equal", since=7)
def equal(ctx: Context) -> list[list[Axis]]:
    """The operands' axes become equal; positions compared with constants make an axis of these positions."""
    for i, other in ((0, 1), (1, 0)):
        indexed = ctx.index_of(i)
        if indexed is not None:
            return _compared(ctx, indexed, i, other)
    return [broadcast(ctx, (0, 1), zero="never")]


def _compared(ctx: Context, indexed: Axis, i: int, other: int) -> list[list[Axis]]:
    given = ctx.constant(other)
    numbers = None if given is None else np.asarray(given, np.int64)
    out = broadcast(ctx, (0, 1), zero="never")
    long = [] if numbers is None else [d for d, n in enumerate(numbers.shape) if n > 1]
    if numbers is None or len(long) > 1 or (numbers < 0).any() or (numbers >= indexed.size).any():
        ctx.freeze(indexed, "its positions are compared with other numbers")
        return [out]
    ctx.indexed.add(i)
    ctx.tag(indexed, "experts")
    # Equal to a removed position is false everywhere, since no index points there.
    tested = replace(indexed.take(numbers.reshape(-1)), zero=True)
    if not long:
        ctx.single(tested)
        return [out]
    back = numbers.ndim - long[0]
    ctx.equate(ctx.axes(other)[long[0]], tested)
    if back <= len(ctx.shape(i)) and ctx.shape(i)[-back] != 1:
        ctx.freeze(indexed, "its positions are compared with other numbers")
    elif not out[-back].is_plain:
        out[-back] = replace(out[-back], zero=True)
    return [out]


@rule("GatherElements", since=11)
def gather_elements(ctx: Context) -> list[list[Axis]]:
    """``out[i][j] = x[index[i][j]][j]``: along ``axis`` any position may be asked for.

    https://onnx.ai/onnx/operators/onnx__GatherElements.html
    """
    x, index = ctx.axes(0), list(ctx.axes(1))
    at = ctx.attr_int("axis", 0) % len(x)
    _follow_index(ctx, x, index, at, 1)
    # A zero among the indices reads a position like any other.
    return [[replace(b, zero=d != at and a.zero) for d, (a, b) in enumerate(zip(x, index, strict=True))]]


@rule("ScatterElements", since=11)
@rule("Scatter", since=9)
def scatter_elements(ctx: Context) -> list[list[Axis]]:
    """``out = x; out[index[i][j]][j] = updates[i][j]``; without updates it is ``x``.

    https://onnx.ai/onnx/operators/onnx__ScatterElements.html
    """
    x, index, updates = ctx.axes(0), ctx.axes(1), ctx.axes(2)
    at = ctx.attr_int("axis", 0) % len(x)
    for a, b in zip(index, updates, strict=True):
        ctx.equate(a, b)
    _follow_index(ctx, x, list(index), at, 1)
    ctx.freeze(index[at], _LIST)
    ctx.drops(1, EMPTY, dies=False)
    ctx.drops(2, EMPTY, *([ZEROS] if ctx.attr_str("reduction", "none") == "add" else []), dies=False)
    zero = [a.zero and (d == at or u.zero) for d, (a, u) in enumerate(zip(x, updates, strict=True))]
    return [[a if z else a.nonzero() for a, z in zip(x, zero, strict=True)]]


def _follow_index(ctx: Context, x: list[Axis], index: list[Axis], at: int, i: int) -> None:
    if not ctx.looks_up(x[at], i):
        ctx.freeze(x[at], _RUNTIME)
    for d, (a, b) in enumerate(zip(x, index, strict=True)):
        if d == at:
            continue
        if a.size == b.size:
            ctx.equate(a, b)
        else:  # positions 0..m of n
            ctx.freeze(a, "only its first positions are used")
            ctx.freeze(b, "only its first positions are used")


@rule("GatherND", since=11)
def gather_nd(ctx: Context) -> list[list[Axis]]:
    """Index tuples in the last axis of the indices; behind ``batch_dims`` equal axes.

    https://onnx.ai/onnx/operators/onnx__GatherND.html
    """
    x, index = ctx.axes(0), ctx.axes(1)
    batch = ctx.attr_int("batch_dims", 0)
    depth = index[-1].size
    for d in range(batch):
        ctx.equate(x[d], index[d])
    ctx.freeze(index[-1], "its positions are axes")
    reached = x[batch : batch + depth]
    if depth != 1 or not ctx.looks_up(reached[0], 1):
        for axis in reached:
            ctx.freeze(axis, _RUNTIME)
    carried = x[batch + depth :]
    chosen = [a.nonzero() for a in index[batch:-1]]  # index 0 reads a row like any other
    return [[*x[:batch], *chosen, *carried]]


@rule("ScatterND", since=11)
def scatter_nd(ctx: Context) -> list[list[Axis]]:
    """Slices of ``x`` are replaced (or added to) where the indices say; without updates it is ``x``.

    https://onnx.ai/onnx/operators/onnx__ScatterND.html
    """
    x, index, updates = ctx.axes(0), ctx.axes(1), ctx.axes(2)
    depth = index[-1].size
    ctx.freeze(index[-1], "its positions are axes")
    for axis in x[:depth]:
        ctx.freeze(axis, _RUNTIME)
    for axis in index[:-1]:
        ctx.freeze(axis, _LIST)
    for a, b in zip([*index[:-1], *x[depth:]], updates, strict=True):
        ctx.equate(a, b)
    ctx.drops(1, EMPTY, dies=False)
    ctx.drops(2, EMPTY, *([ZEROS] if ctx.attr_str("reduction", "none") == "add" else []), dies=False)
    pairs = zip(x[depth:], updates[len(index) - 1 :], strict=True)
    return [[*x[:depth], *(a if a.zero and u.zero else a.nonzero() for a, u in pairs)]]


@rule("Compress")
def compress(ctx: Context) -> list[list[Axis]]:
    """A mask chooses at run time."""
    x = ctx.axes(0)
    at = ctx.node.attributes.get("axis")
    if at is None:
        message = "a mask chooses among all elements"
        raise Blocked(message)
    ctx.freeze(x[at.as_int() % len(x)], _RUNTIME)
    d = at.as_int() % len(x)
    return [[*x[:d], ctx.frozen(ctx.out_shape()[d], _RUNTIME), *x[d + 1 :]]]
