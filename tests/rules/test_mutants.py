"""Deliberately wrong rules and repairs: the law notices every one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cases_contraction
import cases_elementwise
import cases_indexing
import cases_movement
import cases_norm
import pytest
from rule_law import LawBroken, check_case

from graphprune.algebra import Axis, concat, merge
from graphprune.registry import Registry
from graphprune.rewrite import REPAIRS
from graphprune.rewrite.context import RepairContext
from graphprune.rules import RULES
from graphprune.rules.context import Context
from graphprune.rules.elementwise import broadcast

CASES = {
    c.name: c
    for c in (
        *cases_elementwise.CASES,
        *cases_contraction.CASES,
        *cases_norm.CASES,
        *cases_movement.CASES,
        *cases_indexing.CASES,
    )
}
Axes = Sequence[Sequence[Axis]]


@dataclass(frozen=True)
class Mutant:
    """A wrong rule (``rule``) or a wrong repair (``repair``) of one operator, and a case that shows it."""

    name: str
    op_type: str
    case: str
    rule: Callable[[Context], Axes] | None = None
    repair: Callable[[RepairContext], None] | None = None


def no_repair(ctx: RepairContext) -> None:
    """The node is left as it was."""


def carried(ctx: Context) -> Axes:
    """Every axis goes through, nothing else is stated."""
    return [ctx.axes(0) for _ in ctx.node.outputs]


def reduced_as_sum(ctx: Context) -> Axes:
    for d in (1,):
        ctx.summed(ctx.axes(0)[d])
    x = ctx.axes(0)
    return [[x[0], ctx.plain(1), x[2]]]


def reduced_without_flags(ctx: Context) -> Axes:
    """A sum over values that are not zero is taken to be exact."""
    x = ctx.axes(0)
    return [[x[0], ctx.plain(1), x[2]]]


def concat_at_zero(ctx: Context) -> Axes:
    """Every piece is said to start at the first position."""
    x, z = ctx.axes(0), ctx.axes(1)
    longer, other = (x[1], z[1]) if x[1].size > z[1].size else (z[1], x[1])
    return [[x[0], Axis(concat([longer, other]).labels[::-1].copy()), x[2]]]


def flatten_inner_first(ctx: Context) -> Axes:
    """The inner factor is taken for the outer one."""
    x = ctx.axes(0)
    swapped = merge([x[2], x[1]])
    return [[x[0], swapped]]


def add_one_operand(ctx: Context) -> Axes:
    ctx.axes(1)
    return [ctx.axes(0)]


def conv_dense(ctx: Context) -> Axes:
    """Groups are ignored."""
    x, w = ctx.axes(0), ctx.axes(1)
    for axis in (*x[2:], *w[2:]):
        ctx.freeze(axis, "window")
    if ctx.has(2):
        ctx.equate(w[0], ctx.axes(2)[0])
    return [[x[0], w[0], *(ctx.frozen(n, "window") for n in ctx.out_shape()[2:])]]


def norm_without_scale(ctx: Context) -> Axes:
    x = ctx.axes(0)
    ctx.statistic(x[-1], "norm")
    for i in (1, 2):
        ctx.axes(i)
    return [x]


def transpose_identity(ctx: Context) -> Axes:
    """Right shape, wrong order of two axes of one size."""
    x = ctx.axes(0)
    return [[x[0], x[1]]]


def slice_from_start(ctx: Context) -> Axes:
    x, n = ctx.axes(0), ctx.out_shape()[1]
    return [[x[0], Axis(x[1].labels[:n])]]


def gemm_without_transpose(ctx: Context) -> Axes:
    a, b = ctx.axes(0), ctx.axes(1)
    return [[a[0], b[0]]]


def always_zero(ctx: Context) -> Axes:
    """exp(0) is said to be 0."""
    return [ctx.axes(0)]


def gather_in_order(ctx: Context) -> Axes:
    x, n = ctx.axes(0), ctx.out_shape()[1]
    return [[x[0], Axis(x[1].labels[:n]), *x[2:]]]


def tile_interleaved(ctx: Context) -> Axes:
    """Each position is said to be repeated, not the whole axis."""
    x, n = ctx.axes(0), ctx.out_shape()[1]
    return [[x[0], merge([x[1], ctx.fresh(n // x[1].size, zero=False)])]]


def pad_shifted(ctx: Context) -> Axes:
    """All padding is said to come behind."""
    x = ctx.axes(0)
    return [[x[0], concat([x[1], ctx.fresh(5, zero=True)]), x[2]]]


def where_ignores_branch(ctx: Context) -> Axes:
    for i in (0, 2):
        ctx.axes(i)
    return [ctx.axes(1)]


def resize_by_sizes(ctx: Context) -> Axes:
    x, new = ctx.axes(0), ctx.out_shape()
    ctx.freeze(x[2], "it is interpolated along this axis")
    return [[*x[:2], ctx.frozen(new[2], "it is interpolated along this axis")]]


def add_drops_anything(ctx: Context) -> list[list[Axis]]:
    for i in range(ctx.n_inputs):
        ctx.drops(i, "zeros", "empty", "")
    return [broadcast(ctx, range(ctx.n_inputs), zero="all")]


MUTANTS = [
    Mutant("softmax is a unary function", "Softmax", "Softmax", carried),
    Mutant("a mean is a sum", "ReduceMean", "ReduceMean input", reduced_as_sum),
    Mutant("a maximum is a sum", "ReduceMax", "ReduceMax input", reduced_without_flags),
    Mutant("a sum does not look at zeros", "ReduceSum", "ReduceSum of exponentials", reduced_without_flags),
    Mutant("the exponential of zero is zero", "Exp", "ReduceSum of exponentials", always_zero),
    Mutant("concat forgets the offset", "Concat", "Concat", concat_at_zero),
    Mutant("flatten swaps factors", "Reshape", "Reshape merge", flatten_inner_first),
    Mutant("add links one operand", "Add", "Add same shapes", add_one_operand),
    Mutant("add does not cut its parameter", "Add", "Add parameter right", carried),
    Mutant("grouped convolution is dense", "Conv", "Conv grouped", conv_dense),
    Mutant("depthwise convolution is dense", "Conv", "Conv depthwise", conv_dense),
    Mutant("group attribute stays", "Conv", "Conv depthwise", repair=no_repair),
    Mutant("num_groups stays", "GroupNormalization", "GroupNormalization", repair=no_repair),
    Mutant("split sizes stay", "Split", "Split sizes", repair=no_repair),
    Mutant("equal split stays", "Split", "Split opset 13", repair=no_repair),
    Mutant("paddings stay", "Pad", "Pad channels", repair=no_repair),
    Mutant("padding all behind", "Pad", "Pad channels", pad_shifted),
    Mutant("indices stay", "Gather", "Gather", repair=no_repair),
    Mutant("indices taken in order", "Gather", "Gather", gather_in_order),
    Mutant("layer norm without its scale", "LayerNormalization", "LayerNormalization", norm_without_scale),
    Mutant("transpose without perm", "Transpose", "Add transposed itself", transpose_identity),
    Mutant("slice from the start", "Slice", "Slice", slice_from_start),
    Mutant("slice start stays", "Slice", "Slice", repair=no_repair),
    Mutant("slice step stays", "Slice", "Slice step", repair=no_repair),
    Mutant("gemm ignores transB", "Gemm", "Gemm transA=0 transB=1", gemm_without_transpose),
    Mutant("reshape target stays", "Reshape", "Reshape split", repair=no_repair),
    Mutant("expand shape stays", "Expand", "Expand", repair=no_repair),
    Mutant("squeeze takes what became small", "Squeeze", "Squeeze all", repair=no_repair),
    Mutant("tile repeats positions", "Tile", "Tile whole", tile_interleaved),
    Mutant("tile count stays", "Tile", "Tile whole", repair=no_repair),
    Mutant("resize sizes stay", "Resize", "Resize sizes", repair=no_repair),
    Mutant("resize looks at sizes only", "Resize", "Resize by little", resize_by_sizes),
    Mutant("where ignores a branch", "Where", "Where", where_ignores_branch),
    Mutant(
        "argmax forgets its axis", "ArgMax", "ArgMax", lambda c: [[c.axes(0)[0], c.plain(1), c.axes(0)[2]]]
    ),
    Mutant("positions in constants stay", "Equal", "Equal to each position", repair=no_repair),
    Mutant("one-hot depth stays", "OneHot", "OneHot of the best", repair=no_repair),
    Mutant("add drops what is not zero", "Add", "Add of a part that is no longer zero", add_drops_anything),
    Mutant("cumsum in any order", "CumSum", "CumSum", carried),
    Mutant(
        "batch norm keeps zeros in the batch",
        "BatchNormalization",
        "BatchNormalization",
        lambda c: ([c.equate(c.axes(0)[1], c.axes(i)[0]) for i in (1, 2, 3, 4)], [c.axes(0)])[1],
    ),
]


def _replace(monkeypatch: pytest.MonkeyPatch, registry: Registry, op_type: str, function: object) -> None:
    monkeypatch.setitem(registry._table, ("", op_type), {1: function})


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_mutant_is_caught(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    if mutant.rule is not None:
        _replace(monkeypatch, RULES, mutant.op_type, mutant.rule)
    if mutant.repair is not None:
        _replace(monkeypatch, REPAIRS, mutant.op_type, mutant.repair)
    with pytest.raises(LawBroken):
        check_case(CASES[mutant.case])
