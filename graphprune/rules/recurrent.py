"""Operators that carry a state along time: recurrent layers, linear attention, caches."""

from __future__ import annotations

from dataclasses import replace

from graphprune.algebra import Axis, merge
from graphprune.rules.context import Blocked, Context
from graphprune.rules.contraction import contract
from graphprune.rules.registry import rule

#: Gates per operator: the rows of W, R and B are ``gates * hidden``, the gate is the outer factor.
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
# Default activations, and those that decide whether a unit whose weights are all zero puts out zero:
# h = f(0); n = g(0), h = (1 - z) n + z h0; c = f c0 + i g(0), h = o h(c).
_ACTIVATIONS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
_DECISIVE = {"RNN": (0,), "GRU": (1,), "LSTM": (1, 2)}
_ZERO_TO_ZERO = {"tanh", "relu", "leakyrelu", "thresholdedrelu", "scaledtanh", "elu", "softsign"}

_TIME = "a recurrence runs over this axis"
_DIRECTIONS = "the directions are an attribute of the layer"
_CACHED = "positions along this axis are written at run time"


@rule("LSTM", "GRU", "RNN", since=7)
def recurrent(ctx: Context) -> list[list[Axis]]:
    """Hidden units are one axis for all gates, both directions, the recurrence and the states.

    A removed unit has no weights left: nothing reads it through R, whatever it holds.

    https://onnx.ai/onnx/operators/onnx__LSTM.html
    """
    gates = GATES[ctx.node.op_type]
    x, w, r = ctx.axes(0), ctx.axes(1), ctx.axes(2)
    batch_first = bool(ctx.attr_int("layout", 0))
    batch, time = (x[0], x[1]) if batch_first else (x[1], x[0])
    hidden = r[2] if r[2].size > 1 else ctx.frozen(1, "the layer has one hidden unit")
    directions = [w[0], r[0]]
    rows = [(w[1], gates), (r[1], gates)]
    for i, count in ((3, 2 * gates), (7, 3)):  # biases of W and R; peepholes of three gates
        if ctx.has(i):
            axes = ctx.axes(i)
            directions.append(axes[0])
            rows.append((axes[1], count))
    if ctx.has(4):
        ctx.equate(batch, ctx.axes(4)[0])
    for i in (5, 6):
        if ctx.has(i):
            outer, inner, units = ctx.axes(i)
            directions.append(inner if batch_first else outer)
            ctx.equate(batch, outer if batch_first else inner)
            rows.append((units, 1))
    ctx.freeze(time, _TIME)
    for axis in directions:
        ctx.freeze(axis, _DIRECTIONS)
    for axis, count in rows:
        if axis.size != count * hidden.size:
            message = f"{axis.size} rows are not {count} times {hidden.size} hidden units"
            raise Blocked(message)
        ctx.equate(axis, merge([ctx.plain(count), hidden]))
    contract(ctx, w[2], x[2])
    is_zero = all(axis.zero for axis, _ in rows) and _zero_stays_zero(ctx)
    units = replace(hidden, zero=is_zero)
    ctx.summed(hidden, units)
    batch = batch.nonzero()
    both = ctx.frozen(w[0].size, _DIRECTIONS)
    steps = ctx.frozen(time.size, _TIME)
    state = [batch, both, units] if batch_first else [both, batch, units]
    every = [batch, steps, both, units] if batch_first else [steps, both, batch, units]
    return [every, *(state for _ in ctx.node.outputs[1:])]


def _zero_stays_zero(ctx: Context) -> bool:
    """Do the activations behind the weights map 0 to 0, in each direction?"""
    op_type = ctx.node.op_type
    given = ctx.node.attributes.get("activations")
    names = list(given.as_strings()) if given is not None else []
    names = names or _ACTIVATIONS[op_type]
    count = len(_ACTIVATIONS[op_type])
    return all(
        name.lower() in _ZERO_TO_ZERO for i, name in enumerate(names) if i % count in _DECISIVE[op_type]
    )


@rule("CausalConvWithState", since=27)
def causal_convolution(ctx: Context) -> list[list[Axis]]:
    """A depthwise convolution along time with the last positions as its state.

    https://onnx.ai/onnx/operators/onnx__CausalConvWithState.html
    """
    x, w = ctx.axes(0), ctx.axes(1)
    batch, channels, time = x
    ctx.equate(channels, w[0])
    ctx.freeze(time, _TIME)
    ctx.freeze(w[2], _TIME)
    state_is_zero = channels.zero
    bias_is_zero = True
    if ctx.has(2):
        ctx.equate(channels, ctx.axes(2)[0])
        bias_is_zero = ctx.axes(2)[0].zero
    if ctx.has(3):
        past = ctx.axes(3)
        ctx.equate(batch, past[0])
        ctx.equate(channels, past[1])
        ctx.freeze(past[2], _TIME)
        state_is_zero = channels.zero and past[1].zero
    batch = batch.nonzero()
    out = replace(channels, zero=bias_is_zero and (state_is_zero or w[0].zero))
    state = replace(channels, zero=state_is_zero)
    return [
        [batch, out, ctx.frozen(time.size, _TIME)],
        [batch, state, ctx.frozen(w[2].size - 1, _TIME)],
    ]


@rule("LinearAttention", since=27)
def linear_attention(ctx: Context) -> list[list[Axis]]:
    """Packed heads: queries ``kv * repeats * dk``, keys ``kv * dk``, values ``kv * dv``.

    The state is ``[batch, kv, dk, dv]``.  Values pass through it, queries and keys meet in it.

    https://onnx.ai/onnx/operators/onnx__LinearAttention.html
    """
    query, key, value = ctx.axes(0), ctx.axes(1), ctx.axes(2)
    heads, repeats = _head_counts(ctx)
    kv, k_dim = ctx.split(key[2], (heads, key[2].size // heads))
    kv_of_value, v_dim = ctx.split(value[2], (heads, value[2].size // heads))
    kv_of_query, copies, q_dim = ctx.split(query[2], (heads, repeats, k_dim.size))
    for other in (kv_of_value, kv_of_query):
        ctx.equate(kv, other)
    ctx.equate(k_dim, q_dim)
    past_is_zero = True
    inputs = [query, key, value]
    if ctx.has(3):
        past = ctx.axes(3)
        for mine, other in zip((query[0], kv, k_dim, v_dim), past, strict=True):
            ctx.equate(mine, other)
        past_is_zero = all(axis.zero for axis in past)
    for i in (4, 5):  # decay per head or per key dim, update rate per head or for all
        if ctx.has(i):
            axes = ctx.axes(i)
            inputs.append(axes)
            if axes[2].size == heads * k_dim.size:
                ctx.equate(merge([kv, k_dim]), axes[2])
            elif axes[2].size != 1:
                ctx.equate(kv, axes[2])
    for axes in inputs:
        ctx.equate(query[0], axes[0])
        ctx.freeze(axes[1], _TIME)
    if not (key[2].zero and (query[2].zero or past_is_zero)):
        ctx.statistic(k_dim, "a sum runs over keys that are not zero when their unit is removed")
    for axis in (kv, copies):
        ctx.tag(axis, "heads")
    for axis in (k_dim, v_dim):
        ctx.tag(axis, "head_dim")
    value_is_zero = value[2].zero and past_is_zero
    key_is_zero = key[2].zero and past_is_zero
    batch = query[0].nonzero()
    packed = replace(merge([kv, copies, v_dim]), zero=value_is_zero and (query[2].zero or repeats == 1))
    state = [
        batch,
        replace(kv, zero=key_is_zero or value_is_zero),
        replace(k_dim, zero=key_is_zero),
        replace(v_dim, zero=value_is_zero),
    ]
    return [[batch, ctx.frozen(query[1].size, _TIME), packed], state]


def _head_counts(ctx: Context) -> tuple[int, int]:
    """Heads of keys and values, and query heads for each."""
    heads, all_heads = ctx.attr_int("kv_num_heads", 0), ctx.attr_int("q_num_heads", 0)
    if heads < 1 or all_heads % heads or any(ctx.shape(i)[2] % heads for i in (1, 2)):
        message = f"{all_heads} query heads don't fit {heads} heads of keys and values"
        raise Blocked(message)
    return heads, all_heads // heads


@rule("TensorScatter", since=24)
def tensor_scatter(ctx: Context) -> list[list[Axis]]:
    """A cache takes up new positions along ``axis``; everything else is carried.

    https://onnx.ai/onnx/operators/onnx__TensorScatter.html
    """
    cache, update = ctx.axes(0), ctx.axes(1)
    at = ctx.attr_int("axis", -2) % len(cache)
    if ctx.has(2):
        ctx.equate(cache[0], ctx.axes(2)[0])
    out = []
    for d, (old, new) in enumerate(zip(cache, update, strict=True)):
        if d == at:
            ctx.freeze(old, _CACHED)
            ctx.freeze(new, _CACHED)
            out.append(ctx.frozen(old.size, _CACHED))
        else:
            ctx.equate(old, new)
            out.append(replace(old, zero=old.zero and new.zero))
    return [out]
