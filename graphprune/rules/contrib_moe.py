"""Mixture of experts of onnxruntime (domain com.microsoft).

https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MoE
"""

from __future__ import annotations

import numpy as np

from graphprune.algebra import Axis
from graphprune.rules.context import Blocked, Context
from graphprune.rules.contraction import contract
from graphprune.rules.registry import rule

DOMAIN = "com.microsoft"
_TOKENS = "each token is routed by itself, in order"


def _experts(ctx: Context, inputs: tuple[int, ...]) -> Axis:
    """Axis 0 of the weights, and the last axis of the router's scores: whole experts."""
    scores = ctx.axes(1)
    experts = scores[-1]
    ctx.freeze(scores[0], _TOKENS)
    for i in inputs:
        if ctx.has(i):
            ctx.equate(experts, ctx.axes(i)[0])
    chosen = ctx.attr_int("k", 1)
    ctx.statistic(experts, f"the router picks {chosen} of these experts")
    ctx.at_least(experts, chosen, f"each token goes to {chosen} experts")
    ctx.tag(experts, "experts")
    return experts


def _inner(ctx: Context, axis: Axis, size: int) -> list[Axis]:
    """Gate and linear part of the first weights: interleaved, one behind the other, or only one."""
    if axis.size == size:
        return [axis]
    if axis.size != 2 * size:
        message = f"{axis.size} first and {size} second inner positions don't fit"
        raise Blocked(message)
    every = np.arange(axis.size)
    is_interleaved = ctx.attr_int("swiglu_fusion", 0) == 1
    return [axis.take(every[p::2] if is_interleaved else every[p * size :][:size]) for p in (0, 1)]


@rule("MoE", domain=DOMAIN)
def mixture(ctx: Context) -> list[list[Axis]]:
    """``fc2(activation(fc1(x)) * fc3(x))`` of the k best experts of each token.

    fc1 and fc3 are ``[E, I, H]``, fc2 is ``[E, H, I]``.
    """
    _experts(ctx, (2, 3, 4, 5, 6, 7))
    x, second = ctx.axes(0), ctx.axes(4)
    for axis in x[:-1]:
        ctx.freeze(axis, _TOKENS)
    hidden, inner = second[1], second[2]
    # The result has the shape of the input, so that both lose the same positions.
    ctx.equate(x[-1], hidden)
    for i in (2, 6):
        if not ctx.has(i):
            continue
        first = ctx.axes(i)
        contract(ctx, x[-1], first[2])
        for part in _inner(ctx, first[1], inner.size):
            ctx.equate(inner, part)
        if ctx.has(i + 1):
            ctx.equate(first[1], ctx.axes(i + 1)[1])
    ctx.summed(inner)
    ctx.inside(inner)
    if ctx.has(5):
        bias = ctx.axes(5)[1]
        ctx.equate(hidden, bias)
        hidden = hidden if bias.zero else hidden.nonzero()
    return [[*(axis.nonzero() for axis in x[:-1]), hidden]]


@rule("QMoE", domain=DOMAIN)
def quantized_mixture(ctx: Context) -> list[list[Axis]]:
    """The same on packed weights, of which whole experts can go."""
    by_expert = (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16)
    _experts(ctx, by_expert)
    if ctx.has(14):  # mixing weights apart from the scores that choose
        mixing = ctx.axes(14)
        ctx.freeze(mixing[0], _TOKENS)
        ctx.equate(ctx.axes(1)[-1], mixing[-1])
    if any(ctx.has(i) for i in range(17, ctx.n_inputs)):
        message = "its activations are quantized with scales of their own"
        raise Blocked(message)
    for i in by_expert:
        for axis in ctx.axes(i)[1:] if ctx.has(i) else ():
            ctx.freeze(axis, "the weights of an expert are packed into bytes and blocks")
    x = ctx.axes(0)
    for axis in x:
        ctx.freeze(axis, "the weights of an expert are packed into bytes and blocks")
    return [[axis.nonzero() for axis in x]]
