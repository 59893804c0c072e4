"""The coupling rule that a user's declaration stands for (:mod:`graphprune.declarations`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from graphprune.algebra import Axis, merge
from graphprune.declaration_text import Factors, SizeError, Tensor, solve_sizes
from graphprune.declarations import Declaration
from graphprune.rules.context import Blocked, Context


def declared(declaration: Declaration, ctx: Context) -> list[list[Axis]]:
    """Equal names are equal axes; a name on the left alone is summed over, one on the right alone is new.

    Args:
        declaration: of the node's operator.
        ctx: the node.

    Raises:
        Blocked: the node does not fit the text.
    """
    try:
        node = _Node.read(declaration, ctx)
    except SizeError as error:
        message = f"it does not fit its declaration: {error}"
        raise Blocked(message) from error
    found: dict[str, list[Axis]] = {}
    holders: dict[str, set[int]] = {}
    for i in range(len(node.inputs)):
        terms = node.inputs[i]
        if terms is None:
            _leave(ctx, i)
            continue
        for axis, factors in zip(ctx.axes(i), terms, strict=True):
            parts = ctx.split(axis, [node.sizes[name] for name in factors]) if len(factors) > 1 else [axis]
            for name, part in zip(factors, parts, strict=False):
                found.setdefault(name, []).append(part)
                holders.setdefault(name, set()).add(i)
    written = {name for out in node.outputs for factors in out or () for name in factors}
    described = {i for i, terms in enumerate(node.inputs) if terms is not None}
    axes = {}
    for name, here in found.items():
        zeros = [axis.zero for axis in here]
        # An input without the axis is not zero at any of its positions.
        every = all(zeros) and holders[name] == described
        stays_zero = {"all": every, "any": any(zeros), None: False}[declaration.zero]
        axes[name] = _meet(declaration, ctx, name, here, stays_zero, is_summed=name not in written)
    for i, terms in enumerate(node.outputs):
        for d, name in ((d, name) for d, factors in enumerate(terms or ()) for name in factors):
            if name not in axes:
                axes[name] = _new(declaration, ctx, name, node.sizes[name], (d, i))
    return [_output(ctx, terms, i, axes) for i, terms in enumerate(node.outputs)]


@dataclass(frozen=True)
class _Node:
    """The text filled in with one node's ranks and sizes; None for a tensor that it says nothing about."""

    inputs: list[list[Factors] | None]
    outputs: list[list[Factors] | None]
    sizes: dict[str, int]

    @classmethod
    def read(cls, declaration: Declaration, ctx: Context) -> _Node:
        text = declaration.text
        if ctx.n_inputs > len(text.inputs):
            message = f"it has {ctx.n_inputs} inputs, its declaration {len(text.inputs)}"
            raise Blocked(message)
        for i, tensor in enumerate(text.inputs):
            if not tensor.is_optional and not ctx.has(i):
                message = f"input {i} is absent, and its declaration does not allow that"
                raise Blocked(message)
        shapes_in = [
            ctx.shape(i) if ctx.has(i) and t.is_described else None for i, t in enumerate(text.inputs)
        ]
        terms_in = _terms(text.inputs, shapes_in)
        products = [*_products(terms_in, shapes_in), *_attributes(declaration, ctx.node)]
        solve_sizes(products, whole=False)  # what contradicts itself is told before what is not known
        outputs = text.outputs[: len(ctx.node.outputs)]
        shapes_out = [ctx.out_shape(i) if t.is_described else None for i, t in enumerate(outputs)]
        terms_out = _terms(outputs, shapes_out)
        return cls(terms_in, terms_out, solve_sizes([*products, *_products(terms_out, shapes_out)]))


def _products(
    terms: list[list[Factors] | None], shapes: list[tuple[int, ...] | None]
) -> list[tuple[Factors, int]]:
    return [
        (factors, size)
        for axes, shape in zip(terms, shapes, strict=True)
        if axes is not None and shape is not None
        for factors, size in zip(axes, shape, strict=True)
    ]


def _terms(tensors: tuple[Tensor, ...], shapes: list[tuple[int, ...] | None]) -> list[list[Factors] | None]:
    return [None if s is None else t.expanded(len(s)) for t, s in zip(tensors, shapes, strict=True)]


def _attributes(declaration: Declaration, node: ir.Node) -> list[tuple[Factors, int]]:
    """What the node's own attributes say about sizes."""
    found = []
    for name, letters in declaration.attributes.items():
        attribute = node.attributes.get(name)
        if attribute is None:
            continue
        if attribute.type != ir.AttributeType.INT:
            message = f"attribute '{name}' is no integer, so it can't follow a size"
            raise Blocked(message)
        found.append((letters, attribute.as_int()))
    return found


def _leave(ctx: Context, i: int) -> None:
    """Nothing is said about this input: a constant stays whole since nobody asks for its axes."""
    if ctx.has(i) and not ctx.is_constant(i):
        for axis in ctx.axes(i):
            ctx.freeze(axis, "its declaration says nothing about this input")


def _meet(
    declaration: Declaration, ctx: Context, name: str, here: list[Axis], stays_zero: bool, *, is_summed: bool
) -> Axis:
    """The one axis that all axes of a name are."""
    for other in here[1:]:
        ctx.equate(here[0], other)
    if name in declaration.text.frozen:
        for axis in here:
            ctx.freeze(axis, f"its declaration freezes '{name}'")
        return ctx.frozen(here[0].size, f"its declaration freezes '{name}'")
    if name in declaration.statistic:
        ctx.statistic(here[0], f"its declaration names a statistic over '{name}'")
    elif is_summed and not stays_zero:
        ctx.statistic(here[0], "a sum runs over values that are not zero when their unit is removed")
    best = next((axis for axis in here if axis.is_plain), here[0])
    return best if best.is_plain else replace(best, zero=stays_zero, zero_point=None)


def _output(ctx: Context, terms: list[Factors] | None, i: int, axes: dict[str, Axis]) -> list[Axis]:
    if terms is None:
        return [ctx.frozen(n, "its declaration says nothing about this output") for n in ctx.out_shape(i)]
    out = []
    for factors in terms:
        parts = [axes[name] for name in factors]
        out.append(ctx.plain(1) if not parts else parts[0] if len(parts) == 1 else merge(parts))
    return out


def _new(declaration: Declaration, ctx: Context, name: str, size: int, place: tuple[int, int]) -> Axis:
    if name not in declaration.repeated or name in declaration.text.frozen:
        return ctx.frozen(size, f"the declared operator makes the axis '{name}'")
    if ctx.is_dynamic(*place):
        return ctx.frozen(size, "its size is that of an input")
    return ctx.fresh(size, zero=False)
