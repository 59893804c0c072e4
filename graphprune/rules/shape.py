"""Operators that read or make shapes, and sources of values."""

from __future__ import annotations

from graphprune.algebra import Axis
from graphprune.rules.context import Context
from graphprune.rules.registry import rule


@rule("Shape", "Size")
def shape(ctx: Context) -> list[list[Axis]]:
    """Sizes as numbers.  Where they go is checked by :mod:`graphprune.shape_uses`."""
    ctx.axes(0)
    return [[ctx.frozen(n, "a vector of sizes has an entry per axis") for n in ctx.out_shape()]]


@rule("ConstantOfShape")
def constant_of_shape(ctx: Context) -> list[list[Axis]]:
    """Equal values everywhere: positions that no parameter makes."""
    value = ctx.node.attributes.get("value")
    zero = value is None or not value.as_tensor().numpy().any()
    return [
        [
            ctx.frozen(n, "its size is that of an input") if ctx.is_dynamic(d) else ctx.fresh(n, zero=zero)
            for d, n in enumerate(ctx.out_shape())
        ]
    ]


@rule("Range", "NonZero", "EyeLike", "RandomNormal", "RandomUniform")
def numbered(ctx: Context) -> list[list[Axis]]:
    """Each position has a value of its own that a cut would shift."""
    if ctx.node.op_type in ("NonZero", "EyeLike"):
        for axis in ctx.axes(0):
            ctx.freeze(axis, "its output are positions along this axis")
    return [[ctx.frozen(n, "positions are numbered at run time") for n in ctx.out_shape()]]
