"""Fused attention of onnxruntime (domain com.microsoft).

https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md

All of these keep batch and sequence as they are: masks, offsets and caches count their positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from graphprune.algebra import Axis
from graphprune.rules.attention import KEYS, Heads, attend, equate_unless_one, split_heads, with_past
from graphprune.rules.context import Blocked, Context
from graphprune.rules.contraction import contract
from graphprune.rules.quantized import real, scalar_only, vector
from graphprune.rules.registry import rule

DOMAIN = "com.microsoft"
_POSITIONS = "a fused attention counts batch and sequence positions"


def pieces(axis: Axis, sizes: Sequence[int]) -> list[Axis]:
    """Consecutive pieces of an axis.

    Raises:
        Blocked: the sizes don't add up to that of the axis.
    """
    if sum(sizes) != axis.size:
        message = f"{axis.size} positions are no sum of {tuple(sizes)}"
        raise Blocked(message)
    return [axis.take(index) for index in np.split(np.arange(axis.size), np.cumsum(sizes)[:-1])]


def hold(ctx: Context, axes: Sequence[Axis]) -> list[Axis]:
    """Axes of batch and sequence, which stay."""
    for axis in axes:
        ctx.freeze(axis, _POSITIONS)
    return [axis.nonzero() for axis in axes]


def add_to_scores(ctx: Context, i: int, heads: Axis) -> None:
    """An optional input ``[B or 1, H or 1, S, T]``."""
    if ctx.has(i):
        batch, over, *positions = ctx.axes(i)
        equate_unless_one(ctx, heads, over)
        hold(ctx, [batch, *positions])


def cached(ctx: Context, past: int, parts: Heads) -> Heads:
    """Keys or values behind those of input ``past``, ``[B, H, T, D]``, if that is there."""
    if not ctx.has(past):
        return parts
    old = ctx.axes(past)
    hold(ctx, [old[0], old[2]])
    return with_past(ctx, parts, Heads(old[1], old[3]))


def cache(ctx: Context, i: int, parts: Heads, batch: Axis) -> list[Axis]:
    """Output ``i``, ``[B, H, T, D]``, if there."""
    if i >= len(ctx.node.outputs) or not ctx.node.outputs[i].name:
        return []
    return [batch, parts.heads, ctx.frozen(ctx.out_shape(i)[2], KEYS), parts.dims]


def scores(ctx: Context, i: int, heads: Axis) -> list[list[Axis]]:
    """Output ``i``, ``[B, H, S, T]``, if there."""
    if i >= len(ctx.node.outputs) or not ctx.node.outputs[i].name:
        return []
    batch, _, *positions = ctx.out_shape(i)
    held = [ctx.frozen(n, _POSITIONS) for n in (batch, *positions)]
    return [[held[0], heads.nonzero(), *held[1:]]]


def _biased(ctx: Context, axis: Axis, bias: Axis) -> Axis:
    ctx.equate(axis, bias)
    return replace(axis, zero=axis.zero and bias.zero)


def packed_projection(
    ctx: Context, x: list[Axis], w: list[Axis], sizes: Sequence[int] | None, past: int | None
) -> list[list[Axis]]:
    """Input ``[.., K]``, weights ``[K, Q + K + V]``, bias: projection and attention in one.

    Args:
        ctx: the node.
        x: axes of its input.
        w: axes of its weights.
        sizes: of queries, keys and values; None: a third each.
        past: input with cached keys and values ``[2, B, H, T, D]``; None: the operator has none.
    """
    contract(ctx, x[-1], w[0])
    made = _biased(ctx, w[1], ctx.axes(2)[0]) if ctx.has(2) else w[1]
    heads = ctx.attr_int("num_heads", 0)
    q, k, v = (split_heads(ctx, p, heads) for p in pieces(made, sizes or [made.size // 3] * 3))
    ctx.inside(q.dims)
    lead = hold(ctx, x[:-1])
    has_present = len(ctx.node.outputs) > 1 and bool(ctx.node.outputs[1].name)
    if past is not None and ctx.has(past):
        old = ctx.axes(past)
        hold(ctx, [old[0], old[1], old[3]])
        k, v = (with_past(ctx, part, Heads(old[2], old[4])) for part in (k, v))
    parts = attend(ctx, q, k, v)
    out = [[*lead, parts.hidden]]
    if past is not None and has_present:
        ctx.equate(k.dims, v.dims)  # one tensor holds both
        both = with_past(ctx, k, v)
        shape = ctx.out_shape(1)
        two, total = (ctx.frozen(shape[d], _POSITIONS) for d in (0, 3))
        out.append([two, lead[0], both.heads, total, both.dims])
    return out


@rule("Attention", domain=DOMAIN)
def attention(ctx: Context) -> list[list[Axis]]:
    """Projection of queries, keys and values by one matrix, then attention."""
    _require_plain(ctx)
    out = packed_projection(ctx, ctx.axes(0), ctx.axes(1), ctx.attr_ints("qkv_hidden_sizes"), past=4)
    add_to_scores(ctx, 5, _projected_heads(ctx))
    return out


@rule("QAttention", domain=DOMAIN)
def quantized_attention(ctx: Context) -> list[list[Axis]]:
    """The same with input and weights in 8 bits, and a scale for all columns or for each."""
    _require_plain(ctx)
    x, w = real(ctx, 0, 6), real(ctx, 1, 7)
    for i in (3, 6):
        scalar_only(ctx, i)
    for i in (4, 7):
        vector(ctx, i, w[1])
    _, keys, values = pieces(w[1], [w[1].size // 3] * 3)
    ctx.equate(keys, values)  # it has no attribute for sizes that differ
    return packed_projection(ctx, x, w, None, past=8)


def _require_plain(ctx: Context) -> None:
    if ctx.attr_int("do_rotary", 0):
        message = "a rotary embedding inside it counts the dims of a head"
        raise Blocked(message)
    if ctx.attr_int("past_present_share_buffer", 0):
        message = "past and present share a buffer"
        raise Blocked(message)


@rule("PackedAttention", domain=DOMAIN)
def packed_attention(ctx: Context) -> list[list[Axis]]:
    """The same on ``[tokens, K]``, padding left out."""
    out = packed_projection(ctx, ctx.axes(0), ctx.axes(1), ctx.attr_ints("qkv_hidden_sizes"), past=None)
    add_to_scores(ctx, 5, _projected_heads(ctx))
    return out


def _projected_heads(ctx: Context) -> Axis:
    """Heads of the queries, which the first columns of the weights make."""
    made = ctx.axes(1)[1]
    sizes = ctx.attr_ints("qkv_hidden_sizes") or [made.size // 3] * 3
    return split_heads(ctx, made.take(np.arange(sizes[0])), ctx.attr_int("num_heads", 0)).heads


def _unpacked(ctx: Context, lead: int) -> tuple[Heads, Heads, Heads]:
    """Queries, keys and values of MultiHeadAttention, behind ``lead`` axes of tokens.

    Each is a hidden axis, or all in ``[.., H, 3, D]``, or keys and values in ``[.., H, 2, D]``, or these
    two as ``[B, H, T, D]``.
    """
    heads = ctx.attr_int("num_heads", 0)
    x = ctx.axes(0)
    hold(ctx, x[:lead])
    if len(x) == lead + 3:
        return (_stacked(ctx, x[lead:]),) * 3
    q = split_heads(ctx, x[-1], heads)
    if not ctx.has(1):
        message = "its keys are packed with the queries along one axis"
        raise Blocked(message)
    key = ctx.axes(1)
    if len(key) == lead + 3:
        hold(ctx, key[:lead])
        return q, *(_stacked(ctx, key[lead:]),) * 2
    if len(key) == 4:
        value = ctx.axes(2)
        hold(ctx, [key[0], key[2], value[0], value[2]])
        ctx.equate(key[3], value[3])  # one head size for both in this form
        return q, Heads(key[1], key[3]), Heads(value[1], value[3])
    value = ctx.axes(2)
    hold(ctx, [*key[:-1], *value[:-1]])
    return q, split_heads(ctx, key[-1], heads), split_heads(ctx, value[-1], heads)


def _stacked(ctx: Context, axes: Sequence[Axis]) -> Heads:
    heads, count, dims = axes
    ctx.freeze(count, "queries, keys and values are stacked here")
    return Heads(heads, dims)


def _multi_head(
    ctx: Context, *, lead: int, bias: int, over: int, past: int | None, shared: bool = False
) -> list[list[Axis]]:
    q, k, v = _unpacked(ctx, lead)
    if ctx.has(bias):
        sizes = [part.hidden.size for part in (q, k, v)]
        added = pieces(ctx.axes(bias)[0], sizes)
        biased = []
        for part, piece in zip((q, k, v), added, strict=True):
            ctx.equate(part.hidden, piece)
            zero = piece.zero
            biased.append(Heads(*(replace(a, zero=a.zero and zero) for a in (part.heads, part.dims))))
        q, k, v = biased
    if past is not None and ctx.has(past):
        ctx.equate(k.dims, v.dims)  # one head size for both caches
        if shared:
            ctx.freeze(k.dims, "the buffer that past and present share interleaves them")
        k, v = cached(ctx, past, k), cached(ctx, past + 1, v)
    parts = attend(ctx, q, k, v)
    add_to_scores(ctx, over, q.heads)
    tokens = [a.nonzero() for a in ctx.axes(0)[:lead]]
    out = [[*tokens, parts.hidden]]
    if past is None:
        return out
    out += [cache(ctx, i, part, tokens[0]) for i, part in ((1, k), (2, v))]
    return out + scores(ctx, 3, q.heads)


@rule("MultiHeadAttention", domain=DOMAIN)
def multi_head(ctx: Context) -> list[list[Axis]]:
    """Attention on projected queries, keys and values, whose bias may be added here."""
    if ctx.has(8) or ctx.has(9):
        message = "past and present share a buffer"
        raise Blocked(message)
    return _multi_head(ctx, lead=2, bias=3, over=5, past=6)


@rule("PackedMultiHeadAttention", domain=DOMAIN)
def packed_multi_head(ctx: Context) -> list[list[Axis]]:
    """The same on ``[tokens, ..]``, padding left out."""
    return _multi_head(ctx, lead=1, bias=3, over=6, past=None)


@rule("DecoderMaskedMultiHeadAttention", domain=DOMAIN)
def decoder_multi_head(ctx: Context) -> list[list[Axis]]:
    """MultiHeadAttention for one query, with a buffer that past and present share."""
    return _multi_head(ctx, lead=2, bias=10, over=4, past=5, shared=True)
