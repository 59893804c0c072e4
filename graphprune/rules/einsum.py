"""Einsum: labels say which axes are equal, which are summed and which are carried."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from graphprune.algebra import Axis
from graphprune.rules.context import Blocked, Context
from graphprune.rules.registry import rule

_ELLIPSIS = "..."


def parse(equation: str, ranks: Sequence[int]) -> tuple[list[list[str]], list[str]]:
    """Labels of the axes of each operand and of the result.

    An axis under an ellipsis is labelled by its distance from the ellipsis' right end (``...1`` is the last).

    Args:
        equation: in numpy's notation, with or without ``->``; spaces don't count.
        ranks: number of axes of each operand.

    Raises:
        ValueError: the equation is malformed, or does not fit the ranks.

    >>> parse("...ij,jk", [3, 2])
    ([['...1', 'i', 'j'], ['j', 'k']], ['...1', 'i', 'k'])
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        message = f"'{equation}' is for {len(terms)} operands, not {len(ranks)}"
        raise ValueError(message)
    operands = [_labels(term, rank) for term, rank in zip(terms, ranks, strict=True)]
    counts = Counter(label for labels in operands for label in labels)
    widest = sum(1 for label in counts if label.startswith(_ELLIPSIS))
    if not arrow:
        once = sorted(label for label, n in counts.items() if n == 1 and not label.startswith(_ELLIPSIS))
        right = _ELLIPSIS + "".join(once)
    out = _labels(right, len(right.replace(_ELLIPSIS, "")) + (widest if _ELLIPSIS in right else 0))
    if len(set(out)) < len(out) or not set(out) <= set(counts):
        message = f"the result of '{equation}' repeats a label, or has one that no operand has"
        raise ValueError(message)
    return operands, out


def _labels(term: str, rank: int) -> list[str]:
    before, dots, after = term.partition(_ELLIPSIS)
    hidden = rank - len(before) - len(after)
    if hidden < 0 or (hidden and not dots) or not set(before + after) <= set(string.ascii_letters):
        message = f"'{term}' does not fit an operand of {rank} axes"
        raise ValueError(message)
    return [*before, *(f"{_ELLIPSIS}{n}" for n in range(hidden, 0, -1)), *after]


@rule("Einsum")
def einsum(ctx: Context) -> list[list[Axis]]:
    """Axes under one label become equal; a product is zero where any of its factors is.

    https://onnx.ai/onnx/operators/onnx__Einsum.html
    """
    inputs = [ctx.axes(i) for i in range(ctx.n_inputs)]
    try:
        operands, out = parse(ctx.attr_str("equation", ""), [len(axes) for axes in inputs])
    except ValueError as error:
        raise Blocked(str(error)) from error
    found: dict[str, list[Axis]] = {}
    for labels, axes in zip(operands, inputs, strict=True):
        for label, axis in zip(labels, axes, strict=True):
            found.setdefault(label, []).append(axis)
    of_label = {label: _meet(ctx, axes) for label, axes in found.items()}
    for label, axis in of_label.items():
        if label not in out:
            ctx.summed(axis)
    if ctx.n_inputs > 1 and not any(
        ctx.is_constant(i) or ctx.is_computed_weight(i) for i in range(ctx.n_inputs)
    ):
        for label, axis in of_label.items():
            in_all = label in out and all(label in labels for labels in operands)
            ctx.tag(axis, "heads" if in_all else "head_dim")
    return [[of_label[label] for label in out]]


def _meet(ctx: Context, axes: list[Axis]) -> Axis:
    """One axis for a label; those of size 1 repeat."""
    meeting = [axis for axis in axes if axis.size != 1]
    for other in meeting[1:]:
        ctx.equate(meeting[0], other)
    best = next((axis for axis in meeting if axis.is_plain), meeting[0] if meeting else axes[0])
    return replace(best, zero=any(axis.zero for axis in meeting)) if meeting else best
