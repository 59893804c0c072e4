"""A network inside a body has the groups that it has outside, and is cut as rightly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from networks import NETWORKS
from onnx import TensorProto, helper, numpy_helper

import graphprune as gp
from graphprune.check import validate
from graphprune.graph import DependencyGraph
from graphprune.oracle import verify
from graphprune.rewrite import cut

CHOSEN = (
    "cnn", "grouped", "group_norm", "attention_fused_gather", "grouped_query", "shape_arithmetic",
    "batch_times_heads", "merged_constants", "conditional",
)  # fmt: skip


def body_of(graph: onnx.GraphProto, name: str, *, shuffled: bool = False) -> onnx.GraphProto:
    """The nodes and weights of a graph as a body without inputs."""
    rng = np.random.default_rng(0)
    constants = []
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        if shuffled and array.ndim > 1 and array.dtype == np.float32:
            array = rng.permutation(array.reshape(-1)).reshape(array.shape)
        constants.append(numpy_helper.from_array(array, tensor.name))
    return helper.make_graph(list(graph.node), name, [], list(graph.output), constants)


def sizes(value: onnx.ValueInfoProto) -> list[str | int]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def renamed(value: onnx.ValueInfoProto, suffix: str, *leading: str) -> onnx.ValueInfoProto:
    kind = value.type.tensor_type.elem_type
    return helper.make_tensor_value_info(value.name + suffix, kind, [*leading, *sizes(value)])


def wrap(
    model: onnx.ModelProto,
    node: onnx.NodeProto,
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: list[onnx.TensorProto],
) -> onnx.ModelProto:
    graph = helper.make_graph([node], "outer", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def in_if(model: onnx.ModelProto) -> onnx.ModelProto:
    """Both branches hold the network, with the same names and other weights."""
    graph = model.graph
    outputs = [renamed(v, "/if") for v in graph.output]
    node = helper.make_node(
        "If", ["choice"], [v.name for v in outputs], name="choose",
        then_branch=body_of(graph, "then"), else_branch=body_of(graph, "else", shuffled=True),
    )  # fmt: skip
    choice = helper.make_tensor_value_info("choice", TensorProto.BOOL, [])
    return wrap(model, node, [*graph.input, choice], outputs, [])


def in_loop(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network reads the outer inputs in each iteration; the empty condition has to survive."""
    body = body_of(model.graph, "body")
    results = list(body.output)
    body.input.append(helper.make_tensor_value_info("iteration", TensorProto.INT64, []))
    body.input.append(helper.make_tensor_value_info("go", TensorProto.BOOL, []))
    body.node.append(helper.make_node("Identity", ["go"], ["go_on"]))
    del body.output[:]
    body.output.extend([helper.make_tensor_value_info("go_on", TensorProto.BOOL, []), *results])
    outputs = [renamed(v, "/loop", "runs") for v in results]
    node = helper.make_node("Loop", ["count", ""], [v.name for v in outputs], name="repeat", body=body)
    count = numpy_helper.from_array(np.asarray(2, np.int64), "count")
    return wrap(model, node, list(model.graph.input), outputs, [count])


def in_scan(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network reads one element of each input at a time, from the back."""
    body = body_of(model.graph, "body")
    body.input.extend(model.graph.input)
    inputs = [renamed(v, "/all", "steps") for v in model.graph.input]
    outputs = [renamed(v, "/scan", "steps") for v in model.graph.output]
    node = helper.make_node(
        "Scan", [v.name for v in inputs], [v.name for v in outputs], name="scan", body=body,
        num_scan_inputs=len(inputs), scan_input_directions=[1] * len(inputs),
    )  # fmt: skip
    return wrap(model, node, inputs, outputs, [])


def kinds(graph: DependencyGraph) -> list[tuple[str, int]]:
    """Whole layers and branches are found in the main graph only."""
    return sorted((g.kind, g.size) for g in graph.groups if g.prunable and g.kind != "blocks")


@pytest.mark.parametrize("place", [in_if, in_loop, in_scan])
@pytest.mark.parametrize("name", CHOSEN)
def test_the_groups_are_the_same_and_the_cut_is_right(
    name: str, place: Callable[[onnx.ModelProto], onnx.ModelProto]
) -> None:
    plain = NETWORKS[name]()
    model = place(plain)
    onnx.checker.check_model(model)
    graph = gp.analyze(model)
    times = 2 if place is in_if else 1
    assert kinds(graph) == sorted(kinds(gp.analyze(plain)) * times)
    rng = np.random.default_rng(1)
    removed = np.zeros(len(graph.analysis.algebra), bool)
    for group in graph.groups:
        if group.prunable and group.size > 1 and group.kind != "blocks":
            removed[rng.permutation(group.units)[: rng.integers(1, group.size)]] = True
    pruned = cut(graph.analysis, removed)
    validate(pruned)
    verify(graph.analysis, removed, pruned)
