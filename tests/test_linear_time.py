"""Work grows with the number of nodes, and no faster: counted in calls, which don't depend on the machine."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphprune import api
from graphprune.analysis import Analysis
from graphprune.graph import DependencyGraph
from graphprune.model import load
from graphprune.planner import removed_units
from graphprune.rewrite import cut
from graphprune.shapes.fold_shapes import prepare

WIDTH = 4


class Builder:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._rng = np.random.default_rng(0)

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [f"v{len(self.nodes)}"], **attributes))
        return f"v{len(self.nodes) - 1}"

    def weight(self, *shape: int) -> str:
        values = self._rng.standard_normal(shape).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, f"w{len(self.weights)}"))
        return self.weights[-1].name

    def constant(self, *values: int) -> str:
        self.weights.append(numpy_helper.from_array(np.array(values, np.int64), f"c{len(self.weights)}"))
        return self.weights[-1].name

    def model(self, out: str) -> onnx.ModelProto:
        y = self.op("MatMul", out, self.weight(WIDTH, 3))
        shapes = {"x": ["n", "t", WIDTH], y: ["n", "t", 3]}
        x_info, y_info = (helper.make_tensor_value_info(k, TensorProto.FLOAT, s) for k, s in shapes.items())
        graph = helper.make_graph(self.nodes, "g", [x_info], [y_info], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def residual(blocks: int) -> onnx.ModelProto:
    net = Builder()
    x = net.op("MatMul", "x", net.weight(WIDTH, WIDTH))
    for _ in range(blocks):
        hidden = net.op("Relu", net.op("MatMul", x, net.weight(WIDTH, WIDTH)))
        x = net.op("Add", x, net.op("MatMul", hidden, net.weight(WIDTH, WIDTH)))
    return net.model(x)


def attention(blocks: int) -> onnx.ModelProto:
    net = Builder()
    x = net.op("MatMul", "x", net.weight(WIDTH, WIDTH))
    for _ in range(blocks):
        shape = net.op("Shape", x)
        sizes = [net.op("Slice", shape, net.constant(d), net.constant(d + 1)) for d in (0, 1)]
        split = net.op("Concat", *sizes, net.constant(2, WIDTH // 2), axis=0)
        heads = [net.op("Reshape", net.op("MatMul", x, net.weight(WIDTH, WIDTH)), split) for _ in range(3)]
        q, k, v = (net.op("Transpose", h, perm=[0, 2, 1, 3]) for h in heads)
        scores = net.op("Softmax", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2])), axis=-1)
        mixed = net.op("Transpose", net.op("MatMul", scores, v), perm=[0, 2, 1, 3])
        joined = net.op("Reshape", mixed, net.op("Concat", *sizes, net.constant(WIDTH), axis=0))
        x = net.op("Add", x, net.op("MatMul", joined, net.weight(WIDTH, WIDTH)))
    return net.model(x)


def calls(work: Callable[[], object]) -> int:
    """How many functions ``work`` calls, those written in C included."""
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def stages(network: Callable[[int], onnx.ModelProto], blocks: int) -> dict[str, int]:
    proto = network(blocks)
    found: dict[str, int] = {"load": calls(lambda: load(proto))}
    source = load(proto)
    found["trace"] = calls(lambda: prepare(source))
    prepared = prepare(source)
    found["analysis"] = calls(lambda: Analysis(*prepared).run())
    analysis = Analysis(*prepared).run()
    found["groups"] = calls(lambda: DependencyGraph(analysis, 1 << 20, source.digest()))
    graph = DependencyGraph(analysis, 1 << 20, source.digest())
    plan = api.plan(graph, target={"macs": 0.7}, criterion="l2")
    found["units of a plan"] = calls(lambda: removed_units(graph, plan))
    removed = removed_units(graph, plan)
    found["cut"] = calls(lambda: cut(analysis, removed))
    return found


@pytest.mark.parametrize("network", [residual, attention])
def test_work_is_linear(network: Callable[[int], onnx.ModelProto]) -> None:
    stages(network, 2)  # what is imported late, and tables that are made once
    few, many = stages(network, 6), stages(network, 24)
    growth = {stage: many[stage] / few[stage] for stage in few}
    assert max(growth.values()) <= 4.4, growth
