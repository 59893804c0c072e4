"""Recurrent networks as exporters write them: pruned to a target, and checked by the oracle."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from graphprune import api
from graphprune.graph import DependencyGraph, analyze
from graphprune.model import Model, load

SEQ, WIDTH, HIDDEN, CLASSES = 5, 6, 8, 3
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
#: Order of the gates that ONNX wants, as rows of what PyTorch stores.
ORDER = {"LSTM": [0, 3, 1, 2], "GRU": [1, 0, 2], "RNN": [0]}


class _Graph:
    """Collects nodes and constants."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self._rng = np.random.default_rng(3)

    def op(self, op_type: str, *inputs: str, outputs: tuple[str, ...] = (), **attributes: object) -> str:
        name = f"{op_type}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, outputs or [name], name, **attributes))
        return outputs[0] if outputs else name

    def ints(self, *numbers: int) -> str:
        name = "i" + "_".join(map(str, numbers))
        self.constants[name] = np.array(numbers, np.int64)
        return name

    def weight(self, name: str, *shape: int) -> str:
        self.constants[name] = (0.4 * self._rng.standard_normal(shape)).astype(np.float32)
        return name

    def reordered(self, op_type: str, weight: str) -> str:
        """The gates of a weight in ONNX's order, cut and joined in the graph."""
        gates = [
            self.op("Slice", weight, self.ints(g * HIDDEN), self.ints((g + 1) * HIDDEN), self.ints(0))
            for g in ORDER[op_type]
        ]
        return self.op("Concat", *gates, axis=0)

    def layer(self, op_type: str, x: str, level: int, states: list[str], width: int) -> str:
        rows = GATES[op_type] * HIDDEN
        stacks: dict[str, list[str]] = {"w": [], "r": [], "b": []}
        for d in "fb":
            biases = []
            for kind, shape in (
                ("w", (rows, width)),
                ("r", (rows, HIDDEN)),
                ("bw", (rows,)),
                ("br", (rows,)),
            ):
                part = self.reordered(op_type, self.weight(f"{kind}_{level}{d}", *shape))
                biases += [part] if len(shape) == 1 else []
                if len(shape) == 2:
                    stacks[kind].append(self.op("Unsqueeze", part, self.ints(0)))
            stacks["b"].append(self.op("Unsqueeze", self.op("Concat", *biases, axis=0), self.ints(0)))
        weights = [self.op("Concat", *stacks[kind], axis=0) for kind in "wrb"]
        every = self.op(
            op_type, x, *weights, "", *states,
            outputs=(f"y_{level}", f"h_{level}"),
            direction="bidirectional", hidden_size=HIDDEN,
            **({"linear_before_reset": 1} if op_type == "GRU" else {}),
        )  # fmt: skip
        merged = self.op("Transpose", every, perm=[0, 2, 1, 3])
        return self.op("Reshape", merged, self.ints(0, 0, -1))


def network(op_type: str) -> onnx.ModelProto:
    """Two bidirectional layers that start from slices of one tensor of zeros, then a classifier."""
    g = _Graph()
    batch = g.op("Shape", "x", start=0, end=1)
    zeros = g.op("ConstantOfShape", g.op("Concat", g.ints(4), batch, g.ints(HIDDEN), axis=0))
    x = g.op("Transpose", "x", perm=[1, 0, 2])
    x = g.op("Relu", g.op("MatMul", x, g.weight("embed", 4, WIDTH)))
    for level in range(2):
        state = g.op("Slice", zeros, g.ints(2 * level), g.ints(2 * level + 2), g.ints(0))
        states = [state, state] if op_type == "LSTM" else [state]
        x = g.layer(op_type, x, level, states, 2 * HIDDEN if level else WIDTH)
    x = g.op("Transpose", x, perm=[1, 0, 2])
    g.op("MatMul", x, g.weight("head", 2 * HIDDEN, CLASSES), outputs=("y",))
    graph = helper.make_graph(
        g.nodes,
        "recurrent",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ("batch", SEQ, 4))],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ("batch", SEQ, CLASSES))],
        [numpy_helper.from_array(array, name) for name, array in g.constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def hidden_sizes(model: Model) -> list[int]:
    return [n.attributes["hidden_size"].as_int() for n in model.ir.graph if n.op_type in GATES]


def analysed(op_type: str) -> DependencyGraph:
    return analyze(load(network(op_type)))


@pytest.mark.parametrize("op_type", GATES)
def test_layers_are_groups_of_their_own(op_type: str) -> None:
    found = [g for g in analysed(op_type).groups if g.prunable and g.kind == "channels"]
    assert sorted(g.size for g in found) == [WIDTH, HIDDEN, HIDDEN]
    assert all(g.exact for g in found)


@pytest.mark.parametrize("op_type", GATES)
def test_macs_by_hand(op_type: str) -> None:
    gates = 2 * GATES[op_type] * HIDDEN
    per_step = 4 * WIDTH + gates * (WIDTH + HIDDEN) + gates * (2 * HIDDEN + HIDDEN) + 2 * HIDDEN * CLASSES
    assert analysed(op_type).cost.evaluate().macs == SEQ * per_step


@pytest.mark.parametrize("op_type", GATES)
@pytest.mark.parametrize("target", [0.6, 0.3])
def test_target_is_reached_and_verified(op_type: str, target: float) -> None:
    result = api.prune(load(network(op_type)), target={"macs": target}, criterion="l2", kinds=["channels"])
    assert target - 0.15 < result.plan.reached["macs"] <= target
    assert result.verdict is not None
    assert result.verdict.exact
    assert result.verdict.scale > 0
    assert all(size < HIDDEN for size in hidden_sizes(result.model))
    assert [v.shape for v in result.model.ir.graph.outputs] == [
        v.shape for v in load(network(op_type)).ir.graph.outputs
    ]
