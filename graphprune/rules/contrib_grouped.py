"""Fused grouped-query attention and rotary embeddings of onnxruntime (domain com.microsoft)."""

from __future__ import annotations

import numpy as np

from graphprune.algebra import Axis
from graphprune.rules.attention import ROW_OF_TABLE, attend, rotate, split_heads
from graphprune.rules.context import Blocked, Context
from graphprune.rules.contrib_attention import DOMAIN, add_to_scores, cache, cached, hold, pieces, scores
from graphprune.rules.registry import rule

_BLOCKS = "a fused attention takes head sizes in whole blocks"


def in_blocks(ctx: Context, axis: Axis, size: int) -> None:
    """Consecutive positions go ``size`` at a time."""
    if axis.size % size:
        ctx.freeze(axis, _BLOCKS)
    else:
        ctx.equate(axis, axis.take(np.arange(axis.size) // size * size))


@rule("GroupQueryAttention", domain=DOMAIN)
def group_query(ctx: Context) -> list[list[Axis]]:
    """Attention with fewer heads for keys and values, and a rotary embedding inside if asked for.

    The kernels want head sizes that are multiples of 8, and 16 with a rotary embedding.
    """
    _require_plaincache(ctx)
    x = ctx.axes(0)
    counts = [ctx.attr_int(name, 0) for name in ("num_heads", "kv_num_heads", "kv_num_heads")]
    if ctx.has(1):
        hidden = [ctx.axes(i)[-1] for i in range(3)]
        hold(ctx, [*ctx.axes(1)[:-1], *ctx.axes(2)[:-1]])
    else:
        width = x[-1].size // max(sum(counts), 1)
        hidden = pieces(x[-1], [n * width for n in counts])
    q, k, v = (split_heads(ctx, axis, n) for axis, n in zip(hidden, counts, strict=True))
    lead = hold(ctx, x[:-1])
    ctx.equate(k.dims, v.dims)  # one head size for all
    k, v = cached(ctx, 3, k), cached(ctx, 4, v)
    parts = attend(ctx, q, k, v)
    if ctx.attr_int("do_rotary", 0):
        _rotate_in_blocks(ctx, q.dims)
    else:
        in_blocks(ctx, q.dims, 8)
    add_to_scores(ctx, 10, q.heads)
    if ctx.has(11):  # each head has a number that is added below its softmax
        ctx.equate(q.heads, ctx.axes(11)[0])
    out = [[*lead, parts.hidden]]
    out += [cache(ctx, i, part, lead[0]) for i, part in ((1, k), (2, v))]
    return out + scores(ctx, 3, q.heads)


def _require_plaincache(ctx: Context) -> None:
    if ctx.has(12) or ctx.has(13):
        message = "its cache is quantized"
        raise Blocked(message)
    if ctx.has(14) or ctx.has(15):
        message = "it normalises each query and key over the dims of a head"
        raise Blocked(message)


def _rotate_in_blocks(ctx: Context, dims: Axis) -> None:
    tables = [ctx.axes(i) for i in (7, 8)]
    width = 2 * tables[0][-1].size
    for table in tables:
        ctx.freeze(table[0], ROW_OF_TABLE)
    interleaved = bool(ctx.attr_int("rotary_interleaved", 0))
    rotate(ctx, dims, [table[-1] for table in tables], width, interleaved=interleaved)
    in_blocks(ctx, tables[0][-1], 8)
    in_blocks(ctx, dims.take(np.arange(width, dims.size)), 16)


@rule("RotaryEmbedding", domain=DOMAIN)
def rotary(ctx: Context) -> list[list[Axis]]:
    """Pairs of dims are turned by angles from a table, on ``[B, H, S, D]`` or ``[B, S, H * D]``."""
    x, tables = ctx.axes(0), [ctx.axes(i) for i in (2, 3)]
    width = ctx.attr_int("rotary_embedding_dim", 0) or 2 * tables[0][-1].size
    if len(x) == 4:
        heads, dims = x[1], x[3]
        hold(ctx, [x[0], x[2]])
        out = x
    else:
        count = ctx.attr_int("num_heads", 0) or x[2].size // width
        parts = split_heads(ctx, x[2], count)
        heads, dims = parts.heads, parts.dims
        hold(ctx, x[:2])
        out = [x[0], x[1], parts.hidden]
    for table in tables:
        ctx.freeze(table[0], ROW_OF_TABLE)
    interleaved = bool(ctx.attr_int("interleaved", 0))
    rotate(ctx, dims, [table[-1] for table in tables], width, interleaved=interleaved)
    ctx.tag(heads, "heads")
    return [out]
