"""Repairs of operators that sample space."""

from __future__ import annotations

from graphprune.rewrite.context import RepairContext
from graphprune.rewrite.registry import repair


@repair("DeformConv")
def groups_of_deformable_convolution(ctx: RepairContext) -> None:
    """``group`` and ``offset_group`` count the groups that stay."""
    for i, name in ((0, "group"), (2, "offset_group")):
        keep, groups = ctx.keep_in[i][1], ctx.attr_int(name, 1)
        if groups > 1 and keep is not None:
            ctx.set_attr(name, int(keep.reshape(groups, -1).any(axis=1).sum()))


@repair("CenterCropPad")
def center_crop_pad(ctx: RepairContext) -> None:
    """Target sizes of carried axes follow."""
    rank = len(ctx.shape_out())
    axes = ctx.attr_ints("axes")
    where = [d % rank for d in axes] if axes is not None else list(range(rank))
    sizes = ctx.new_sizes()
    ctx.patch_shape(1, {i: sizes[d] for i, d in enumerate(where) if d in sizes})
