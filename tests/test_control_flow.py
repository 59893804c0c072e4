"""If, Loop and Scan: bodies are coupled with the graph around them, and cut with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

import graphprune as gp
from graphprune.check import validate
from graphprune.compare import run
from graphprune.errors import ValidationError
from graphprune.graph import DependencyGraph
from graphprune.model import Model
from graphprune.oracle import Verdict, verify
from graphprune.rewrite import cut

BRANCHES = """agraph (float[N, 8] x) => (float[N, 5] out) {
    h = MatMul(x, w0)
    s = ReduceSum<keepdims = 0>(x)
    c = Greater(s, zero)
    y = If (c) <
        then_branch = then_graph () => (float[N, 24] t) { m = MatMul(h, w1) t = Relu(m) },
        else_branch = else_graph () => (float[N, 24] e) { m = MatMul(h, w2) e = Tanh(m) }
    >
    out = MatMul(y, w3)
}"""

# A recurrent network: the state is carried, and every state is also an output.
RECURRENT = """agraph (float[N, 8] x) => (float[N, 5] last, float[T, N, 3] all) {
    h0 = MatMul(x, start)
    i = MatMul(x, given)
    hT, hs = Loop (steps, yes, h0) <
        body = body (int64 step, bool go, float[] h) => (bool go_on, float[] h_next, float[] scanned) {
        go_on = Identity(go)
        r = MatMul(h, again)
        a = Add(r, i)
        h_next = Tanh(a)
        scanned = Relu(h_next)
    }>
    last = MatMul(hT, read)
    all = MatMul(hs, read_all)
}"""
RECURRENT_WEIGHTS = {
    "start": (8, 16),
    "given": (8, 16),
    "again": (16, 16),
    "read": (16, 5),
    "read_all": (16, 3),
}

SCANNED = """agraph (float[T, 2, 8] x) => (float[2, 5] last, float[2, T, 3] all) {
    xs = MatMul(x, given)
    hT, hs = Scan <
        num_scan_inputs = 1, scan_output_axes = [1],
        body = body (float[] h, float[] e) => (float[] h_next, float[] o) {
        r = MatMul(h, again)
        a = Add(r, e)
        h_next = Tanh(a)
        o = MatMul(h_next, inner)
    }>(h0, xs)
    last = MatMul(hT, read)
    all = MatMul(hs, read_all)
}"""


def build(text: str, opset: int = 18, **constants: object) -> onnx.ModelProto:
    """Tuples are random weights of that shape, everything else is a constant."""
    rng = np.random.default_rng(1)
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": {opset}, "custom": 1]>' + text)
    for name, value in constants.items():
        array = np.asarray(value)
        if isinstance(value, tuple):
            array = (rng.standard_normal(value) / np.sqrt(value[0])).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.checker.check_model(model)
    return model


def recurrent(steps: int = 4, text: str = RECURRENT) -> onnx.ModelProto:
    return build(text, steps=np.int64(steps), yes=np.bool_(True), **RECURRENT_WEIGHTS)


def branches(text: str = BRANCHES, **more: object) -> onnx.ModelProto:
    return build(text, w0=(8, 16), w1=(16, 24), w2=(16, 24), w3=(24, 5), zero=np.float32(0), **more)


def shrink(graph: DependencyGraph, *ids: str) -> tuple[Model, Verdict]:
    """Removes half of the units of these groups, of different places, and lets the oracle judge."""
    groups = {group.id: group for group in graph.groups}
    removed = np.zeros(len(graph.analysis.algebra), bool)
    for name in ids:
        assert groups[name].prunable, groups[name].reason
        removed[groups[name].units[::2]] = True
    pruned = cut(graph.analysis, removed)
    validate(pruned)
    return pruned, verify(graph.analysis, removed, pruned)


def prunable(graph: DependencyGraph) -> dict[str, int]:
    return {group.id: group.size for group in graph.groups if group.prunable and group.kind != "blocks"}


def shapes(model: Model) -> dict[str, tuple[int, ...]]:
    return {
        n: tuple(v.const_value.shape.numpy()) for n, v in model.ir.graph.initializers.items() if v.const_value
    }


def reason(graph: DependencyGraph, name: str) -> str:
    group = next(group for group in graph.groups if group.id == name)
    assert not group.prunable
    return str(group.reason)


def test_branches_keep_the_same_channels() -> None:
    graph = gp.analyze(branches())
    assert prunable(graph) == {"w0:1": 16, "w1:1": 24}
    pruned, verdict = shrink(graph, "w0:1", "w1:1")
    found = shapes(pruned)
    assert (found["w0"], found["w1"], found["w2"], found["w3"]) == ((8, 8), (8, 12), (8, 12), (12, 5))
    assert verdict.exact


def test_a_loop_carries_its_state() -> None:
    graph = gp.analyze(recurrent())
    assert prunable(graph) == {"start:1": 16}
    pruned, verdict = shrink(graph, "start:1")
    found = shapes(pruned)
    assert found["again"] == (8, 8)
    assert found["read_all"] == (8, 3)
    assert verdict.exact


def test_a_pruned_loop_computes_what_the_kept_units_compute() -> None:
    """Against numpy, without the oracle."""
    model = recurrent(steps=3)
    graph = gp.analyze(model)
    kept = np.arange(1, 16, 2)
    pruned, _ = shrink(graph, "start:1")
    w = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    x = np.random.default_rng(5).standard_normal((4, 8)).astype(np.float32)
    h, states = x @ w["start"][:, kept], []
    for _ in range(3):
        h = np.tanh(h @ w["again"][np.ix_(kept, kept)] + x @ w["given"][:, kept])
        states.append(np.maximum(h, 0))
    found = run(pruned, {"x": x})
    assert found["last"] == pytest.approx(h @ w["read"][kept], abs=1e-5)
    assert found["all"] == pytest.approx(np.stack(states) @ w["read_all"][kept], abs=1e-5)


def test_a_loop_counts_as_often_as_it_runs() -> None:
    once = 8 * 16 * 2 + 16 * 5
    for steps in (1, 4):
        each = 16 * 16 + 16 * 3  # in the body, and behind the stacked states
        assert gp.analyze(recurrent(steps)).cost.evaluate().macs == once + steps * each


def test_a_scan_carries_its_state() -> None:
    model = build(
        SCANNED, h0=np.zeros((2, 16), np.float32), given=(8, 16), again=(16, 16), inner=(16, 12),
        read=(16, 5), read_all=(12, 3),
    )  # fmt: skip
    graph = gp.analyze(model)
    assert prunable(graph) == {"given:1": 16, "inner:1": 12}
    pruned, _ = shrink(graph, "given:1", "inner:1")
    found = shapes(pruned)
    assert found["h0"] == (2, 8)
    assert (found["again"], found["inner"], found["read_all"]) == ((8, 8), (8, 6), (6, 3))


@pytest.mark.parametrize("weight", ["w1", "w2"])
def test_both_branches_are_verified(weight: str) -> None:
    """The random input takes one branch; a wrong weight in the other one must show as well."""
    graph = gp.analyze(branches())
    removed = np.zeros(len(graph.analysis.algebra), bool)
    removed[graph.groups[1].units[::2]] = True
    pruned = cut(graph.analysis, removed)
    replace_weight(pruned, weight)
    with pytest.raises(ValidationError, match=r"masked original"):
        verify(graph.analysis, removed, pruned)


def replace_weight(model: Model, name: str) -> None:
    value = model.ir.graph.initializers[name]
    assert value.const_value is not None
    value.const_value = ir.tensor(value.const_value.numpy()[:, ::-1].copy(), name=name)


def test_a_loop_that_would_not_run_is_verified() -> None:
    """The random number of iterations may be zero."""
    text = RECURRENT.replace("(float[N, 8] x)", "(float[N, 8] x, int64 steps)").replace(
        "float[T, N, 3] all", "float[K, N, 3] all"
    )
    model = build(text, yes=np.bool_(True), **RECURRENT_WEIGHTS)
    graph = gp.analyze(model)
    pruned, _ = shrink(graph, "start:1")
    replace_weight(pruned, "again")
    removed = np.zeros(len(graph.analysis.algebra), bool)
    removed[next(g for g in graph.groups if g.id == "start:1").units[::2]] = True
    with pytest.raises(ValidationError):
        verify(graph.analysis, removed, pruned)


NESTED = """agraph (float[N, 8] x) => (float[N, 5] out) {
    h0 = MatMul(x, start)
    hT = Loop (steps, yes, h0) <body = body (int64 step, bool go, float[] h) => (bool go_on, float[] h_next) {
        go_on = Identity(go)
        even = Mod(step, two)
        is_odd = Cast<to = 9>(even)
        new = If (is_odd) <
            then_branch = odd () => (float[] result) { r = MatMul(h, again) result = Tanh(r) },
            else_branch = even () => (float[] result) {
                r = MatMul(h, once) p = Relu(r) result = MatMul(p, more)
            }
        >
        h_next = Add(h, new)
    }>
    g = MatMul(hT, again)
    out = MatMul(g, read)
}"""


def test_an_if_in_a_loop_and_a_weight_used_inside_and_outside() -> None:
    """The two branches use the same names; the square matrix ties its rows to its columns' consumers."""
    model = build(
        NESTED, start=(8, 16), again=(16, 16), once=(16, 12), more=(12, 16), read=(16, 5),
        steps=np.int64(3), yes=np.bool_(True), two=np.int64(2),
    )  # fmt: skip
    graph = gp.analyze(model)
    assert prunable(graph) == {"start:1": 16, "once:1": 12}
    pruned, _ = shrink(graph, "start:1", "once:1")
    assert shapes(pruned) == shapes(pruned) | {
        "start": (8, 8), "again": (8, 8), "once": (8, 6), "more": (6, 8), "read": (8, 5),
    }  # fmt: skip
    names = [v.name for n in pruned.ir.graph.all_nodes() for v in n.outputs]
    assert len(names) == len(set(names))


ATTENTION = """agraph (float[N, 6, 16] x) => (float[N, 6, 5] out) {
    hT = Loop (steps, , x0) <body = body (int64 step, bool go, float[] h) => (bool go_on, float[] h_next) {
        go_on = Identity(go)
        n = LayerNormalization(h, scale, bias)
        q0 = MatMul(n, wq)
        q1 = Reshape(q0, split)
        q = Transpose<perm = [0, 2, 1, 3]>(q1)
        k0 = MatMul(n, wk)
        k1 = Reshape(k0, split)
        k = Transpose<perm = [0, 2, 3, 1]>(k1)
        s = MatMul(q, k)
        p = Softmax(s)
        v0 = MatMul(n, wv)
        v1 = Reshape(v0, split)
        v = Transpose<perm = [0, 2, 1, 3]>(v1)
        a = MatMul(p, v)
        a1 = Transpose<perm = [0, 2, 1, 3]>(a)
        a2 = Reshape(a1, join)
        o = MatMul(a2, wo)
        h_next = Add(h, o)
    }>
    x0 = MatMul(x, start)
    out = MatMul(hT, read)
}"""


def attention() -> onnx.ModelProto:
    text = ATTENTION.replace("    x0 = MatMul(x, start)\n", "").replace(
        "    hT = Loop", "    x0 = MatMul(x, start)\n    hT = Loop"
    )
    return build(
        text, start=(16, 24), wq=(24, 12), wk=(24, 12), wv=(24, 12), wo=(12, 24), read=(24, 5),
        scale=np.linspace(0.5, 1.5, 24, dtype=np.float32), bias=np.linspace(-1, 1, 24, dtype=np.float32),
        split=np.array([0, 0, 3, 4]), join=np.array([0, 0, 12]), steps=np.int64(2),
    )  # fmt: skip


def test_heads_and_statistics_in_a_body() -> None:
    graph = gp.analyze(attention())
    kinds = {group.kind: group for group in graph.groups if group.prunable}
    assert {"heads", "head_dim", "channels"} <= set(kinds)
    assert kinds["heads"].size == 3
    pruned, verdict = shrink(graph, *(group.id for group in kinds.values()))
    assert not verdict.exact  # the norm in the body runs over the channels
    assert shapes(pruned)["wq"][0] == 12
    assert len({shapes(pruned)[name] for name in ("wq", "wk", "wv")}) >= 1
    assert all(n.graph is not pruned.ir.graph for n in pruned.ir.graph.all_nodes() if n.op_type == "Softmax")


def test_an_unknown_operator_in_a_body_blocks() -> None:
    graph = gp.analyze(recurrent(text=RECURRENT.replace("h_next = Tanh(a)", "h_next = custom.Step(a)")))
    assert not prunable(graph)
    assert "in its body stands custom::Step, which onnxruntime does not know" in reason(graph, "start:1")


def test_what_blocks_in_a_body_blocks_what_it_touches() -> None:
    """Another layer in the same branch is cut all the same."""
    text = BRANCHES.replace(
        "e = Tanh(m)", "d = Det(m) f = Add(m, d) k = MatMul(f, w4) r = Relu(k) e = MatMul(r, w5)"
    )
    text = text.replace("(float[N, 8] x)", "(float[7, 8] x)").replace("[N, 24] e", "[7, 24] e")
    model = build(
        text, w0=(8, 16), w1=(16, 24), w2=(16, 7), w3=(24, 5), w4=(7, 12), w5=(12, 24), zero=np.float32(0)
    )
    graph = gp.analyze(model)
    assert prunable(graph) == {"w0:1": 16, "w1:1": 24, "w4:1": 12}
    assert "a determinant needs the whole matrix" in reason(graph, "w2:1")
    shrink(graph, "w0:1", "w1:1", "w4:1")


def test_a_state_that_grows_is_left_alone() -> None:
    text = """agraph (float[N, 8] x) => (float[M, 5] last, float[N, 5] out) {
        h0 = MatMul(x, start)
        f0 = MatMul(x, first)
        hT, fT = Loop (steps, yes, h0, f0) <
            body = body (int64 step, bool go, float[] h, float[] f)
            => (bool go_on, float[] h_next, float[] f_next) {
            go_on = Identity(go)
            h_next = Concat<axis = 0>(h, h)
            r = MatMul(f, again)
            f_next = Tanh(r)
        }>
        last = MatMul(hT, read)
        out = MatMul(fT, read_out)
    }"""
    model = build(
        text, start=(8, 16), first=(8, 16), again=(16, 16), read=(16, 5), read_out=(16, 5),
        steps=np.int64(2), yes=np.bool_(True),
    )  # fmt: skip
    graph = gp.analyze(model)
    assert "carried through a loop changes" in reason(graph, "start:1")
    assert prunable(graph) == {"first:1": 16}  # the other state is not concerned
    shrink(graph, "first:1")


def test_branches_of_different_shape_are_left_alone() -> None:
    text = BRANCHES.replace("m = MatMul(h, w2) e = Tanh(m)", "e = MatMul(h, w2)").replace(
        "[N, 24] e", "[N, 1] e"
    )
    model = build(text, w0=(8, 16), w1=(16, 24), w2=(16, 1), w3=(24, 5), zero=np.float32(0))
    graph = gp.analyze(model)
    assert "the branches return different shapes" in reason(graph, "w1:1")


def test_a_sequence_is_not_followed() -> None:
    text = """agraph (float[N, 8] x) => (float[K, 5] out) {
        h0 = MatMul(x, start)
        s0 = SequenceEmpty()
        hT, sT = Loop (steps, yes, h0, s0) <
            body = body (int64 step, bool go, float[] h, seq(float[]) s)
            => (bool go_on, float[] h_next, seq(float[]) s_next) {
            go_on = Identity(go)
            r = MatMul(h, again)
            h_next = Tanh(r)
            o = MatMul(h_next, each)
            s_next = SequenceInsert(s, o)
        }>
        joined = ConcatFromSequence<axis = 0>(sT)
        out = MatMul(joined, read)
    }"""
    model = build(
        text,
        start=(8, 16),
        again=(16, 16),
        each=(16, 12),
        read=(12, 5),
        steps=np.int64(3),
        yes=np.bool_(True),
    )
    graph = gp.analyze(model)
    assert prunable(graph) == {"start:1": 16}
    assert "sequence" in reason(graph, "each:1").lower()
    shrink(graph, "start:1")


def test_a_branch_that_is_always_taken_takes_the_place_of_its_if() -> None:
    """Exporters of ``squeeze`` ask whether an axis is 1; the answer is known once the sizes are."""
    text = """agraph (float[N, 1, 8] x) => (float[N, 5] out) {
        h = MatMul(x, w0)
        s = Shape(h)
        d = Gather(s, one)
        c = Equal(d, one)
        y = If (c) <
            then_branch = then_graph () => (float[] t) { t = Squeeze(h, axis) },
            else_branch = else_graph () => (float[] t) { t = Identity(h) }
        >
        out = MatMul(y, w1)
    }"""
    graph = gp.analyze(build(text, w0=(8, 16), w1=(16, 5), one=np.int64(1), axis=np.array([1])))
    assert "If" not in [node.op_type for node in graph.model.ir.graph]
    assert prunable(graph) == {"w0:1": 16}
    shrink(graph, "w0:1")


def test_a_constant_condition_is_settled_on_loading() -> None:
    text = BRANCHES.replace("c = Greater(s, zero)", "c = Not(no)")
    model = gp.load(build(text, w0=(8, 16), w1=(16, 24), w2=(16, 24), w3=(24, 5), no=np.bool_(False)))
    assert [n.op_type for n in model.ir.graph if n.op_type not in ("ReduceSum",)] == [
        "MatMul",
        "MatMul",
        "Relu",
        "MatMul",
    ]
    assert "w2" not in shapes(gp.apply(model, gp.plan(model, target={"params": 0.6}, criterion="l2")))


def test_a_plan_names_what_stands_in_a_body(tmp_path: Path) -> None:
    """Saved, read and applied again, though both branches call their product ``m``."""
    onnx.save(branches(), tmp_path / "model.onnx")
    result = gp.prune(
        tmp_path / "model.onnx",
        tmp_path / "one.onnx",
        target={"params": 0.5},
        criterion="l2",
        plan_out=tmp_path / "plan.json",
    )
    plan = gp.Plan.load(tmp_path / "plan.json")
    assert {entry.name for entry in plan.parameters} == {"w0", "w1", "w2", "w3"}
    assert all(entry.uses is None for entry in plan.parameters)
    again = gp.prune(tmp_path / "model.onnx", tmp_path / "two.onnx", use_plan=plan)
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()
    assert result.plan.parameters == again.plan.parameters


def test_vectors_of_two_branches_are_cut_apart() -> None:
    """One vector of ones, read in both branches over channels of their own, gets a copy for each."""
    text = """agraph (float[N, 8] x, bool c) => (float[N, 5] out) {
        y = If (c) <
            then_branch = a () => (float[] t) { m = MatMul(x, a1) n = Mul(m, ones) t = MatMul(n, a2) },
            else_branch = b () => (float[] t) { m = MatMul(x, b1) n = Mul(m, ones) t = MatMul(n, b2) }
        >
        out = Add(y, last)
    }"""
    model = build(
        text, a1=(8, 16), a2=(16, 5), b1=(8, 16), b2=(16, 5), ones=np.linspace(1, 2, 16, dtype=np.float32),
        last=np.zeros(5, np.float32),
    )  # fmt: skip
    graph = gp.analyze(model)
    assert prunable(graph) == {"a1:1": 16, "b1:1": 16}
    pruned, _ = shrink(graph, "a1:1")
    assert sorted(s for n, s in shapes(pruned).items() if n.startswith("ones")) == [(8,), (16,)]


def test_a_function_with_a_body_is_inlined() -> None:
    model = branches()
    calls = onnx.parser.parse_function(
        '<opset_import: ["": 18], domain: "local"> Twice (h) => (y) {'
        " s = ReduceSum<keepdims = 0>(h) z = Sub(s, s)"
        " c = Equal(s, z) y = If (c) <then_branch = t () => (float[] q) { q = Relu(h) },"
        " else_branch = e () => (float[] q) { q = Tanh(h) }> }"
    )
    model.functions.append(calls)
    model.opset_import.append(onnx.helper.make_opsetid("local", 1))
    first = model.graph.node[0]
    first.output[0] = "raw"
    model.graph.node.insert(1, onnx.helper.make_node("Twice", ["raw"], ["h"], domain="local"))
    onnx.checker.check_model(model)
    graph = gp.analyze(model)
    assert not graph.model.ir.functions
    assert prunable(graph) == {"w0:1": 16, "w1:1": 24}
    shrink(graph, "w0:1", "w1:1")


def test_what_a_body_holds_can_be_explained() -> None:
    graph = gp.analyze(recurrent())
    assert graph.explain("again", 1).groups == ["start:1"]
    blocked = gp.analyze(recurrent(text=RECURRENT.replace("h_next = Tanh(a)", "h_next = custom.Step(a)")))
    assert "custom::Step" in blocked.explain("start", 1).reasons[0]


def test_positions_are_not_followed_out_of_a_body() -> None:
    """TopK's indices leave a branch: whoever reads them outside does not know whose positions they are."""
    text = """agraph (float[2, 8] x, bool c) => (float[2, 3, 5] out) {
        scores = MatMul(x, router)
        i = If (c) <
            then_branch = a () => (int64[] t) { v, t = TopK(scores, three) },
            else_branch = b () => (int64[] t) { n = Neg(scores) v, t = TopK(n, three) }
        >
        out = Gather(table, i)
    }"""
    graph = gp.analyze(build(text, router=(8, 16), table=(16, 5), three=np.array([3])))
    assert not prunable(graph)


def test_a_weight_that_is_handed_on_unchanged_is_a_weight() -> None:
    """Then a sum over its removed rows is exact; a state that changes may hold anything there."""
    text = RECURRENT.replace("(steps, yes, h0)", "(steps, yes, h0, again)").replace(
        "hT, hs =", "hT, same, hs ="
    )
    text = text.replace("bool go, float[] h)", "bool go, float[] h, float[] w)").replace(
        "MatMul(h, again)", "MatMul(h, w)"
    )
    text = text.replace("float[] h_next, float[] scanned", "float[] h_next, float[] w_next, float[] scanned")
    graph = gp.analyze(recurrent(text=text.replace("r = MatMul(h", "w_next = Identity(w) r = MatMul(h")))
    assert prunable(graph) == {"start:1": 16}
    pruned, verdict = shrink(graph, "start:1")
    assert shapes(pruned)["again"] == (8, 8)
    assert verdict.exact


def test_sizes_inside_a_loop_are_as_settled_as_outside() -> None:
    trace = gp.analyze(recurrent()).analysis.trace
    for name in ("h", "h_next", "hT"):
        assert trace.shapes[name][1] == 16
        assert trace.is_dynamic(name, 0)
        assert not trace.is_dynamic(name, 1)


def test_a_clamped_state_is_not_settled() -> None:
    """Cut off at two rows in each iteration: so it is in both traced runs, and need not be in a third."""
    text = """agraph (float[L, 16] y) => (float[M, 5] out) {
        hT = Loop (steps, , h0) <
            body = body (int64 step, bool go, float[] h) => (bool go_on, float[] h_next) {
            go_on = Identity(go)
            h_next = Slice(y, none, two, none)
        }>
        out = MatMul(hT, read)
    }"""
    model = build(
        text,
        h0=np.ones((2, 16), np.float32),
        read=(16, 5),
        steps=np.int64(2),
        none=np.array([0]),
        two=np.array([2]),
    )
    trace = gp.analyze(model).analysis.trace
    assert trace.shapes["hT"] == (2, 16)
    assert trace.is_dynamic("hT", 0)
