"""Operators that work element by element, with numpy broadcasting.

https://onnx.ai/onnx/repo-docs/Broadcasting.html: shapes are aligned at the right; an axis of size 1 repeats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphprune.algebra import Axis
from graphprune.rules.context import ZEROS, Blocked, Context
from graphprune.rules.registry import rule

# f(0) = 0: a slice that is zero stays zero.
ZERO_TO_ZERO = (
    "Abs", "Asin", "Asinh", "Atan", "Atanh", "Cast", "Ceil", "Celu",
    "Elu", "Erf", "Floor", "Gelu", "HardSwish", "Identity", "LeakyRelu", "Mish", "Neg", "Relu", "Round",
    "Selu", "Sign", "Sin", "Sinh", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu",
)  # fmt: skip
NOT_ZERO_TO_ZERO = (
    "Acos", "Acosh", "BitwiseNot", "Cos", "Cosh", "Exp", "HardSigmoid", "IsInf", "IsNaN", "Log", "Not",
    "BitCast", "Reciprocal", "Shrink", "Sigmoid", "Softplus",
)  # fmt: skip


def broadcast(ctx: Context, operands: Sequence[int], *, zero: str) -> list[Axis]:
    """Axes of the broadcast result of some inputs, which become equal where they meet.

    Args:
        ctx: the node.
        operands: input indices.
        zero: when a removed slice of the result is zero: "all" operands are (Add), "any" is (Mul),
            "first" is (Div), or "never" (Equal).
    """
    return broadcast_axes(ctx, [ctx.axes(i) for i in operands], zero=zero)


def broadcast_axes(ctx: Context, axes: Sequence[list[Axis]], *, zero: str) -> list[Axis]:
    """The same for operands whose axes are given."""
    rank = max(len(a) for a in axes)
    out = []
    for back in range(rank, 0, -1):
        here = [a[-back] if back <= len(a) else None for a in axes]
        meeting = [a for a in here if a is not None and a.size != 1]
        if not meeting:
            out.append(ctx.plain(0 if any(a is not None and a.size == 0 for a in here) else 1))
            continue
        for other in meeting[1:]:
            ctx.equate(meeting[0], other)
        best = next((a for a in meeting if a.is_plain), meeting[0])
        covers = [a is not None and a.size == best.size and a.zero for a in here]
        is_zero = {"all": all(covers), "any": any(covers), "first": covers[0], "never": False}[zero]
        out.append(best if best.is_plain or best.zero == is_zero else replace(best, zero=is_zero))
    return out


def pass_through(ctx: Context, axes: list[Axis]) -> list[list[Axis]]:
    """The same axes at every output."""
    return [axes for _ in ctx.node.outputs]


@rule(*ZERO_TO_ZERO)
def unary(ctx: Context) -> list[list[Axis]]:
    """Every axis is carried; zero stays zero."""
    return pass_through(ctx, ctx.axes(0))


@rule(*NOT_ZERO_TO_ZERO)
def unary_nonzero(ctx: Context) -> list[list[Axis]]:
    """Every axis is carried; a zero slice becomes something else."""
    return pass_through(ctx, [a.nonzero() for a in ctx.axes(0)])


@rule("CastLike")
def cast_like(ctx: Context) -> list[list[Axis]]:
    """The second operand gives its type only."""
    if not ctx.is_constant(1):
        ctx.axes(1)
    return pass_through(ctx, ctx.axes(0))


@rule("Dropout")
def dropout(ctx: Context) -> list[list[Axis]]:
    """Every axis is carried; the mask is true where the data is zero."""
    if ctx.has(2) and ctx.scalar(2) != 0:
        message = "training_mode is not known to be off"
        raise Blocked(message)
    x = ctx.axes(0)
    return [x, *([a.nonzero() for a in x] for _ in ctx.node.outputs[1:])]


@rule("Clip")
def clip(ctx: Context) -> list[list[Axis]]:
    """Zero stays zero when it lies between the bounds."""
    if ctx.opset >= 11:
        low, high = (ctx.scalar(i) if ctx.has(i) else 0.0 for i in (1, 2))
    else:
        attributes = ctx.node.attributes
        low, high = (attributes[n].as_float() if n in attributes else 0.0 for n in ("min", "max"))
    keeps_zero = low is not None and high is not None and low <= 0.0 <= high
    return pass_through(ctx, ctx.axes(0) if keeps_zero else [a.nonzero() for a in ctx.axes(0)])


@rule("Add", "Sub", "Sum", "Max", "Min", "Mean", "BitwiseOr", "BitwiseXor", "Or", "Xor", since=7)
def additive(ctx: Context) -> list[list[Axis]]:
    """The operands' axes become equal; the result is zero where all operands are.

    A sum of tensors of its own shape works as well without those that are zero.
    """
    if ctx.node.op_type in ("Add", "Sum") and all(ctx.is_whole(i) for i in range(ctx.n_inputs)):
        for i in range(ctx.n_inputs):
            ctx.drops(i, ZEROS)
    return [broadcast(ctx, range(ctx.n_inputs), zero="all")]


@rule("SwiGLU", since=28)
@rule("Mul", "And", "BitwiseAnd", since=7)
def multiplicative(ctx: Context) -> list[list[Axis]]:
    """The operands' axes become equal; the result is zero where any operand is."""
    return [broadcast(ctx, range(ctx.n_inputs), zero="any")]


@rule("Div", "Mod", "PRelu", "BitShift", since=7)
def first_decides(ctx: Context) -> list[list[Axis]]:
    """The operands' axes become equal; the result is zero where the first operand is."""
    return [broadcast(ctx, (0, 1), zero="first")]


@rule("Pow", since=7)
def power(ctx: Context) -> list[list[Axis]]:
    """Zero to a positive power is zero."""
    exponent = ctx.scalar(1)
    return [broadcast(ctx, (0, 1), zero="first" if exponent and exponent > 0 else "never")]


@rule("Greater", "GreaterOrEqual", "Less", "LessOrEqual", since=7)
def compare(ctx: Context) -> list[list[Axis]]:
    """The operands' axes become equal."""
    return [broadcast(ctx, (0, 1), zero="never")]


@rule("Where")
def where(ctx: Context) -> list[list[Axis]]:
    """Condition and both branches become equal; zero where both branches are."""
    out = broadcast(ctx, (0, 1, 2), zero="never")
    branches = broadcast(ctx, (1, 2), zero="all")
    for back, branch in enumerate(reversed(branches), start=1):
        if branch.size == out[-back].size and branch.zero and not out[-back].is_plain:
            out[-back] = replace(out[-back], zero=True)
    return [out]
