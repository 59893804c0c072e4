"""Whole experts go: router rows, expert weights, positions in constants, dead branches."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from networks import build, initializer, replace

import graphprune as gp
from graphprune.check import validate
from graphprune.errors import PlanError
from graphprune.groups import Group
from graphprune.oracle import verify
from graphprune.rewrite import cut

EXPERTS, K, WIDTH, INNER = 6, 2, 8, 12


def unrolled() -> onnx.ModelProto:
    """Every expert runs, and is weighted by what the router scattered into place."""
    parts = []
    for e in range(EXPERTS):
        parts.append(f"""
            h{e} = MatMul(x, up{e}) r{e} = Relu(h{e}) d{e} = MatMul(r{e}, down{e})
            w{e} = Slice(weights, s{e}, s{e + 1}, last) p{e} = Mul(d{e}, w{e})""")
    sums = " ".join(f"t{e} = Add({'p0' if e == 1 else f't{e - 1}'}, p{e})" for e in range(1, EXPERTS))
    body = f"""
        logits = MatMul(x, router) scores = Softmax <axis=-1> (logits) v, i = TopK(scores, k)
        size = Shape(scores) none = Expand(zero, size)
        weights = ScatterElements <axis=-1> (none, i, v)
        {" ".join(parts)} {sums} y = Add(x, t{EXPERTS - 1})"""
    weights: dict[str, object] = {
        "router": (WIDTH, EXPERTS),
        "zero": np.zeros(1, np.float32),
        "k": [K],
        "last": [-1],
    }
    weights |= {f"up{e}": (WIDTH, INNER) for e in range(EXPERTS)}
    weights |= {f"down{e}": (INNER, WIDTH) for e in range(EXPERTS)}
    weights |= {f"s{e}": [e] for e in range(EXPERTS + 1)}
    return build(f"(float[n, {WIDTH}] x) => (float[n, {WIDTH}] y)", body, weights, opset=18)


def stacked() -> onnx.ModelProto:
    """The weights of the chosen experts are gathered for each token."""
    body = """
        logits = MatMul(x, router) v, i = TopK(logits, k) p = Softmax <axis=-1> (v)
        up = Gather(w1, i) down = Gather(w2, i) u = Unsqueeze(x, mid) h = MatMul(u4, up)
        r = Relu(h) d = MatMul(r, down) q = Unsqueeze(p, tail) m = Mul(d, q)
        s = ReduceSum <keepdims=0> (m, both)
        y = Add(x, s)"""
    body = body.replace("u = Unsqueeze(x, mid)", "u4 = Unsqueeze(x, mid)")
    weights = {
        "router": (WIDTH, EXPERTS), "w1": (EXPERTS, WIDTH, INNER), "w2": (EXPERTS, INNER, WIDTH), "k": [K],
        "mid": [1, 2], "tail": [2, 3], "both": [1, 2],
    }  # fmt: skip
    return build(f"(float[n, {WIDTH}] x) => (float[n, {WIDTH}] y)", body, weights, opset=18)


def soft() -> onnx.ModelProto:
    """Outputs of all experts in one tensor, weighted by a gate over all of them."""
    weights: dict[str, object] = {"router": (WIDTH, EXPERTS), "mid": [1], "last": [-1]}
    weights |= {f"up{e}": (WIDTH, INNER) for e in range(EXPERTS)} | {
        f"down{e}": (INNER, WIDTH) for e in range(EXPERTS)
    }
    parts = " ".join(
        f"h{e} = MatMul(x, up{e}) r{e} = Relu(h{e}) d{e} = MatMul(r{e}, down{e}) u{e} = Unsqueeze(d{e}, mid)"
        for e in range(EXPERTS)
    )
    stack = ", ".join(f"u{e}" for e in range(EXPERTS))
    body = f"""
        logits = MatMul(x, router) gate = Softmax <axis=-1> (logits) {parts} all = Concat <axis=1> ({stack})
        g3 = Unsqueeze(gate, last) m = Mul(all, g3) s = ReduceSum <keepdims=0> (m, mid) y = Add(x, s)"""
    return build(f"(float[n, {WIDTH}] x) => (float[n, {WIDTH}] y)", body, weights, opset=18)


def one_hot(*, unrolled_masks: bool) -> onnx.ModelProto:
    """Routing by comparing positions with constants."""
    weights: dict[str, object] = {"router": (WIDTH, EXPERTS), "k": [K], "last": [-1], "mid": [1]}
    head = "logits = MatMul(x, router) v, i = TopK(logits, k) p = Softmax <axis=-1> (v) "
    if not unrolled_masks:
        weights |= {
            "classes": list(range(EXPERTS)),
            "w1": (EXPERTS, WIDTH, INNER),
            "w2": (EXPERTS, INNER, WIDTH),
        }
        body = (
            head
            + """
            i3 = Unsqueeze(i, last) hit = Equal(i3, classes) f = Cast <to=1> (hit) p3 = Unsqueeze(p, last)
            g = Mul(f, p3) gate = ReduceSum <keepdims=0> (g, mid)
            h = Einsum <equation="nd,edi->nei"> (x, w1) r = Relu(h)
            d = Einsum <equation="nei,eid->ned"> (r, w2)
            g3 = Unsqueeze(gate, last) m = Mul(d, g3) s = ReduceSum <keepdims=0> (m, mid) y = Add(x, s)"""
        )
    else:
        parts = []
        for e in range(EXPERTS):
            weights |= {f"e{e}": np.array(e), f"up{e}": (WIDTH, INNER), f"down{e}": (INNER, WIDTH)}
            parts.append(f"""
                b{e} = Equal(i, e{e}) f{e} = Cast <to=1> (b{e}) g{e} = Mul(f{e}, p)
                w{e} = ReduceSum(g{e}, last)
                h{e} = MatMul(x, up{e}) r{e} = Relu(h{e}) d{e} = MatMul(r{e}, down{e})
                p{e} = Mul(d{e}, w{e})""")
        operands = ", ".join(["x", *(f"p{e}" for e in range(EXPERTS))])
        body = head + " ".join(parts) + f" y = Sum({operands})"
    return build(f"(float[n, {WIDTH}] x) => (float[n, {WIDTH}] y)", body, weights, opset=18)


def reasons_of_router(model: onnx.ModelProto) -> set[str | None]:
    groups = gp.analyze(model).groups
    return {g.reason for g in groups if ("router", 1) in {(m.name, m.axis) for m in g.members}}


MODELS = {
    "unrolled": unrolled(),
    "stacked": stacked(),
    "one-hot": one_hot(unrolled_masks=False),
    "compared": one_hot(unrolled_masks=True),
}


def experts(graph: gp.DependencyGraph) -> list[Group]:
    return [g for g in graph.groups if g.kind == "experts"]


@pytest.mark.parametrize("name", MODELS)
def test_experts_are_one_group_that_keeps_as_many_as_are_chosen(name: str) -> None:
    (group,) = experts(gp.analyze(MODELS[name]))
    assert (group.size, group.least, group.prunable, group.exact) == (EXPERTS, K, True, False)
    expected = {"router"} | (
        {"w1", "w2"}
        if name in ("stacked", "one-hot")
        else {f"{w}{e}" for w in ("up", "down") for e in range(EXPERTS)}
    )
    assert expected <= {m.name for m in group.members}


@pytest.mark.parametrize("name", MODELS)
def test_half_of_the_experts_go_and_the_oracle_agrees(name: str) -> None:
    result = gp.prune(MODELS[name], target={"params": 0.55}, criterion="l2", kinds=["experts"])
    (kept,) = (g for g in result.plan.groups if g.kind == "experts")
    assert len(kept.keep) < EXPERTS
    assert result.verdict is not None
    sizes = {v.name: v.const_value.shape.numpy() for v in result.model.ir.graph.initializers.values()}
    assert sizes["router"] == (WIDTH, len(kept.keep))
    dead = [e for e in range(EXPERTS) if e not in kept.keep]
    if name in ("stacked", "one-hot"):
        assert sizes["w1"] == (len(kept.keep), WIDTH, INNER)
    else:
        assert not {f"up{e}" for e in dead} & set(sizes)
        assert {f"up{e}" for e in kept.keep} <= set(sizes)
        gone = {p.name for p in result.plan.parameters if not p.keep}
        assert {f"up{e}" for e in dead} <= gone


@pytest.mark.parametrize("name", MODELS)
def test_experts_and_all_else_go_together(name: str) -> None:
    result = gp.prune(MODELS[name], target={"params": 0.3}, criterion="l2", floor=0.0)
    assert result.verdict is not None
    again = gp.prune(MODELS[name], use_plan=result.plan)
    assert again.after == result.after


def test_pruned_experts_run_as_the_original_with_the_router_masked() -> None:
    """By hand, without the oracle: logits of removed experts at minus infinity."""
    result = gp.prune(MODELS["unrolled"], target={"params": 0.55}, criterion="l2", kinds=["experts"])
    keep = next(g.keep for g in result.plan.groups)
    masked = onnx.ModelProto()
    masked.CopyFrom(MODELS["unrolled"])
    bias = np.full(EXPERTS, -1e9, np.float32)
    bias[keep] = 0
    masked.graph.initializer.append(onnx.numpy_helper.from_array(bias, "bias"))
    nodes = list(masked.graph.node)
    nodes[0].output[0] = "raw"
    nodes.insert(1, onnx.helper.make_node("Add", ["raw", "bias"], ["logits"]))
    del masked.graph.node[:]
    masked.graph.node.extend(nodes)
    x = np.random.default_rng(0).standard_normal((9, WIDTH)).astype(np.float32)
    outputs = [
        ort.InferenceSession(m.SerializeToString()).run(None, {"x": x})[0]
        for m in (masked, result.model.to_proto())
    ]
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-6)


def test_a_plan_that_keeps_fewer_experts_than_are_chosen_is_refused() -> None:
    plan = gp.prune(MODELS["stacked"], target={"params": 0.55}, criterion="l2", kinds=["experts"]).plan
    few = [dataclasses.replace(p, keep=p.keep[:1]) for p in plan.parameters]
    with pytest.raises(PlanError, match="keeps 1 positions where 2 are needed"):
        gp.apply(MODELS["stacked"], dataclasses.replace(plan, parameters=few))


def test_inner_widths_of_unrolled_experts_are_groups_of_their_own() -> None:
    graph = gp.analyze(MODELS["unrolled"])
    inner = {g.id for g in graph.groups if g.kind == "channels" and g.size == INNER}
    assert inner == {f"up{e}:1" for e in range(EXPERTS)}


def test_outputs_of_all_experts_in_one_tensor() -> None:
    """Nobody counts positions here, so these are channels of the gate; the branches go with them."""
    graph = gp.analyze(soft())
    (gate,) = (g for g in graph.groups if ("router", 1) in {(m.name, m.axis) for m in g.members})
    assert (gate.size, gate.prunable) == (EXPERTS, True)
    result = gp.prune(soft(), target={"params": 0.55}, criterion="l2", include=[gate.id])
    assert result.verdict is not None
    names = set(result.model.ir.graph.initializers)
    (kept,) = (g.keep for g in result.plan.groups)
    assert {f"up{e}" for e in kept} == {n for n in names if n.startswith("up")}


def test_positions_that_leave_the_model_keep_all_experts() -> None:
    model = onnx.ModelProto()
    model.CopyFrom(MODELS["stacked"])
    model.graph.output.append(onnx.helper.make_tensor_value_info("i", onnx.TensorProto.INT64, ["n", K]))
    assert reasons_of_router(model) == {"model output 'i' counts its positions"}


def test_positions_in_arithmetic_keep_all_experts() -> None:
    model = onnx.ModelProto()
    model.CopyFrom(MODELS["stacked"])
    for node in model.graph.node:
        for n, name in enumerate(node.input):
            if name == "i" and node.output[0] == "down":
                node.input[n] = "j"
    model.graph.node.insert(2, onnx.helper.make_node("Neg", ["i"], ["minus"], "neg"))
    model.graph.node.insert(3, onnx.helper.make_node("Abs", ["minus"], ["j"], "abs"))
    assert reasons_of_router(model) == {"its positions are used as numbers (Neg 'neg')"}


def split_gates(form: str) -> onnx.ModelProto:
    """A gate over all experts is taken apart by one Split."""
    parts = " ".join(
        f"h{e} = MatMul(x, up{e}) r{e} = Relu(h{e}) d{e} = MatMul(r{e}, down{e}) p{e} = Mul(a{e}, d{e})"
        for e in range(EXPERTS)
    )
    gates, terms = (", ".join(f"{name}{e}" for e in range(EXPERTS)) for name in "ap")
    ones = str([1] * EXPERTS)
    split, opset = {
        "sizes": ("<axis=1> (gate, ones)", 13),
        "number": (f"<axis=1, num_outputs={EXPERTS}> (gate)", 18),
        "attribute": (f"<axis=1, split={ones}> (gate)", 11),
        "equal": ("<axis=1> (gate)", 11),
    }[form]
    body = f"gate = MatMul(x, router) {gates} = Split {split} {parts} y = Sum(x, {terms})"
    weights: dict[str, object] = {"router": (WIDTH, EXPERTS)}
    weights |= {"ones": [1] * EXPERTS} if form == "sizes" else {}
    weights |= {f"up{e}": (WIDTH, INNER) for e in range(EXPERTS)}
    weights |= {f"down{e}": (INNER, WIDTH) for e in range(EXPERTS)}
    return build(f"(float[n, {WIDTH}] x) => (float[n, {WIDTH}] y)", body, weights, opset=opset)


@pytest.mark.parametrize("form", ["sizes", "number", "attribute", "equal"])
def test_a_split_into_gates_has_no_output_for_experts_that_are_gone(form: str) -> None:
    model = split_gates(form)
    graph = gp.analyze(model)
    (group,) = (g for g in graph.groups if g.id == "router:1")
    keep = [1, 2, 4]
    removed = np.zeros(len(graph.analysis.algebra), bool)
    removed[np.delete(group.units, keep)] = True
    cut_model = cut(graph.analysis, removed)
    assert verify(graph.analysis, removed, cut_model).exact
    pruned = cut_model.to_proto()
    validate(cut_model)
    assert "up0" not in {t.name for t in pruned.graph.initializer}
    (split,) = (n for n in pruned.graph.node if n.op_type == "Split")
    assert list(split.output) == [f"a{e}" for e in keep]
    # By hand, without the oracle: the gates of removed experts are zero.
    masked = onnx.ModelProto()
    masked.CopyFrom(model)
    router = initializer(masked, "router").copy()
    router[:, [e for e in range(EXPERTS) if e not in keep]] = 0
    replace(masked, "router", router)
    x = np.random.default_rng(0).standard_normal((9, WIDTH)).astype(np.float32)
    outputs = [ort.InferenceSession(m.SerializeToString()).run(None, {"x": x})[0] for m in (masked, pruned)]
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-5)
