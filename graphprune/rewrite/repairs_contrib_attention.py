"""Repairs of onnxruntime's fused attention (domain com.microsoft): heads, sizes and scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphprune.axes_kept import Mask
from graphprune.rewrite.context import RepairContext
from graphprune.rewrite.registry import repair
from graphprune.rewrite.repairs_attention import count_heads, keep_scale, kept_parts

DOMAIN = "com.microsoft"


def _pieces(ctx: RepairContext, i: int, sizes: Sequence[int]) -> list[Mask]:
    """Kept positions of the last axis of input ``i``, cut into pieces."""
    mask = ctx.keep_in[i][-1]
    whole = np.ones(ctx.shape_in(i)[-1], bool) if mask is None else mask
    return np.split(whole, np.cumsum(sizes)[:-1])


@repair("Attention", "PackedAttention", "QAttention", domain=DOMAIN)
def packed_projection(ctx: RepairContext) -> None:
    """Heads and sizes are those of the columns that stay."""
    given = ctx.attr_ints("qkv_hidden_sizes")
    sizes = given or [ctx.shape_in(1)[-1] // 3] * 3
    kept = _pieces(ctx, 1, sizes)
    heads, dims = kept_parts(kept[0], ctx.attr_int("num_heads", 1), sizes[0])
    ctx.set_attr("num_heads", int(heads.sum()))
    new = [int(piece.sum()) for piece in kept]
    if given or len(set(new)) > 1:
        ctx.set_attr("qkv_hidden_sizes", new)
    keep_scale(ctx, dims, zero_is_default=True)


@repair(
    "MultiHeadAttention", "PackedMultiHeadAttention", "DecoderMaskedMultiHeadAttention", domain=DOMAIN
)  # fmt: skip
def multi_head(ctx: RepairContext) -> None:
    """``num_heads`` counts what stays; ``scale`` is kept."""
    shape, masks = ctx.shape_in(0), ctx.keep_in[0]
    if len(shape) >= 4:  # [.., H, 3, D]
        heads, dims = (
            np.ones(shape[d], bool) if (mask := masks[d]) is None else mask for d in (-3, -1)
        )  # fmt: skip
    else:
        heads, dims = kept_parts(masks[-1], ctx.attr_int("num_heads", 1), shape[-1])
    ctx.set_attr("num_heads", int(heads.sum()))
    keep_scale(ctx, dims, zero_is_default=True)


@repair("GroupQueryAttention", domain=DOMAIN)
def group_query(ctx: RepairContext) -> None:
    """``num_heads`` and ``kv_num_heads`` count what stays; ``scale`` is kept."""
    counts = {name: ctx.attr_int(name, 1) for name in ("num_heads", "kv_num_heads")}
    if ctx.has(1):
        kept = [_pieces(ctx, i, [ctx.shape_in(i)[-1]])[0] for i in (0, 1)]
    else:
        q, k = counts.values()
        width = ctx.shape_in(0)[-1] // (q + 2 * k)
        kept = _pieces(ctx, 0, [q * width, k * width, k * width])[:2]
    for (name, count), mask in zip(counts.items(), kept, strict=True):
        heads, dims = kept_parts(mask, count, len(mask))
        ctx.set_attr(name, int(heads.sum()))
    keep_scale(ctx, dims, zero_is_default=True)


@repair("RotaryEmbedding", domain=DOMAIN)
def rotary(ctx: RepairContext) -> None:
    """``num_heads`` and ``rotary_embedding_dim`` count what stays."""
    width = ctx.attr_int("rotary_embedding_dim", 0)
    dims = count_heads(ctx, 0, "num_heads")
    if width:
        ctx.set_attr("rotary_embedding_dim", int(dims[:width].sum()))
