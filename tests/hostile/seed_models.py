"""Valid small models that mutations start from."""

from __future__ import annotations

from functools import cache

import onnx
from networks import NETWORKS
from onnx import TensorProto, helper
from random_networks import Net

#: Random networks that are drawn besides the named ones.
RANDOM = 16


@cache
def names() -> tuple[str, ...]:
    """Of all seed models."""
    return (*sorted(NETWORKS), *(f"random{seed}" for seed in range(RANDOM)), "nested", "function")


@cache
def serialized(name: str) -> bytes:
    """The file."""
    return built(name).SerializeToString()


def built(name: str) -> onnx.ModelProto:
    """The model."""
    if name in NETWORKS:
        return NETWORKS[name]()
    if name.startswith("random"):
        return Net(int(name.removeprefix("random"))).build()
    return {"nested": nested, "function": with_function}[name]()


def rounds(name: str) -> bool:
    """Are activations quantized?  Then a sum in another order may round the other way."""
    return name.startswith("random") and _net(name).rounds


@cache
def _net(name: str) -> Net:
    net = Net(int(name.removeprefix("random")))
    net.build()
    return net


def nested(depth: int = 4) -> onnx.ModelProto:
    """A network in which Ifs are nested ``depth`` deep."""
    model = NETWORKS["mlp"]()
    last = model.graph.output[0].name
    inner = helper.make_graph(
        [helper.make_node("Tanh", [last], ["deep0"])],
        "leaf",
        [],
        [helper.make_empty_tensor_value_info("deep0")],
    )
    for level in range(1, depth + 1):
        node = helper.make_node("If", ["condition"], [f"deep{level}"], then_branch=inner, else_branch=inner)
        inner = helper.make_graph(
            [node], f"level{level}", [], [helper.make_empty_tensor_value_info(f"deep{level}")]
        )
    model.graph.input.append(helper.make_tensor_value_info("condition", TensorProto.BOOL, []))
    model.graph.node.append(inner.node[0])
    model.graph.output[0].name = f"deep{depth}"
    return model


def with_function() -> onnx.ModelProto:
    """A network whose activations are a local function."""
    model = NETWORKS["mlp"]()
    body = [helper.make_node("Tanh", ["a"], ["t"]), helper.make_node("Mul", ["t", "t"], ["b"])]
    model.functions.append(
        helper.make_function("local", "Squash", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    )
    model.opset_import.append(helper.make_opsetid("local", 1))
    for node in model.graph.node:
        if node.op_type in ("Relu", "Tanh", "Sigmoid"):
            node.op_type, node.domain = "Squash", "local"
    return model
