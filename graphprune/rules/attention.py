"""Scaled dot-product attention and rotary embeddings as one operator each.

Queries and keys share their dims, which are summed over; values have dims of their own; a head goes with its
query, key and value. Where several query heads read one key head, the query heads are a product of the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from graphprune.algebra import Axis, merge
from graphprune.rules.context import Blocked, Context
from graphprune.rules.contraction import contract
from graphprune.rules.registry import rule

KEYS = "a softmax runs over the keys, in their order"
ROW_OF_TABLE = "a position picks its row of the table at run time"


@dataclass(frozen=True)
class Heads:
    """The two factors of a hidden axis: heads, and the dims within each."""

    heads: Axis
    dims: Axis

    @property
    def hidden(self) -> Axis:
        """Both as one axis, heads outermost."""
        return merge([self.heads, self.dims])


def split_heads(ctx: Context, hidden: Axis, heads: int) -> Heads:
    """A hidden axis as heads times dims.

    Raises:
        Blocked: it is no multiple of the number of heads.
    """
    if heads < 1 or hidden.size % heads:
        message = f"{hidden.size} positions are no product with {heads} heads"
        raise Blocked(message)
    return Heads(*ctx.split(hidden, (heads, hidden.size // heads)))


def with_past(ctx: Context, parts: Heads, past: Heads) -> Heads:
    """New keys or values behind cached ones: the axes are equal, and zero where both are."""
    ctx.equate(parts.heads, past.heads)
    ctx.equate(parts.dims, past.dims)
    return Heads(
        replace(parts.heads, zero=parts.heads.zero and past.heads.zero),
        replace(parts.dims, zero=parts.dims.zero and past.dims.zero),
    )


def attend(ctx: Context, q: Heads, k: Heads, v: Heads) -> Heads:
    """``softmax(q @ k') @ v`` per head; the heads of q may be a multiple of those of k and v."""
    contract(ctx, q.dims, k.dims)
    ctx.equate(k.heads, v.heads)
    heads = v.heads
    if q.heads.size == k.heads.size:
        ctx.equate(q.heads, k.heads)
    else:
        if q.heads.size % max(k.heads.size, 1):
            message = f"{q.heads.size} query heads are no multiple of {k.heads.size} key heads"
            raise Blocked(message)
        shared, _ = ctx.split(q.heads, (k.heads.size, q.heads.size // k.heads.size))
        ctx.equate(shared, k.heads)
        # A query head that goes alone still averages values that are not zero.
        heads = q.heads.nonzero()
    for axis in (q.heads, k.heads):
        ctx.tag(axis, "heads")
    for axis in (q.dims, v.dims):
        ctx.tag(axis, "head_dim")
    return Heads(heads, v.dims)


def equate_unless_one(ctx: Context, a: Axis, b: Axis) -> None:
    """``b`` is broadcast to ``a``."""
    if b.size != 1:
        ctx.equate(a, b)


@dataclass(frozen=True)
class _Operand:
    """Queries, keys or values, from ``[B, H, S, D]`` or ``[B, S, H * D]``."""

    batch: Axis
    sequence: Axis
    parts: Heads


def _operand(ctx: Context, i: int, heads: str, past: int | None = None) -> _Operand:
    x = ctx.axes(i)
    if len(x) not in (3, 4):
        message = f"input {i} has {len(x)} axes, neither 3 nor 4"
        raise Blocked(message)
    sequence = x[2] if len(x) == 4 else x[1]
    parts = Heads(x[1], x[3]) if len(x) == 4 else split_heads(ctx, x[2], ctx.attr_int(heads, 0))
    if past is None or not ctx.has(past):
        return _Operand(x[0], sequence, parts)
    cache = ctx.axes(past)
    ctx.equate(x[0], cache[0])
    ctx.freeze(cache[2], KEYS)
    batch = replace(x[0], zero=x[0].zero and cache[0].zero)
    return _Operand(batch, sequence, with_past(ctx, parts, Heads(cache[1], cache[3])))


@rule("Attention", since=23)
def attention(ctx: Context) -> list[list[Axis]]:
    """``softmax(q @ k' * scale + mask) @ v`` with an optional key-value cache.

    https://onnx.ai/onnx/operators/onnx__Attention.html
    """
    q = _operand(ctx, 0, "q_num_heads")
    k, v = (_operand(ctx, i, "kv_num_heads", past=3 + i) for i in (1, 2))
    made = attend(ctx, q.parts, k.parts, v.parts)
    for other in (k, v):
        ctx.equate(q.batch, other.batch)
        ctx.freeze(other.sequence, KEYS)
    windows = [ctx.attr_int(f"{side}_window_size", -1) for side in ("left", "right")]
    if ctx.attr_int("is_causal", 0) or max(windows) >= 0:
        ctx.freeze(q.sequence, "a causal mask or a window counts positions along this axis")
    if ctx.has(6):  # nonpad_kv_seqlen counts keys per sample, and places the causal mask
        ctx.equate(q.batch, ctx.axes(6)[0])
    if ctx.has(3):
        mask = ctx.axes(3)
        for axis in mask[-1:]:
            ctx.freeze(axis, KEYS)
        for axis, masked in zip((q.sequence, q.parts.heads, q.batch), reversed(mask[:-1]), strict=False):
            equate_unless_one(ctx, axis, masked)
    sequence = q.sequence.nonzero()
    hidden = [sequence, made.hidden] if len(ctx.axes(0)) == 3 else [made.heads, sequence, made.dims]
    out = [[v.batch, *hidden]]
    for i, operand in ((1, k), (2, v)):
        if i < len(ctx.node.outputs):
            out.append(_present(ctx, i, operand))
    if len(ctx.node.outputs) > 3 and ctx.node.outputs[3].name:
        total = ctx.frozen(ctx.out_shape(3)[3], KEYS)
        out.append([q.batch.nonzero(), q.parts.heads.nonzero(), sequence, total])
    return out


def _present(ctx: Context, i: int, operand: _Operand) -> list[Axis]:
    """Output ``i``: the keys or values that were cached, and the new ones."""
    if not ctx.node.outputs[i].name:
        return []
    total = ctx.frozen(ctx.out_shape(i)[2], KEYS)
    return [operand.batch, operand.parts.heads, total, operand.parts.dims]


def rotate(ctx: Context, dims: Axis, tables: Sequence[Axis], width: int, *, interleaved: bool) -> None:
    """The first ``width`` dims of a head are turned in pairs, each pair by one column of the tables.

    The rest is not turned. A head needs an even size, so it goes in pairs too.
    """
    if width % 2 or width > dims.size:
        message = f"{width} of {dims.size} dims can't be turned in pairs"
        raise Blocked(message)
    order = np.arange(width)
    first, second = (order[::2], order[1::2]) if interleaved else np.split(order, 2)
    pairs = dims.take(first)
    for other in (dims.take(second), *tables):
        ctx.equate(pairs, other)
    rest = dims.take(np.arange(width, dims.size))
    even = rest.size // 2 * 2
    ctx.equate(rest.take(np.arange(0, even, 2)), rest.take(np.arange(1, even, 2)))
    if rest.size % 2:
        ctx.freeze(rest.take(np.arange(even, rest.size)), "a head keeps an even number of dims")
    ctx.tag(dims, "head_dim")


@rule("RotaryEmbedding", since=23)
def rotary(ctx: Context) -> list[list[Axis]]:
    """Pairs of dims are turned by angles from a table; the first dims only if told so.

    https://onnx.ai/onnx/operators/onnx__RotaryEmbedding.html
    """
    x = ctx.axes(0)
    if len(x) == 4:
        batch, heads, sequence, dims = x
        out = x
    else:
        batch, sequence, hidden = x
        parts = split_heads(ctx, hidden, ctx.attr_int("num_heads", 0))
        heads, dims = parts.heads, parts.dims
        out = [batch, sequence, parts.hidden]
    width = ctx.attr_int("rotary_embedding_dim", 0) or dims.size
    tables = [ctx.axes(i) for i in (1, 2)]
    rotate(ctx, dims, [t[-1] for t in tables], width, interleaved=bool(ctx.attr_int("interleaved", 0)))
    ctx.tag(heads, "heads")
    for table in tables:
        if ctx.has(3):
            ctx.freeze(table[0], ROW_OF_TABLE)
        else:
            equate_unless_one(ctx, batch, table[0])
            equate_unless_one(ctx, sequence, table[1])
    if ctx.has(3):
        positions = ctx.axes(3)
        equate_unless_one(ctx, batch, positions[0])
        equate_unless_one(ctx, sequence, positions[1])
    return [out]
