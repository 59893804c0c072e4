"""Fused activations of onnxruntime (domain com.microsoft), which all map zero to zero.

https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

import numpy as np

from graphprune.algebra import Axis
from graphprune.rules.context import Blocked, Context
from graphprune.rules.elementwise import broadcast
from graphprune.rules.registry import rule

DOMAIN = "com.microsoft"


@rule("Gelu", "QuickGelu", "BiasGelu", "FastGelu", "BiasAdd", domain=DOMAIN)
def biased(ctx: Context) -> list[list[Axis]]:
    """An activation of a tensor, or of its sum with a bias and a residual."""
    return [broadcast(ctx, [i for i in range(ctx.n_inputs) if ctx.has(i)], zero="all")]


@rule("ScaledSiLU", domain=DOMAIN)
def scaled(ctx: Context) -> list[list[Axis]]:
    """An activation of a tensor times a number."""
    return [ctx.axes(0)]


@rule("GatedAdd", domain=DOMAIN)
def gated_add(ctx: Context) -> list[list[Axis]]:
    """``X + gate * Y`` with one gate per row."""
    broadcast(ctx, (0, 1, 2), zero="never")
    return [broadcast(ctx, (0, 1), zero="all")]


@rule("BiasSplitGelu", domain=DOMAIN)
def split_gelu(ctx: Context) -> list[list[Axis]]:
    """The first half of the channels times the activation of the second half."""
    x = broadcast(ctx, (0, 1), zero="all")
    channels = x[-1]
    if channels.size % 2:
        message = f"{channels.size} channels are no two halves"
        raise Blocked(message)
    left, right = (channels.take(half) for half in np.split(np.arange(channels.size), 2))
    ctx.equate(left, right)
    return [[*x[:-1], left]]
