"""Repairs of onnxruntime's other fused operators (domain com.microsoft)."""

from __future__ import annotations

from graphprune.rewrite.context import RepairContext
from graphprune.rewrite.registry import repair

DOMAIN = "com.microsoft"


def _count_groups(ctx: RepairContext, name: str, at: int) -> None:
    mask, groups = ctx.keep_in[0][at], ctx.attr_int(name, 1)
    if groups > 1 and mask is not None:
        ctx.set_attr(name, int(mask.reshape(groups, -1).any(axis=1).sum()))


@repair("FusedConv", domain=DOMAIN)
def fused_conv(ctx: RepairContext) -> None:
    """``group`` counts the groups that stay."""
    _count_groups(ctx, "group", 1)


@repair("NhwcConv", "NhwcFusedConv", domain=DOMAIN)
def channels_last_conv(ctx: RepairContext) -> None:
    """``group`` counts the groups that stay."""
    _count_groups(ctx, "group", -1)


@repair("GroupNorm", "SkipGroupNorm", domain=DOMAIN)
def groups_of_norm(ctx: RepairContext) -> None:
    """``groups`` counts the groups that stay."""
    _count_groups(ctx, "groups", -1 if ctx.attr_int("channels_last", 1) else 1)


@repair("MatMulNBits", domain=DOMAIN)
def matmul_bits(ctx: RepairContext) -> None:
    """``N`` and ``K`` are the new sizes."""
    for name, mask in (("N", ctx.keep_in[1][0]), ("K", ctx.keep_in[0][-1])):
        if mask is not None:
            ctx.set_attr(name, int(mask.sum()))
