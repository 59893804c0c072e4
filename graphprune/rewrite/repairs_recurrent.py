"""Repairs of operators that carry a state along time."""

from __future__ import annotations

from math import sqrt

import onnx_ir as ir

from graphprune.axes_kept import Mask
from graphprune.rewrite.context import RepairContext
from graphprune.rewrite.registry import repair


@repair("LSTM", "GRU", "RNN")
def hidden_size(ctx: RepairContext) -> None:
    """``hidden_size`` counts the units that stay."""
    keep = ctx.keep_in[2][2]
    if keep is not None and "hidden_size" in ctx.node.attributes:
        ctx.set_attr("hidden_size", int(keep.sum()))


@repair("LinearAttention")
def linear_attention(ctx: RepairContext) -> None:
    """Head counts follow, and a scale that came from the size of the keys stays what it was."""
    key_heads, query_heads = ctx.attr_int("kv_num_heads", 1), ctx.attr_int("q_num_heads", 1)
    scale = ctx.node.attributes.get("scale")
    if scale is None or scale.as_float() == 0.0:
        old = ctx.shape_in(1)[2] // key_heads
        ctx.node.attributes["scale"] = ir.AttrFloat32("scale", 1.0 / sqrt(old))
    ctx.set_attr("kv_num_heads", _heads_left(ctx.keep_in[1][2], key_heads))
    ctx.set_attr("q_num_heads", _heads_left(ctx.keep_in[0][2], query_heads))


def _heads_left(keep: Mask | None, heads: int) -> int:
    return heads if keep is None else int(keep.reshape(heads, -1).any(axis=1).sum())
