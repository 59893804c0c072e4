"""Sizes that a file names apart and that hang together all the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import build, graph_of
from onnx import numpy_helper

import graphprune as gp
from graphprune.feasible_inputs import feasible_inputs
from graphprune.model import load


def continued(total: str = "total") -> onnx.ModelProto:
    """A cache and new tokens under a mask for both."""
    return build(
        f"(float[batch, time, 6] x, float[batch, past, 4] cache, float[batch, {total}, 1] mask)"
        " => (float[batch, n, 3] y)",
        """a = MatMul (x, a.w) b = MatMul (a, b.w) all = Concat <axis = 1> (cache, b)
           masked = Mul (all, mask) y = MatMul (masked, c.w)""",
        {"a.w": (6, 8), "b.w": (8, 4), "c.w": (4, 3)},
    )


def test_mask_is_as_long_as_both_together() -> None:
    proposals = [
        {"batch": 2, "time": 5, "past": 7, "total": 11},
        {"batch": 1, "time": 3, "past": 4, "total": 7},
    ]
    first, second = feasible_inputs(load(continued()), proposals, 0)
    assert {name: array.shape for name, array in first.items()} == {
        "x": (2, 5, 6), "cache": (2, 7, 4), "mask": (2, 12, 1)
    }  # fmt: skip
    assert second["mask"].shape == (1, 7, 1)


def test_cut_of_such_a_model_is_verified_and_compared() -> None:
    result = gp.prune(continued(), target={"params": 0.8}, criterion="l2")
    assert result.verdict is not None
    assert all(r["cache"][1] + r["x"][1] == r["mask"][1] for r in result.verdict.runs)
    assert len(result.verdict.runs) == 2
    (difference,) = gp.check(continued(), continued())
    assert difference.max_error == 0


def test_proposals_that_nothing_helps_are_returned() -> None:
    model = continued()
    model.graph.node[0].op_type, model.graph.node[0].input[1] = "Reshape", "never"
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 7919, 8]), "never"))
    (found,) = feasible_inputs(load(model), [{"batch": 1, "time": 5, "past": 7, "total": 11}], 0)
    assert found["mask"].shape == (1, 11, 1)


def test_other_models_are_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("the model was run")

    monkeypatch.setattr("graphprune.feasible_inputs.session", refuse)
    feasible_inputs(graph_of("attention").model, [{"batch": 2, "time": 5}], 0)
