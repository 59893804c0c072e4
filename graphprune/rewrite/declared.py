"""The repair that a user's declaration stands for: attributes follow the sizes of the names they count."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import onnx_ir as ir

from graphprune.axes_kept import Mask
from graphprune.declaration_text import Factors, solve_sizes
from graphprune.declarations import Declaration
from graphprune.rewrite.context import RepairContext


def repair_declared(declaration: Declaration, ctx: RepairContext) -> None:
    """Writes the new size of each name into the attributes that follow it.

    An attribute that is absent (a default of the operator) is written once its size changes.
    """
    if not declaration.attributes:
        return
    terms = list(_terms(declaration, ctx))
    old = solve_sizes([*((f, n) for f, n, _ in terms), *_known(declaration, ctx.node)])
    new = dict(old)
    for factors, _, mask in terms:
        if mask is None:
            continue
        grid = mask.reshape([old[name] for name in factors])
        for d, name in enumerate(factors):
            others = tuple(i for i in range(len(factors)) if i != d)
            new[name] = int(grid.any(axis=others).sum())
    for attribute, names in declaration.attributes.items():
        if any(new[name] != old[name] for name in names):
            ctx.set_attr(attribute, prod(new[name] for name in names))


def _terms(declaration: Declaration, ctx: RepairContext) -> Iterator[tuple[Factors, int, Mask | None]]:
    """Factors, size before the cut and mask of every axis that the text describes."""
    sides: list[tuple[Sequence[Sequence[Mask | None]], list[tuple[int, ...]]]] = [
        (ctx.keep_in, [ctx.shape_in(i) if ctx.has(i) else () for i in range(len(ctx.node.inputs))]),
        (ctx.keep_out, [ctx.shape_out(i) for i in range(len(ctx.node.outputs))]),
    ]
    text = declaration.text
    for (keeps, shapes), tensors in zip(sides, (text.inputs, text.outputs), strict=True):
        for i, (tensor, keep, shape) in enumerate(zip(tensors, keeps, shapes, strict=False)):
            is_here = keeps is ctx.keep_out or ctx.has(i)
            if is_here and tensor.is_described:
                yield from zip(tensor.expanded(len(shape)), shape, keep, strict=True)


def _known(declaration: Declaration, node: ir.Node) -> list[tuple[Factors, int]]:
    return [
        (names, node.attributes[attribute].as_int())
        for attribute, names in declaration.attributes.items()
        if attribute in node.attributes
    ]
