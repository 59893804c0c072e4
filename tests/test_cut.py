"""The cut file: the right numbers in the right places, and everything else as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import NETWORKS, Array, build, feeds, graph_of, initializer, replace, run, weight
from onnx import helper, numpy_helper

from graphprune import api
from graphprune.cost import measure
from graphprune.graph import DependencyGraph, analyze
from graphprune.model import Model, load
from graphprune.plan import Plan
from graphprune.planner import make_plan
from graphprune.rewrite import cut

EXACT = [name for name in NETWORKS if name != "merged_constants"]


def some_units(graph: DependencyGraph, *, exact_only: bool = False, seed: int = 0) -> Array:
    """About half of every prunable group, at random."""
    rng = np.random.default_rng(seed)
    removed = np.zeros(len(graph.analysis.algebra), bool)
    for group in graph.groups:
        if group.prunable and (group.exact or not exact_only):
            removed[group.units[rng.permutation(group.size)[: group.size // 2]]] = True
    return removed


def masked(model: onnx.ModelProto, plan: Plan) -> onnx.ModelProto:
    """The original with zeros at the removed positions: an oracle that shares no code with ours."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    for entry in plan.parameters:
        assert entry.uses is None
        array = initializer(model, entry.name).copy()
        gone = np.setdiff1d(np.arange(entry.size), entry.keep)
        array[(slice(None),) * entry.axis + (gone,)] = 0
        replace(model, entry.name, array)
    return model


@pytest.mark.parametrize("name", EXACT)
def test_cut_equals_the_original_with_zeros(name: str) -> None:
    """At batch and time sizes that the analysis has never seen."""
    original, graph = NETWORKS[name](), graph_of(name)
    removed = some_units(graph, exact_only=True)
    plan = make_plan(graph, removed, {})
    pruned = cut(graph.analysis, removed).to_proto()
    assert plan.parameters
    for batch, time in ((1, 6), (3, 11)):
        inputs = feeds(original, batch=batch, time=time)
        for expected, found in zip(run(masked(original, plan), inputs), run(pruned, inputs), strict=True):
            assert np.abs(expected).max() > 1e-3
            assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_cut_is_valid_and_smaller(name: str) -> None:
    graph = graph_of(name)
    pruned = cut(graph.analysis, some_units(graph))
    onnx.checker.check_model(pruned.to_proto(), full_check=True)
    assert pruned.weight_bytes < graph.model.weight_bytes


@pytest.mark.parametrize("name", NETWORKS)
def test_kept_rows_are_those_of_the_plan(name: str) -> None:
    original, graph = NETWORKS[name](), graph_of(name)
    removed = some_units(graph)
    pruned = cut(graph.analysis, removed).to_proto()
    wanted: dict[str, Array] = {}
    for entry in make_plan(graph, removed, {}).parameters:
        if entry.uses is None:
            array = wanted.get(entry.name, initializer(original, entry.name))
            wanted[entry.name] = np.take(array, entry.keep, axis=entry.axis)
    for tensor, array in wanted.items():
        assert np.array_equal(initializer(pruned, tensor), array)


# ---- shared constants ---------------------------------------------------------------------------


def test_uses_of_a_shared_constant_are_cut_apart() -> None:
    model = NETWORKS["merged_constants"]()
    # Distinct numbers, so that a copy of the wrong rows shows.
    replace(model, "ones", np.arange(1, 9, dtype=np.float32))
    graph = analyze(load(model))
    first, second = (g for g in graph.groups if g.prunable and g.kind == "channels")
    removed = np.zeros(len(graph.analysis.algebra), bool)
    removed[first.units[[0, 2]]] = removed[second.units[[7]]] = True
    pruned = cut(graph.analysis, removed).to_proto()
    nodes = {n.output[0]: n for n in pruned.graph.node}
    scales = [initializer(pruned, nodes[name].input[1]) for name in ("as", "bs")]
    assert scales[0].tolist() == [2, 4, 5, 6, 7, 8]
    assert scales[1].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert initializer(model, "ones").tolist() == list(range(1, 9))


def test_uses_that_keep_the_same_share_one_copy() -> None:
    graph = graph_of("merged_constants")
    removed = np.zeros(len(graph.analysis.algebra), bool)
    for group in graph.groups:
        if group.prunable and group.kind == "channels":
            removed[group.units[[1, 5]]] = True
    pruned = cut(graph.analysis, removed).to_proto()
    nodes = {n.output[0]: n for n in pruned.graph.node}
    assert nodes["as"].input[1] == nodes["bs"].input[1] == "ones"
    assert [t.name for t in pruned.graph.initializer].count("ones") == 1


def test_shape_constant_that_two_layers_share_is_not_changed_for_both() -> None:
    """Queries lose head positions, values do not: their Reshape had one target."""
    graph = graph_of("attention")
    queries = next(g for g in graph.groups if g.kind == "head_dim" and g.members[0].name == "q.w")
    removed = np.zeros(len(graph.analysis.algebra), bool)
    removed[queries.units[:1]] = True
    pruned = cut(graph.analysis, removed).to_proto()
    nodes = {n.output[0]: n for n in pruned.graph.node}
    targets = {name: initializer(pruned, nodes[name].input[1]).tolist() for name in ("qr", "kr", "vr")}
    assert targets == {"qr": [0, 0, 3, 3], "kr": [0, 0, 3, 3], "vr": [0, 0, 3, 4]}


def test_number_computed_from_a_size_stays_what_it_was() -> None:
    """1/sqrt(d) is that of the network that was trained, whatever d is now."""
    graph = graph_of("shape_arithmetic")
    queries = next(g for g in graph.groups if g.kind == "head_dim" and g.members[0].name == "q.w")
    removed = np.zeros(len(graph.analysis.algebra), bool)
    removed[queries.units[:3]] = True
    pruned = cut(graph.analysis, removed).to_proto()
    division = next(n for n in pruned.graph.node if n.output[0] == "scaled")
    assert initializer(pruned, division.input[1]) == pytest.approx(2.0)


@pytest.mark.parametrize("op", ["Expand", "Tile"])
def test_computed_vector_whose_ones_broadcast_is_left_alone(op: str) -> None:
    """Its entries 1 are no sizes: they stand whatever the batch and the channels are."""
    body = f"""
        p = Conv(x, first)
        f = Relu(p)
        m = ReduceMax <axes = [2]> (f)
        size = Shape <start = 2> (f)
        full = Concat <axis = 0> (ones, size)
        e = {op}(m, full)
        c = Concat <axis = 1> (f, e)
        y = Conv(c, last)
    """
    weights = {"first": (8, 6, 1), "last": (3, 16, 1), "ones": [1, 1]}
    original = build("(float[batch, 6, time] x) => (float[batch, 3, time] y)", body, weights)
    graph = analyze(load(original))
    removed = some_units(graph)
    plan, pruned = make_plan(graph, removed, {}), cut(graph.analysis, removed).to_proto()
    assert removed.sum() == 4
    for batch, time in ((1, 6), (3, 11)):
        inputs = feeds(original, batch=batch, time=time)
        assert run(pruned, inputs)[0] == pytest.approx(run(masked(original, plan), inputs)[0], abs=1e-5)


# ---- what must stay -----------------------------------------------------------------------------


def decorated() -> onnx.ModelProto:
    model = NETWORKS["cnn"]()
    model.graph.name, model.graph.doc_string, model.doc_string = "the graph", "about it", "a model"
    model.producer_name, model.model_version, model.domain = "somebody", 7, "org.example"
    model.metadata_props.add(key="author", value="me")
    for node in model.graph.node:
        node.doc_string = f"makes {node.output[0]}"
        node.metadata_props.add(key="layer", value=f"net.{node.output[0]}")
    second = helper.make_tensor_value_info("sr", onnx.TensorProto.FLOAT, ["batch", 8, 8, 8])
    second.doc_string = "an output in the middle"
    model.graph.output.insert(0, second)
    return model


def test_everything_but_the_weights_is_kept() -> None:
    original = decorated()
    graph = analyze(load(original))
    pruned = cut(graph.analysis, some_units(graph)).to_proto()
    for field in ("producer_name", "model_version", "domain", "doc_string", "ir_version"):
        assert getattr(pruned, field) == getattr(original, field)
    assert pruned.graph.name == "the graph"
    assert pruned.graph.doc_string == "about it"
    assert {p.key: p.value for p in pruned.metadata_props}["author"] == "me"
    assert pruned.opset_import == original.opset_import
    assert [v.name for v in pruned.graph.input] == [v.name for v in original.graph.input]
    assert [v.name for v in pruned.graph.output] == ["sr", "y"]
    assert pruned.graph.input[0].type == original.graph.input[0].type
    assert [v.type for v in pruned.graph.output] == [v.type for v in original.graph.output]
    before = {n.output[0]: n for n in original.graph.node}
    for node in pruned.graph.node:
        old = before[node.output[0]]
        assert (node.name, node.op_type, node.doc_string) == (old.name, old.op_type, old.doc_string)
        assert {p.key: p.value for p in node.metadata_props} == {p.key: p.value for p in old.metadata_props}
    assert {t.name for t in pruned.graph.initializer} == {t.name for t in original.graph.initializer}


@pytest.mark.parametrize("name", ["cnn", "shape_arithmetic", "conditional", "merged_constants"])
def test_input_object_is_not_changed(name: str) -> None:
    original = NETWORKS[name]()
    before = original.SerializeToString(deterministic=True)
    model = load(original)
    kept = model.to_proto().SerializeToString(deterministic=True)
    graph = analyze(model)
    analysed = graph.model.to_proto().SerializeToString(deterministic=True)
    removed = some_units(graph)
    cut(graph.analysis, removed).to_proto()
    api.apply(graph, make_plan(graph, removed, {}))
    assert original.SerializeToString(deterministic=True) == before
    assert model.to_proto().SerializeToString(deterministic=True) == kept
    assert graph.model.to_proto().SerializeToString(deterministic=True) == analysed


def test_recorded_shapes_are_those_of_the_cut_model() -> None:
    """Wrong value_info makes runtimes fail, or silently misplan."""
    original = onnx.shape_inference.infer_shapes(NETWORKS["cnn"]())
    assert original.graph.value_info
    graph = analyze(load(original))
    pruned = cut(graph.analysis, some_units(graph)).to_proto()
    recorded = {v.name: v.type.tensor_type.shape for v in pruned.graph.value_info}
    fresh = onnx.ModelProto.FromString(pruned.SerializeToString())
    del fresh.graph.value_info[:]
    for value in onnx.shape_inference.infer_shapes(fresh, strict_mode=True).graph.value_info:
        if value.name in recorded:
            sizes = [d.dim_value for d in recorded[value.name].dim]
            assert sizes == [d.dim_value for d in value.type.tensor_type.shape.dim], value.name


def test_recorded_symbolic_size_that_shrinks_is_left_open() -> None:
    """The name is no longer true, and the size of the analysis would be wrong for every other batch."""
    original = build(
        "(float[batch, 6, 8] x) => (float[batch, 6, 8] y)",
        """
        q = MatMul (x, a.w) r = Reshape (q, split) t = Transpose <perm = [0, 2, 1, 3]> (r)
        m = Reshape (t, merged) p = Relu (m) s = Shape (m) n = ReduceProd <keepdims = 0> (s)
        flat = Unsqueeze (n, zero) f = Reshape (p, flat) u = Reshape (f, back)
        v = Transpose <perm = [0, 2, 1, 3]> (u) o = Reshape (v, rows) y = MatMul (o, b.w)
        """,
        {
            "a.w": (8, 16), "b.w": (16, 8), "split": [0, 0, 4, 4], "merged": [-1, 6, 4], "zero": [0],
            "back": [-1, 4, 6, 4], "rows": [0, 0, 16],
        },
    )  # fmt: skip
    original.graph.value_info.append(
        helper.make_tensor_value_info("m", onnx.TensorProto.FLOAT, ["4*batch", 6, 4])
    )
    graph = analyze(load(original))
    removed = np.zeros(len(graph.analysis.algebra), bool)
    group = next(g for g in graph.groups if g.id == "a.w:1")
    assert group.prunable
    removed[group.units[[1]]] = True
    pruned = cut(graph.analysis, removed).to_proto()
    (dims,) = [v.type.tensor_type.shape.dim for v in pruned.graph.value_info if v.name == "m"]
    assert not dims[0].HasField("dim_value")
    assert not dims[0].dim_param
    assert [d.dim_value for d in dims[1:]] == [6, 4]
    plan = make_plan(graph, removed, {})
    for batch in (1, 2, 3):
        inputs = feeds(original, batch=batch)
        for expected, found in zip(run(masked(original, plan), inputs), run(pruned, inputs), strict=True):
            assert np.abs(expected).max() > 1e-3
            assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_nothing_removed_changes_nothing() -> None:
    graph = graph_of("attention")
    removed = np.zeros(len(graph.analysis.algebra), bool)
    assert cut(graph.analysis, removed).to_proto() == graph.model.to_proto()


# ---- planted answers ----------------------------------------------------------------------------

# network: the weights, and axes, through which the group is read
CONSUMERS = {
    "cnn": ("a.w:0", [("b.w", 1)]),
    "dense": ("a.w:0", [("b.w", 1), ("fc.w", 1)]),
    "flatten": ("stem.w:0", [("fc.w", 0)]),
    "mlp": ("a.w:1", [("b.w", 0)]),
    "gated_mlp": ("gate_up.w:1", [("down.w", 0)]),
    "depthwise_se": ("squeeze.w:0", [("excite.w", 1)]),
    "option_a": ("stem.w:0", [("a.w", 1), ("fc.w", 1)]),
}


@pytest.mark.parametrize("name", CONSUMERS)
def test_dead_channels_can_go_without_any_change(name: str) -> None:
    """Where all consumers hold zeros, the original itself is the reference: nothing may change."""
    gid, consumers = CONSUMERS[name]
    model = NETWORKS[name]()
    group = next(g for g in graph_of(name).groups if g.id == gid)
    dead = [0, group.size - 1]
    everything = np.zeros(len(graph_of(name).analysis.algebra), bool)
    everything[group.units[dead]] = True
    places = {(p.name, p.axis): p for p in make_plan(graph_of(name), everything, {}).parameters}
    for tensor, axis in consumers:
        entry = places[tensor, axis]
        array = initializer(model, tensor).copy()
        array[(slice(None),) * axis + (np.setdiff1d(np.arange(entry.size), entry.keep),)] = 0
        replace(model, tensor, array)
    graph = analyze(load(model))
    pruned = cut(graph.analysis, everything).to_proto()
    inputs = feeds(model, batch=4)
    (expected,), (found,) = run(model, inputs), run(pruned, inputs)
    assert np.abs(expected).max() > 1e-2
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


# ---- other precisions ---------------------------------------------------------------------------


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model in float16."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    return model


@pytest.mark.parametrize("name", ["cnn", "attention", "grouped_query", "merged_constants", "gated_mlp"])
def test_plan_applies_to_the_same_model_in_half_precision(name: str, tmp_path: Path) -> None:
    original = NETWORKS[name]()
    result = api.prune(original, target={"macs": 0.7}, criterion="l2")
    model = half(original)
    other = api.prune(model, tmp_path / "half.onnx", use_plan=result.plan)
    pruned = load(tmp_path / "half.onnx").to_proto()
    shapes = {t.name: list(t.dims) for t in result.model.to_proto().graph.initializer}
    assert {t.name: list(t.dims) for t in pruned.graph.initializer} == shapes
    assert other.plan.parameters == result.plan.parameters
    inputs = feeds(model, batch=3)
    (found,) = run(pruned, inputs)
    (expected,) = run(result.model.to_proto(), {k: v.astype(np.float32) for k, v in inputs.items()})
    assert found.dtype == np.float16
    assert found == pytest.approx(expected, abs=0.02 * float(np.abs(expected).max()))


def test_bfloat16_weights_are_sliced_bit_for_bit() -> None:
    model = build(
        "(bfloat16[batch, 4] x) => (bfloat16[batch, 3] y)",
        "h = MatMul (x, a.w) y = MatMul (h, b.w)",
        {"a.w": (4, 6), "b.w": (6, 3)},
    )
    for tensor in model.graph.initializer:
        bits = weight(tensor.name, tensor.dims).view(np.uint32) >> 16
        tensor.CopyFrom(
            helper.make_tensor(
                tensor.name,
                onnx.TensorProto.BFLOAT16,
                tensor.dims,
                bits.astype(np.uint16).tobytes(),
                raw=True,
            )
        )
    graph = analyze(load(model))
    (group,) = [g for g in graph.groups if g.prunable]
    removed = np.zeros(len(graph.analysis.algebra), bool)
    removed[group.units[[1, 4]]] = True
    pruned: Model = cut(graph.analysis, removed)
    raw = {t.name: t.raw_data for t in pruned.to_proto().graph.initializer}
    full = np.frombuffer(model.graph.initializer[0].raw_data, np.uint16).reshape(4, 6)
    assert raw["a.w"] == full[:, [0, 2, 3, 5]].tobytes()


def test_weight_that_a_body_reads_too_is_cut_there() -> None:
    """The layer outside and those in both branches keep the same channels."""
    model = NETWORKS["conditional"]()
    for attribute in model.graph.node[-2].attribute:
        body = attribute.g
        body.node[0].input[:] = ["xa", "e.w"]
        body.node.insert(0, helper.make_node("MatMul", ["x", "a.w"], ["xa"], name=f"{body.name}_xa"))
    spare = next(t for t in model.graph.initializer if t.name == "d.w")
    spare.CopyFrom(numpy_helper.from_array(weight("e.w", (8, 3)), "e.w"))
    graph = analyze(load(model))
    group = next(g for g in graph.groups if g.id == "a.w:1")
    assert group.prunable
    removed = np.zeros(len(graph.analysis.algebra), bool)
    removed[group.units[[0, 5]]] = True
    cut_model = cut(graph.analysis, removed)
    pruned = cut_model.to_proto()
    copies = {t.name: list(t.dims) for t in pruned.graph.initializer if t.name[0] in "ae"}
    assert copies == {"a.w": [6, 6], "e.w": [6, 3]}
    assert graph.cost.evaluate(removed).params == measure(cut_model).params
    inputs = {**feeds(model), "flag": np.array([False])}
    zeroed = onnx.ModelProto.FromString(model.SerializeToString())
    for name in ("b.w", "e.w"):
        rows = initializer(zeroed, name).copy()
        rows[[0, 5]] = 0
        replace(zeroed, name, rows)
    for flag in (True, False):
        inputs["flag"] = np.array([flag])
        (expected,), (found,) = run(zeroed, inputs), run(pruned, inputs)
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
