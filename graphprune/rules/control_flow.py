"""If, Loop and Scan: their bodies are part of the graph, and see its values.

A body is visited like the graph around it, with the axes that its inputs have there.  What leaves it must
agree: output *i* of both branches of an If, and a loop's carried value before, in, and behind every
iteration.  Equations may come in any order, so one visit is enough for any number of iterations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_ir as ir

from graphprune.algebra import Axis
from graphprune.foreign import RUNTIME_DOMAINS
from graphprune.rules.context import Blocked, Context
from graphprune.rules.registry import RULES, rule
from graphprune.shapes.bodies import SCAN_WITHOUT_BATCH, scan_axes

Axes = list[Axis]
#: Axes of a value; None where its shape is not known, or not the same in every iteration.
Maybe = Axes | None

#: A rule for any version of an operator counts as one.
NEWEST = 1 << 16
VARIES = "the shape of a value that is carried through a loop changes, or is not known"


@rule("Constant")
def constant(ctx: Context) -> list[Axes]:
    """A number that is the output of its graph (all others are initializers by now)."""
    return [[ctx.frozen(n, "a constant that is an output") for n in ctx.out_shape()]]


@rule("If")
def branches(ctx: Context) -> list[Maybe]:
    """Both branches return the same axes; a slice is zero where it is in both."""
    bodies = [_body(ctx, name) for name in ("then_branch", "else_branch")]
    made = [ctx.visit_body(body, []) for body in bodies]
    text = "the branches return different shapes, or shapes that are not known"
    return [_same(ctx, pair, text, leaves=i) for i, pair in enumerate(zip(*made, strict=True))]


@rule("Loop")
def loop(ctx: Context) -> list[Maybe]:
    """Carried values keep their axes; scan outputs are stacked along a new first axis."""
    body = _body(ctx, "body")
    starts = [_axes(ctx, i) for i in range(2, ctx.n_inputs)]
    if len(body.inputs) != len(starts) + 2:
        message = "its body does not take what it is given"
        raise Blocked(message)
    plain = [_plain(ctx, value.name or "") for value in body.inputs[:2]]
    states = [_enters(ctx, a, v.name or "") for a, v in zip(starts, body.inputs[2:], strict=True)]
    made = ctx.visit_body(body, [*plain, *states])[1:]
    carried = _carry(ctx, body, starts, states, made)
    return [*carried, *(_stack(ctx, axes, 0, i + len(states)) for i, axes in enumerate(made[len(states) :]))]


@rule("Scan", since=SCAN_WITHOUT_BATCH)
def scan(ctx: Context) -> list[Maybe]:
    """Like a loop; its other inputs are taken apart along one axis, which can't shrink."""
    body = _body(ctx, "body")
    along = scan_axes(ctx.node)
    n_states = ctx.n_inputs - len(along)
    if len(body.inputs) != ctx.n_inputs:
        message = "its body does not take what it is given"
        raise Blocked(message)
    starts = [_axes(ctx, i) for i in range(n_states)]
    states = [_enters(ctx, a, v.name or "") for a, v in zip(starts, body.inputs, strict=False)]
    elements = [_element(ctx, n_states + i, d) for i, d in enumerate(along)]
    made = ctx.visit_body(body, [*states, *elements])
    carried = _carry(ctx, body, starts, states, made)
    stacked = made[n_states:]
    places = ctx.attr_ints("scan_output_axes") or [0] * len(stacked)
    return [
        *carried,
        *(_stack(ctx, a, d, i + n_states) for i, (a, d) in enumerate(zip(stacked, places, strict=True))),
    ]


def _body(ctx: Context, name: str) -> ir.Graph:
    """A body of the node.  One that can't be run can't be verified, and the node is left as it is."""
    body = ctx.node.attributes[name].as_graph()
    for node in body.all_nodes():
        if node.domain not in RUNTIME_DOMAINS:
            message = f"in its body stands {node.domain}::{node.op_type}, which onnxruntime does not know"
            raise Blocked(message)
    return body


def _axes(ctx: Context, i: int) -> Maybe:
    try:
        return ctx.axes(i)
    except Blocked:  # a sequence, or a shape that is not known
        return None


def _plain(ctx: Context, name: str) -> Maybe:
    """Axes of an iteration number or a condition."""
    shape = ctx.trace.shapes.get(name)
    return None if shape is None else [ctx.plain(n) for n in shape]


def _enters(ctx: Context, start: Maybe, name: str) -> Maybe:
    """A carried value inside the body.  Later iterations get what the body made: not always zero."""
    if start is None or ctx.trace.shapes.get(name) != tuple(axis.size for axis in start):
        return None
    return [axis.nonzero() for axis in start]


def _element(ctx: Context, i: int, d: int) -> Maybe:
    axes = _axes(ctx, i)
    if not axes:
        return None
    d %= len(axes)
    ctx.freeze(axes[d], "it is scanned position by position")
    return [*axes[:d], *axes[d + 1 :]]


def _carry(
    ctx: Context, body: ir.Graph, starts: Sequence[Maybe], states: Sequence[Maybe], made: Sequence[Maybe]
) -> list[Maybe]:
    """Equates what goes in at the start with what each iteration hands to the next."""
    unknown = next((n for n in body if RULES.find(n.domain, n.op_type, NEWEST) is None), None)
    text = VARIES
    if unknown is not None:
        text += f"; in the body stands {unknown.domain or 'ai.onnx'}::{unknown.op_type}, which has no rule"
    found: list[Maybe] = []
    for i, (start, state, result) in enumerate(zip(starts, states, made, strict=False)):
        inside = result if state is not None else None
        found.append(_same(ctx, (start, inside), text, leaves=i, also=result))
    return found


def _same(ctx: Context, pair: Sequence[Maybe], text: str, *, leaves: int, also: Maybe = None) -> Maybe:
    """The common axes of values of which one or the other leaves the node as output ``leaves``.

    Where they are not known to have the same shape, nothing of them can shrink.
    """
    first, second = pair
    shapes = [None if axes is None else [axis.size for axis in axes] for axes in pair]
    if first is None or second is None or shapes[0] != shapes[1]:
        _freeze(ctx, (*pair, also), text)
        shape = ctx.trace.shapes.get(ctx.node.outputs[leaves].name or "")
        return None if shape is None else [ctx.frozen(n, text) for n in shape]
    out = []
    for a, b in zip(first, second, strict=True):
        ctx.equate(a, b)
        best = a if a.is_plain or not b.is_plain else b
        is_zero = all(axis.zero for axis in (a, b) if not axis.is_plain)
        same_point = a.zero_point == b.zero_point
        out.append(best if is_zero and same_point else best.nonzero())
    return out


def _stack(ctx: Context, axes: Maybe, d: int, i: int) -> Maybe:
    """What the iterations made, along a new axis ``d`` of output ``i``."""
    shape = ctx.trace.shapes.get(ctx.node.outputs[i].name or "")
    text = "each iteration makes one position"
    if axes is None or shape is None or len(shape) != len(axes) + 1:
        _freeze(ctx, [axes], text)
        return None if shape is None else [ctx.frozen(n, text) for n in shape]
    d %= len(shape)
    return [*axes[:d], ctx.frozen(shape[d], text), *axes[d:]]


def _freeze(ctx: Context, values: Iterable[Maybe], text: str) -> None:
    for axes in values:
        for axis in axes or ():
            ctx.freeze(axis, text)
