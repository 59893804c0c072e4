"""What experts and blocks got wrong once: sums that broadcast, axes of other sizes, gates of two factors."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import build

import graphprune as gp
from graphprune.oracle import verify
from graphprune.rewrite import cut


def blocks(model: onnx.ModelProto) -> list[str]:
    return [g.id for g in gp.analyze(model).groups if g.kind == "blocks"]


def test_a_sum_that_may_broadcast_at_run_time_has_no_branch() -> None:
    """With N=1 and M=3 the branch is what makes the result three rows long."""
    body = "s = Add(x, z) h = MatMul(s, w) r = Relu(h) f = MatMul(r, v) t = Add(x, f) y = MatMul(t, out)"
    weights = {"w": (8, 6), "v": (6, 8), "out": (8, 5)}
    assert not blocks(build("(float[N, 8] x, float[M, 8] z) => (float[K, 5] y)", body, weights))
    assert blocks(build("(float[N, 8] x, float[N, 8] z) => (float[N, 5] y)", body, weights)) == ["w/blocks"]


def test_a_branch_is_no_more_than_its_weights_make() -> None:
    """``(p @ wp + x) + ...``: without that operand the skip would be gone as well."""
    body = """
        x = MatMul(x0, w0) a = MatMul(x, wa) p, q = Split <axis=1> (a, sizes)
        pr = MatMul(p, wp) r = Add(pr, x) qr = MatMul(q, wq) t = Add(r, qr) y = MatMul(t, wy)"""
    weights = {
        "w0": (8, 8), "wa": (8, 10), "sizes": [4, 6], "wp": (4, 8), "wq": (6, 8), "wy": (8, 5),
    }  # fmt: skip
    model = build("(float[N, 8] x0) => (float[N, 5] y)", body, weights)
    assert not blocks(model)


def test_positions_that_look_up_an_axis_of_another_size_stay() -> None:
    body = """
        l = MatMul(x, r) v, i = TopK(l, k) a = Gather(w, i) b = Gather(other, i) c = Add(a, b)
        y = ReduceSum <keepdims=0> (c, axes)"""
    weights = {"r": (8, 6), "k": [2], "w": (6, 5), "other": (7, 5), "axes": [1]}
    graph = gp.analyze(build("(float[N, 8] x) => (float[N, 5] y)", body, weights, opset=18))
    assert not [
        g.id for g in graph.groups if g.prunable and ("r", 1) in {(m.name, m.axis) for m in g.members}
    ]


@pytest.mark.parametrize(
    "tail", ["u = Concat <axis=1> (p0, p1, p2) y = MatMul(u, wide)", "s = Sum(p0, p1, p2) y = Add(s, x)"]
)
def test_gates_of_two_factors(tail: str) -> None:
    """A part dies with either of its gates; not all parts may die, and the plan tells which gate went."""
    parts = " ".join(
        f"a{i} = Slice(la, i{i}, i{i + 1}, i1) b{i} = Slice(lb, i{i}, i{i + 1}, i1) q{i} = Mul(a{i}, b{i}) "
        f"h{i} = MatMul(x, w{i}) p{i} = Mul(q{i}, h{i})"
        for i in range(3)
    )
    weights: dict[str, object] = {"ra": (8, 3), "rb": (8, 3), "wide": (24, 8)}
    weights |= {f"w{i}": (8, 8) for i in range(3)} | {f"i{i}": [i] for i in range(4)}
    body = f"la = MatMul(x, ra) lb = MatMul(x, rb) {parts} {tail}"
    if "wide" not in tail:
        del weights["wide"]
    model = build("(float[N, 8] x) => (float[N, 8] y)", body, weights)
    for seed in range(4):
        result = gp.prune(model, target={"params": 0.7}, floor=0.0, criterion="random", seed=seed)
        assert result.verdict is not None


def test_a_sum_of_parts_keeps_one_part_when_an_output_needs_it() -> None:
    """Parts of two gates each: removing one gate of either would leave nothing."""
    body = """
        la = MatMul(x, ra) lb = MatMul(x, rb)
        a0 = Slice(la, i0, i1, i1) b0 = Slice(lb, i0, i1, i1) a1 = Slice(la, i1, i2, i1)
        b1 = Slice(lb, i1, i2, i1)
        q0 = Mul(a0, b0) q1 = Mul(a1, b1) h0 = MatMul(x, w0) h1 = MatMul(x, w1)
        p0 = Mul(q0, h0) p1 = Mul(q1, h1)
        y = Add(p0, p1)"""
    weights = {"ra": (8, 2), "rb": (8, 2), "w0": (8, 5), "w1": (8, 5), "i0": [0], "i1": [1], "i2": [2]}
    model = build("(float[N, 8] x) => (float[N, 5] y)", body, weights)
    graph = gp.analyze(model)
    removed = np.zeros(len(graph.analysis.algebra), bool)
    for group in graph.groups:
        if group.prunable:
            removed[group.units] = True
    assert removed.any()
    pruned = cut(graph.analysis, removed)
    verify(graph.analysis, removed, pruned)
    assert [node.op_type for node in pruned.ir.graph].count("MatMul") == 3


def test_a_plan_names_the_uses_of_a_weight_that_is_read_transposed_as_well() -> None:
    """The transposed copy is a constant of its own here, and keeps what the plan cuts from the other."""
    body = """
        h = MatMul(x, a) s = Sigmoid(h) t = Transpose(w) m = MatMul(s, t) g = MatMul(m, w) r = Relu(g)
        y = MatMul(r, out)"""
    weights = {"a": (5, 12), "w": (4, 12), "out": (12, 3)}
    model = build("(float[N, 5] x) => (float[N, 3] y)", body, weights)
    graph = gp.analyze(model)
    (group,) = (g for g in graph.groups if g.prunable and "out" in {m.name for m in g.members})
    plan = gp.plan(model, target={"macs": 0.9}, criterion="l2", include=[group.id])
    assert {p.name: p.uses for p in plan.parameters if p.name == "w"} == {"w": ["g:1"]}
