"""What is around an operator that onnxruntime does not know is still run and verified."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import NETWORKS, Array, build, initializer, replace
from onnx import helper

from graphprune.check import validate
from graphprune.compare import session
from graphprune.errors import ValidationError
from graphprune.foreign import foreign_nodes, runnable
from graphprune.graph import DependencyGraph, analyze
from graphprune.model import load
from graphprune.oracle import verify
from graphprune.rewrite import cut


def mystery(*, declared: bool, shape: list[str | int] | None = None) -> onnx.ModelProto:
    model = build(
        "(float[batch, 6] x) => (float[batch, 3] y)",
        """a = MatMul (x, a.w) b = MatMul (a, b.w) g = com.example.Mystery (b)
           c = MatMul (g, c.w) y = MatMul (c, d.w)""",
        {"a.w": (6, 8), "b.w": (8, 9), "c.w": (9, 10), "d.w": (10, 3)},
        domains={"com.example": 1},
    )
    if declared:
        sizes = shape or ["batch", 9]
        model.graph.value_info.append(helper.make_tensor_value_info("g", onnx.TensorProto.FLOAT, sizes))
    return model


def half_of(graph: DependencyGraph) -> Array:
    removed = np.zeros(len(graph.analysis.algebra), bool)
    for group in graph.groups:
        if group.prunable:
            removed[group.units[: group.size // 2]] = True
    return removed


def names(values: object) -> list[str]:
    return [v.name for v in values]  # type: ignore[attr-defined]


def test_runnable_models_are_left_as_they_are() -> None:
    model = load(NETWORKS["conditional"]())
    assert foreign_nodes(model.ir.graph) == []
    assert runnable(model) is model


def test_declared_output_is_fed() -> None:
    model = load(mystery(declared=True))
    before = model.to_proto()
    found = runnable(model)
    assert model.to_proto() == before
    assert [n.op_type for n in foreign_nodes(model.ir.graph)] == ["Mystery"]
    assert [n.op_type for n in found.ir.graph] == ["MatMul"] * 4
    assert names(found.ir.graph.inputs) == ["x", "g"]
    assert names(found.ir.graph.outputs) == ["y", "b"]
    session(found)


@pytest.mark.parametrize("shape", [None, ["rows", 9]])
def test_output_of_unknown_size_takes_everything_behind_it_along(shape: list[str | int] | None) -> None:
    found = runnable(load(mystery(declared=shape is not None, shape=shape)))
    assert names(found.ir.graph.inputs) == ["x"]
    assert names(found.ir.graph.outputs) == ["b"]
    session(found)


@pytest.mark.parametrize("name", ["a.w", "c.w"])
def test_wrong_cuts_on_both_sides_are_caught(name: str) -> None:
    graph = analyze(load(mystery(declared=True)))
    removed = half_of(graph)
    right = cut(graph.analysis, removed)
    validate(right)
    verdict = verify(graph.analysis, removed, right)
    assert verdict.not_run == ["Mystery 'Mystery_g'"]
    assert verdict.scale > 0
    wrong = right.to_proto()
    replace(wrong, name, np.roll(initializer(wrong, name), 1, axis=1))
    with pytest.raises(ValidationError, match="differs"):
        verify(graph.analysis, removed, load(wrong))


def test_operator_within_a_body_takes_the_whole_node() -> None:
    model = NETWORKS["conditional"]()
    branch = next(a.g for a in model.graph.node[-2].attribute if a.name == "then_branch")
    branch.node[0].domain, branch.node[0].op_type = "com.example", "Mystery"
    model.opset_import.add(domain="com.example", version=1)
    found = runnable(load(model))
    assert "If" not in [n.op_type for n in found.ir.graph]
    assert {"br"} <= set(names(found.ir.graph.outputs))


def test_model_of_which_nothing_can_be_run_is_not_verified() -> None:
    model = build(
        "(float[batch, 6] x) => (float[batch, 3] y)",
        "g = com.example.Mystery (x) a = MatMul (g, a.w) y = MatMul (a, b.w)",
        {"a.w": (6, 8), "b.w": (8, 3)},
        domains={"com.example": 1},
    )
    graph = analyze(load(model))
    nothing = np.zeros(len(graph.analysis.algebra), bool)
    with pytest.raises(ValidationError, match="no part of the model can be run") as caught:
        verify(graph.analysis, nothing, load(model))
    assert "Mystery 'Mystery_g'" in (caught.value.because or "")
