"""Random chains of operators that move elements, between two layers: the masking oracle passes on the whole.

A linear layer makes features, a random chain of Reshape, Transpose, Concat, Split, Slice, Gather, Pad, Tile,
Expand and elementwise operators moves them about, a second layer sums them up. Random units of the groups
are removed, at least one of each group staying.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from graphprune.analysis import Analysis
from graphprune.check import validate
from graphprune.groups import find_groups
from graphprune.model import load
from graphprune.oracle import verify
from graphprune.rewrite import cut
from graphprune.shapes.fold_shapes import prepare

MOST = 300  # elements of a tensor, without the batch


@dataclass
class Chain:
    """A graph under construction; ``shape`` is that of the last value, without the batch axis."""

    rng: np.random.Generator
    shape: list[int]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    last: str = "x"

    def constant(self, array: object) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(array)
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def weight(self, *shape: int) -> str:
        return self.constant(self.rng.standard_normal(shape).astype(np.float32))

    def add(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: object) -> list[str]:
        names = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(
            helper.make_node(op_type, list(inputs), names, name=f"n{len(self.nodes)}", **attributes)
        )
        self.last = names[0]
        return names


def factor(draw: st.DrawFn, n: int) -> list[int]:
    """A random factoring of ``n``."""
    parts: list[int] = []
    while n > 1 and len(parts) < 2 and draw(st.booleans()):
        divisor = draw(st.sampled_from([d for d in range(2, n + 1) if n % d == 0]))
        parts.append(divisor)
        n //= divisor
    return [*parts, n] if n > 1 or not parts else parts


def step(chain: Chain, draw: st.DrawFn, kind: str) -> None:
    shape, x = chain.shape, chain.last
    d = draw(st.integers(0, len(shape) - 1))
    n, axis = shape[d], d + 1
    if kind == "reshape":
        target = factor(draw, prod(shape))
        sizes = list(target)
        if draw(st.booleans()):
            sizes[draw(st.integers(0, len(sizes) - 1))] = -1
        chain.add("Reshape", x, chain.ints(0, *sizes))
        chain.shape = target
    elif kind == "split_axis":
        parts = factor(draw, n)
        chain.shape = [*shape[:d], *parts, *shape[d + 1 :]]
        chain.add("Reshape", x, chain.ints(0, *chain.shape))
    elif kind == "merge" and d + 1 < len(shape):
        chain.shape = [*shape[:d], n * shape[d + 1], *shape[d + 2 :]]
        chain.add("Reshape", x, chain.ints(0, *chain.shape))
    elif kind == "transpose":
        perm = draw(st.permutations(range(len(shape))))
        chain.add("Transpose", x, perm=[0, *(p + 1 for p in perm)])
        chain.shape = [shape[p] for p in perm]
    elif kind == "slice":
        stride = draw(st.sampled_from([1, 1, 2, -1, 3, -2]))
        chosen = np.arange(n)
        first, last = sorted((draw(st.integers(0, n - 1)), draw(st.integers(0, n - 1))))
        chosen = chosen[first : last + 1 : stride] if stride > 0 else chosen[first : last + 1][::stride]
        start = int(chosen[0]) - (n if draw(st.booleans()) else 0)
        end = int(chosen[-1]) + 1 if stride > 0 else int(chosen[-1]) - 1
        end = end if end >= 0 else -n - 1 - draw(st.sampled_from([0, 10**6]))
        chain.add("Slice", x, *(chain.ints(v) for v in (start, end, axis, stride)))
        chain.shape = [*shape[:d], len(chosen), *shape[d + 1 :]]
    elif kind == "split" and n > 1:
        at = draw(st.integers(1, n - 1))
        pieces = chain.add("Split", x, chain.ints(at, n - at), outputs=2, axis=axis)
        if draw(st.booleans()):
            chain.add("Concat", *reversed(pieces), axis=axis)
        else:
            chain.last = pieces[draw(st.integers(0, 1))]
            chain.shape = [*shape[:d], at if chain.last == pieces[0] else n - at, *shape[d + 1 :]]
    elif kind == "halves" and n % 2 == 0:
        a, b = chain.add("Split", x, outputs=2, axis=axis, num_outputs=2)
        chain.add(draw(st.sampled_from(["Add", "Mul"])), a, b)
        chain.shape = [*shape[:d], n // 2, *shape[d + 1 :]]
    elif kind == "gather":
        index = draw(st.lists(st.integers(-n, n - 1), min_size=1, max_size=6))
        if len(index) in (4, 6) and draw(st.booleans()):
            chain.add("Gather", x, chain.constant(np.array(index, np.int64).reshape(2, -1)), axis=axis)
            chain.shape = [*shape[:d], 2, len(index) // 2, *shape[d + 1 :]]
        else:
            chain.add("Gather", x, chain.ints(*index), axis=axis)
            chain.shape = [*shape[:d], len(index), *shape[d + 1 :]]
    elif kind == "concat" and prod(shape) * 2 <= MOST:
        other = x
        if draw(st.booleans()):
            other = chain.add(draw(st.sampled_from(["Neg", "Sigmoid"])), x)[0]
        chain.add("Concat", x, other, axis=axis)
        chain.shape = [*shape[:d], 2 * n, *shape[d + 1 :]]
    elif kind == "pad" and prod(shape) // n * (n + 3) <= MOST:
        before, after = draw(st.integers(0, 2)), draw(st.integers(0, 1))
        value = chain.constant(np.float32(draw(st.sampled_from([0.0, 0.5]))))
        chain.add("Pad", x, chain.ints(before, after), value, chain.ints(axis))
        chain.shape = [*shape[:d], n + before + after, *shape[d + 1 :]]
    elif kind == "tile" and prod(shape) * 2 <= MOST:
        chain.add("Tile", x, chain.ints(*(2 if i == axis else 1 for i in range(len(shape) + 1))))
        chain.shape = [*shape[:d], 2 * n, *shape[d + 1 :]]
    elif kind == "expand" and prod(shape) * 3 <= MOST:
        chain.add("Unsqueeze", x, chain.ints(axis))
        chain.shape = [*shape[:d], 3, *shape[d:]]
        chain.add("Expand", chain.last, chain.ints(1, *chain.shape))
    elif kind == "squeeze":
        chain.add("Unsqueeze", x, chain.ints(axis))
        chain.add("Squeeze", chain.add("Relu", chain.last)[0], chain.ints(axis))
    elif kind == "affine":
        chain.add(
            draw(st.sampled_from(["Add", "Mul"])),
            x,
            chain.weight(*(n if i == d else 1 for i in range(len(shape)))),
        )
    elif kind == "full affine":
        chain.add(draw(st.sampled_from(["Add", "Mul", "Sub"])), chain.weight(*shape), x)
    elif kind == "unary":
        chain.add(draw(st.sampled_from(["Relu", "Sigmoid", "Neg", "Exp"])), chain.add("Tanh", x)[0])
    elif kind == "sum" and len(shape) > 1:
        chain.add("ReduceSum", x, chain.ints(axis), keepdims=0)
        chain.shape = [*shape[:d], *shape[d + 1 :]]
    elif kind == "mean" and len(shape) > 1:
        chain.add("ReduceMean", x, chain.ints(axis), keepdims=0)
        chain.shape = [*shape[:d], *shape[d + 1 :]]
    elif kind == "matmul":
        chain.add("MatMul", x, chain.weight(shape[-1], 4))
        chain.shape = [*shape[:-1], 4]


KINDS = [
    "reshape", "split_axis", "split_axis", "merge", "merge", "transpose", "slice", "split", "halves",
    "gather", "concat", "pad", "tile", "expand", "squeeze", "affine", "full affine", "unary",
    "sum", "mean", "matmul",
]  # fmt: skip


@st.composite
def networks(draw: st.DrawFn) -> onnx.ModelProto:
    width = draw(st.sampled_from([6, 8, 12, 24]))
    chain = Chain(np.random.default_rng(draw(st.integers(0, 3))), [width])
    chain.add("MatMul", chain.last, chain.weight(5, width))
    chain.add("Add", chain.last, chain.weight(width))
    for kind in draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=7)):
        if chain.shape:
            step(chain, draw, kind)
    chain.add("Flatten", chain.last)
    chain.add("MatMul", chain.last, chain.weight(prod(chain.shape), 3))
    graph = helper.make_graph(
        chain.nodes,
        "chain",
        [
            helper.make_tensor_value_info(
                "x", onnx.TensorProto.FLOAT, [draw(st.sampled_from(["batch", 2])), 5]
            )
        ],
        [helper.make_tensor_value_info(chain.last, onnx.TensorProto.FLOAT, [None, 3])],
        [numpy_helper.from_array(a, n) for n, a in chain.constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def analyse(proto: onnx.ModelProto) -> Analysis:
    model, trace = prepare(load(proto))
    return Analysis(model, trace).run()


def removed_by_groups(analysis: Analysis, rng: np.random.Generator) -> np.ndarray | None:
    """Some units of each group, one at least stays; None if nothing can go."""
    removed = np.zeros(len(analysis.algebra), bool)
    for group in find_groups(analysis):
        if group.prunable and group.size > 1:
            count = rng.integers(0, group.size)
            removed[rng.permutation(group.units)[:count]] = True
    return removed if removed.any() else None


SEEN = {"networks": 0, "pruned": 0}


@given(networks(), st.integers(0, 5))
@settings(max_examples=150)
def test_the_oracle_passes(proto: onnx.ModelProto, seed: int) -> None:
    onnx.checker.check_model(proto, full_check=True)
    analysis = analyse(proto)
    SEEN["networks"] += 1
    removed = removed_by_groups(analysis, np.random.default_rng(seed))
    if removed is None:
        return
    SEEN["pruned"] += 1
    for axes in analysis.axes.values():
        for axis in axes:
            assert analysis.algebra.alive(axis, removed).any(), "a tensor became empty"
    pruned = cut(analysis, removed)
    validate(pruned)
    verify(analysis, removed, pruned, seed=seed)


def test_most_of_these_networks_can_be_pruned() -> None:
    assert SEEN["pruned"] > 0.5 * SEEN["networks"] > 0
