"""Constants that an exporter merged from equal arrays of unrelated layers."""

from __future__ import annotations

from typing import Any

import numpy as np
from graphprune.converters.carrying.hints import best, is_same_name, tokens
from graphprune.converters.carrying.matching import match
from networks import build, weight
from plans import plan_of

from graphprune.model import Model, load

Array = np.ndarray[Any, Any]
FIRST, SECOND = [0, 2], [1, 3, 4]


def merged(*names: str) -> Model:
    """Two layers that add the same zeros, at nodes of these names."""
    weights = {"up": weight("up", (8, 8)), "down": weight("down", (8, 8)), "zero": np.zeros(8, np.float32)}
    body = "h = MatMul(x, up)\n a = Add(h, zero)\n r = Relu(a)\n g = MatMul(r, down)\n y = Add(g, zero)"
    model = load(build("(float[n, 8] x) => (float[n, 8] y)", body, weights))
    adds = [node for node in model.ir.graph if node.op_type == "Add"]
    for node, name in zip(adds, names, strict=False):
        node.name = name
    return model


CUTS = {"zero#1": {0: FIRST}, "zero#2": {0: SECOND}, "up": {1: FIRST}, "down": {0: FIRST, 1: SECOND}}
USES = {"zero#1": ["a:1"], "zero#2": ["y:1"]}


def arrays(*names: str) -> dict[str, Array]:
    zeros = {name: np.zeros(8, np.float32) for name in names}
    return {"up": weight("up", (8, 8)), "down": weight("down", (8, 8)), **zeros}


def test_scopes_tell_whose_use_it_is() -> None:
    model = merged("/net/layer.1/Add", "/net/layer.0/Add")
    source = arrays("layer.0.bias", "layer.1.bias")
    found = match(model, plan_of(model, CUTS, USES), source)
    assert found.unmatched == ()
    assert found.cut.kept["layer.1.bias"][0].tolist() == FIRST
    assert found.cut.kept["layer.0.bias"][0].tolist() == SECOND
    assert found.cut.how["layer.0.bias"] == "value"


def test_without_names_the_order_decides_and_says_so() -> None:
    model = merged("", "")
    found = match(model, plan_of(model, CUTS, USES), arrays("layer.0.bias", "layer.1.bias"))
    assert found.cut.kept["layer.0.bias"][0].tolist() == FIRST
    assert found.cut.kept["layer.1.bias"][0].tolist() == SECOND
    assert found.cut.how["layer.0.bias"] == found.cut.how["layer.1.bias"] == "order"
    same = {**CUTS, "zero#2": {0: [1, 3]}, "down": {0: FIRST, 1: [1, 3]}}
    found = match(model, plan_of(model, same, USES), arrays("layer.0.bias", "layer.1.bias"))
    assert found.cut.how["layer.0.bias"] == "value"  # as many zeros stay of either


def test_one_array_for_two_uses_can_not_be_cut_twice() -> None:
    model = merged("/net/layer.1/Add", "/net/layer.0/Add")
    found = match(model, plan_of(model, CUTS, USES), arrays("shared.bias"))
    assert {each.use for each in found.unmatched} == {"a:1", "y:1"}


def test_ones_that_an_exporter_made_are_no_shifted_zeros() -> None:
    weights = {"up": weight("up", (8, 8)), "down": weight("down", (8, 8)), "one": np.ones(8, np.float32)}
    body = "h = MatMul(x, up)\n a = Mul(h, one)\n y = MatMul(a, down)"
    model = load(build("(float[n, 8] x) => (float[n, 8] y)", body, weights))
    plan = plan_of(model, {"up": {1: FIRST}, "one": {0: FIRST}, "down": {0: FIRST}})
    found = match(model, plan, arrays("other.bias"))
    assert found.unmatched == ()
    assert "other.bias" not in found.cut.kept
    model.ir.graph[1].name = "/net/norm/Mul"  # as a norm that stores its scale less one
    found = match(model, plan, arrays("other.bias", "norm.weight"))
    assert found.cut.kept["norm.weight"][0].tolist() == FIRST
    assert "other.bias" not in found.cut.kept


def test_names() -> None:
    assert tokens("/encoder/layer.3/norm") == ("encoder", "layer", "3", "norm")
    assert is_same_name("network.conv1.weight", "conv1.weight")
    assert not is_same_name("network.conv1.weight", "conv11.weight")
    modules = ["layer.0.self.query", "layer.0.output.dense", "layer.1.self.query"]
    assert best(["/bert/layer.0/self/query/Add"], modules) == {"layer.0.self.query"}
    assert best(["/somewhere/else"], ["a.b", "c.d"]) == {"a.b", "c.d"}
    assert best(["Conv1_1/convolution"], ["Conv1", "Conv2"]) == {"Conv1"}
