"""Attributes that count heads and dims, and the scale that was made from them."""

from __future__ import annotations

from math import sqrt

import numpy as np
import onnx_ir as ir

from graphprune.axes_kept import Mask
from graphprune.rewrite.context import RepairContext
from graphprune.rewrite.registry import repair


def kept_parts(mask: Mask | None, heads: int, hidden: int) -> tuple[Mask, Mask]:
    """Which heads, and which dims of each head, stay of an axis of ``hidden`` positions."""
    table = np.ones(hidden, bool) if mask is None else mask
    table = table.reshape(heads, -1)
    return np.asarray(table.any(axis=1)), np.asarray(table.any(axis=0))


def count_heads(ctx: RepairContext, i: int, name: str) -> Mask:
    """Writes how many heads input ``i`` keeps.

    Args:
        ctx: the node.
        i: an input ``[B, S, H * D]`` or ``[B, H, S, D]``.
        name: the attribute that counts its heads; with four axes it may be absent.

    Returns:
        ``[D]`` mask of the kept dims of each head.
    """
    shape, masks = ctx.shape_in(i), ctx.keep_in[i]
    if len(shape) == 4:
        heads = np.ones(shape[1], bool) if masks[1] is None else masks[1]
        dims = np.ones(shape[3], bool) if masks[3] is None else masks[3]
    else:
        heads, dims = kept_parts(masks[-1], ctx.attr_int(name, 1), shape[-1])
    if ctx.attr_int(name, 0):
        ctx.set_attr(name, int(heads.sum()))
    return dims


def keep_scale(ctx: RepairContext, dims: Mask, *, zero_is_default: bool) -> None:
    """Scores keep their scale: the default one, ``1 / sqrt(D)``, is written out when dims go."""
    given = ctx.node.attributes.get("scale")
    is_default = given is None or (zero_is_default and given.as_float() == 0.0)
    if is_default and not dims.all():
        ctx.node.attributes["scale"] = ir.AttrFloat32("scale", 1.0 / sqrt(len(dims)))


@repair("Attention", since=23)
def attention(ctx: RepairContext) -> None:
    """``q_num_heads`` and ``kv_num_heads`` count what stays; ``scale`` is kept."""
    dims = count_heads(ctx, 0, "q_num_heads")
    count_heads(ctx, 1, "kv_num_heads")
    keep_scale(ctx, dims, zero_is_default=False)


@repair("RotaryEmbedding", since=23)
def rotary(ctx: RepairContext) -> None:
    """``num_heads`` and ``rotary_embedding_dim`` count what stays."""
    dims = count_heads(ctx, 0, "num_heads")
    width = ctx.attr_int("rotary_embedding_dim", 0)
    if width:
        ctx.set_attr("rotary_embedding_dim", int(dims[:width].sum()))
