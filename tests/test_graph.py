"""Questions to the dependency graph, and changes of a file that must not change its answers."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import numpy as np
import onnx
import pytest
from networks import NETWORKS, build, graph_of
from onnx import helper

from graphprune.errors import UsageError
from graphprune.graph import DependencyGraph, analyze
from graphprune.model import load
from graphprune.rules.blocked import why_blocked

Shape = tuple[str, int, bool, bool, frozenset[str]]


def shapes(graph: DependencyGraph) -> set[Shape]:
    """What the groups are, whatever they are called."""
    return {
        (g.kind, g.size, g.exact, g.prunable, frozenset(f"{m.name}:{m.axis}" for m in g.members))
        for g in graph.groups
    }


# ---- explain ------------------------------------------------------------------------------------


def test_explain_lists_what_goes_together() -> None:
    found = graph_of("mlp").explain("a.w", 1)
    assert (found.value, found.axis, found.size) == ("a.w", 1, 10)
    assert found.members == [("a.b", 0), ("a.w", 1), ("b.w", 0)]
    assert found.groups == ["a.w:1"]
    assert (found.blocked, found.reasons, found.chain) == ({}, [], [])


def test_explain_takes_activations_and_negative_axes() -> None:
    graph = graph_of("mlp")
    by_value = graph.explain("ar", -1)
    assert by_value.axis == 1
    assert by_value.members == graph.explain("a.w", 1).members


def test_explain_gives_the_reason_of_the_unknown_operator_and_the_way_to_it() -> None:
    found = graph_of("other_domain").explain("c.w", 0)
    assert found.reasons == [f"{why_blocked('com.microsoft', 'Trilu')} (Trilu 'Trilu_g')"]


def test_chain_leads_through_every_node_to_the_model_output() -> None:
    found = graph_of("cnn").explain("fc.w", 0)
    assert found.reasons == ["model output 'y'"]
    assert (found.groups, found.blocked) == ([], {"fc.w:0": "model output 'y'"})
    assert [(s.source, s.op_type, s.target) for s in found.chain] == [(("fc.w", 0), "Gemm", ("y", 1))]


def test_chain_leads_to_the_blocking_node() -> None:
    """Into the body of an If."""
    model = NETWORKS["conditional"]()
    branch = next(a.g for a in model.graph.node[-2].attribute if a.name == "else_branch")
    branch.node[1].op_type = "Det"
    branch.node[1].input[:] = ["br"]
    found = analyze(load(model)).explain("b.w", 1)
    assert found.reasons == ["a determinant needs the whole matrix (Det 'negated')"]
    assert [step.op_type for step in found.chain] == ["MatMul", "Relu"]
    for step, following in zip(found.chain, found.chain[1:], strict=False):
        assert step.target == following.source


def test_explain_of_an_input_is_its_own_reason() -> None:
    found = graph_of("cnn").explain("x", 1)
    assert found.reasons == ["model input 'x'"]
    assert found.groups == []


@pytest.mark.parametrize("name", NETWORKS)
def test_every_axis_of_every_tensor_can_be_explained(name: str) -> None:
    graph, trace = graph_of(name), graph_of(name).analysis.trace
    tensors = [*graph.analysis.axes, *graph.model.ir.graph.initializers]
    for tensor in tensors:
        for d, axis in enumerate(graph.axes_named(tensor)):
            found = graph.explain(tensor, d)
            nominal = trace.nominal.get(tensor)
            assert found.size == (axis.size if nominal is None else nominal[d])
            assert found.size == axis.size or trace.is_dynamic(tensor, d)
            assert "not frozen" not in found.reasons, (tensor, d)
            # Prunable as a whole, or with a reason: never neither.
            assert found.reasons or found.groups, (tensor, d)
            # Every group is either one that can shrink or one with a reason.
            assert found.groups == [g.id for g in graph.groups_of(axis) if g.prunable]
            expected = {g.id: g.reason for g in graph.groups_of(axis) if not g.prunable}
            assert found.blocked == expected
            assert all(found.blocked.values()), (tensor, d)
            assert found.reasons or not found.chain


def test_size_is_the_one_a_user_would_run_with() -> None:
    graph = analyze(load(NETWORKS["attention"]()), {"time": 9})
    assert [graph.explain("x", axis).size for axis in range(3)] == [1, 9, 12]
    assert [graph.explain("o.w", axis).size for axis in range(2)] == [12, 12]


@pytest.mark.parametrize(("tensor", "axis"), [("qkv.w", 1), ("qkv.b", 0), ("m", 2)])
def test_axis_of_several_factors_shrinks_by_heads_but_not_by_which_of_q_k_v(tensor: str, axis: int) -> None:
    """A product of [3, heads, head_dim]: blocked in one factor, so not blocked as a whole."""
    found = graph_of("attention_fused_gather").explain(tensor, axis)
    assert found.groups == ["qkv.w:1/heads", "qkv.w:1/head_dim"]
    assert found.blocked == {"qkv.w:1": "model output 'y' is made of it"}
    assert (found.size, found.reasons, found.chain) == (36, [], [])
    assert found.members == [("o.w", 0), ("qkv.b", 0), ("qkv.w", 1)]


def test_explain_suggests_what_may_have_been_meant() -> None:
    for given, meant in (("stem.ww", "stem.w"), ("stm.bias", "stem.b"), ("fc.v", "fc.w")):
        with pytest.raises(UsageError, match=f"no tensor '{given}'") as caught:
            graph_of("cnn").explain(given)
        hint = caught.value.hint or ""
        assert meant in hint.removeprefix("one of ").split(", ")
    with pytest.raises(UsageError) as caught:
        graph_of("cnn").explain("zzzzzz")
    assert caught.value.hint == "a name that `graphprune inspect` lists"


def test_explain_refuses_what_is_not_there() -> None:
    with pytest.raises(UsageError, match="no tensor 'fc'") as caught:
        graph_of("cnn").explain("fc")
    assert "fc.w" in (caught.value.hint or "")
    with pytest.raises(UsageError, match=r"'fc\.w' has no axis 2"):
        graph_of("cnn").explain("fc.w", 2)
    with pytest.raises(UsageError, match="has no axis -3"):
        graph_of("cnn").explain("fc.w", -3)


# ---- the networkx view --------------------------------------------------------------------------


def test_networkx_view_is_bipartite_and_names_groups() -> None:
    graph = graph_of("cnn")
    ops = [v for v in graph.nx if v[0] == "op"]
    assert len(ops) == len(graph.model.ir.graph)
    assert all({a[0], b[0]} == {"op", "axis"} for a, b in graph.nx.edges)
    assert graph.nx.nodes["axis", "stem.w", 0]["groups"] == ["stem.w:0"]
    assert graph.nx.nodes["axis", "stem.w", 0]["size"] == 8
    assert graph.nx.nodes["op", "s"]["op_type"] == "Conv"


@pytest.mark.parametrize("name", ["cnn", "dense", "depthwise_se", "mlp", "gated_mlp"])
def test_members_of_a_group_are_connected_in_the_networkx_view(name: str) -> None:
    graph = graph_of(name)
    for group in (g for g in graph.groups if g.kind != "blocks"):
        inside = [v for v, data in graph.nx.nodes(data=True) if v[0] == "op" or group.id in data["groups"]]
        view = graph.nx.subgraph(inside)
        reached = nx.node_connected_component(view, ("axis", group.members[0].name, group.members[0].axis))
        assert {("axis", m.name, m.axis) for m in group.members} <= reached


def test_prunable_fraction_counts_elements_that_can_go() -> None:
    graph = graph_of("mlp")
    # Everything but the output's bias has a prunable axis.
    total = 6 * 10 + 10 + 10 * 8 + 8 + 8 * 3 + 3
    assert graph.prunable_params_fraction() == pytest.approx(1 - 3 / total)


def test_analyze_takes_what_load_takes(tmp_path: Path) -> None:
    onnx.save(NETWORKS["cnn"](), tmp_path / "m.onnx")
    for source in (tmp_path / "m.onnx", str(tmp_path / "m.onnx"), NETWORKS["cnn"]()):
        graph = analyze(source)
        assert shapes(graph) == shapes(graph_of("cnn"))
    assert analyze(tmp_path / "m.onnx").sha256 == load(tmp_path / "m.onnx").sha256


# ---- metamorphic --------------------------------------------------------------------------------


def renamed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every value and node that is no parameter or interface gets another name."""
    kept = {v.name for v in (*model.graph.input, *model.graph.output)} | {
        t.name for t in model.graph.initializer
    }

    def new(name: str) -> str:
        return name if not name or name in kept else f"zz/{name[::-1]}"

    def rename(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            node.name = f"other/{node.output[0]}"
            node.input[:] = [new(n) for n in node.input]
            node.output[:] = [new(n) for n in node.output]
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    rename(attribute.g)
        for value in graph.output:
            value.name = new(value.name)

    rename(model.graph)
    return model


def permuted(model: onnx.ModelProto) -> onnx.ModelProto:
    """Another topological order, and the initializers shuffled."""
    rng = np.random.default_rng(1)
    waiting = list(model.graph.node)
    ready = {v.name for v in model.graph.input} | {t.name for t in model.graph.initializer} | {""}
    order = []
    while waiting:
        can = [i for i, n in enumerate(waiting) if _reads(n) <= ready]
        node = waiting.pop(can[rng.integers(len(can))])
        ready |= set(node.output)
        order.append(node)
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in order]
    tensors = [onnx.TensorProto.FromString(t.SerializeToString()) for t in model.graph.initializer]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(copies)
    model.graph.initializer.extend(tensors[i] for i in rng.permutation(len(tensors)))
    return model


def _reads(node: onnx.NodeProto) -> set[str]:
    inner = [n for a in node.attribute for n in a.g.node]
    made = {o for n in inner for o in n.output}
    return set(node.input) | {i for n in inner for i in n.input if i not in made}


def with_identities(model: onnx.ModelProto) -> onnx.ModelProto:
    """An Identity in front of every input of every node, constants included."""
    nodes = []
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name:
                copy = f"{node.output[0]}/in{i}"
                nodes.append(helper.make_node("Identity", [name], [copy], name=copy))
                node.input[i] = copy
        nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def constants_as_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Initializers become Constant nodes."""
    nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in model.graph.initializer]
    nodes += [onnx.NodeProto.FromString(n.SerializeToString()) for n in model.graph.node]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    return model


@pytest.mark.parametrize("change", [renamed, permuted, with_identities, constants_as_nodes])
@pytest.mark.parametrize("name", NETWORKS)
def test_groups_do_not_depend_on_how_the_file_is_written(name: str, change) -> None:  # type: ignore[no-untyped-def]
    other = change(NETWORKS[name]())
    assert shapes(analyze(load(other))) == shapes(graph_of(name))


@pytest.mark.parametrize("name", ["cnn", "attention", "grouped_query", "batch_times_heads"])
def test_groups_do_not_depend_on_the_sizes_asked_for(name: str) -> None:
    model = load(NETWORKS[name]())
    assert shapes(analyze(model, {"batch": 3})) == shapes(graph_of(name))


def test_analysis_leaves_the_model_as_it_is() -> None:
    proto = NETWORKS["shape_arithmetic"]()
    before = proto.SerializeToString(deterministic=True)
    model = load(proto)
    kept = model.to_proto().SerializeToString(deterministic=True)
    analyze(model)
    assert proto.SerializeToString(deterministic=True) == before
    assert model.to_proto().SerializeToString(deterministic=True) == kept


def test_names_of_nodes_may_be_empty() -> None:
    model = NETWORKS["cnn"]()
    for node in model.graph.node:
        node.name = ""
    graph = analyze(load(model))
    assert shapes(graph) == shapes(graph_of("cnn"))
    assert graph.explain("fc.w", 0).reasons == ["model output 'y'"]


def test_an_axis_of_size_one_has_nothing_to_give() -> None:
    model = build(
        "(float[batch, 4] x) => (float[batch, 3] y)",
        "a = MatMul (x, a.w) y = MatMul (a, b.w)",
        {"a.w": (4, 1), "b.w": (1, 3)},
    )
    assert analyze(load(model)).explain("a.w", 1).reasons == ["an axis of size 1 has nothing to give"]


def test_explain_takes_the_axis_with_the_name() -> None:
    graph = graph_of("attention")
    name = next(group.members[0].name for group in graph.groups if group.members[0].axis == 1)
    assert graph.explain(f"{name}:1") == graph.explain(name, 1) != graph.explain(name)
    assert graph.explain(f"{name}:-1") == graph.explain(name, -1)
    assert graph.explain(name) == graph.explain(name, 0)
    for group in graph.groups:
        if group.kind != "blocks":
            assert group.id in {*graph.explain(group.id).groups, *graph.explain(group.id).blocked}
