"""Compensators may add biases; the result still has no more parameters and bytes than the target allows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from graphprune.passes.allocators import Allocation, Limits
from networks import build, feeds, initializer

import graphprune as gp
from graphprune.cost import Cost
from graphprune.pruning import cost_of, cut_and_leave_room


def no_biases() -> onnx.ModelProto:
    return build(
        "(float[batch, 3, 6, 6] x) => (float[batch, 5, 6, 6] y)",
        "h = Conv <pads = [1, 1, 1, 1]> (x, u) r = Relu (h) i = Conv (r, v) s = Relu (i) y = Conv (s, w)",
        {"u": (16, 3, 3, 3), "v": (24, 16, 1, 1), "w": (5, 24, 1, 1)},
    )


def one_bias_for_all() -> onnx.ModelProto:
    """As exporters write it, who store equal constants once."""
    return build(
        "(float[batch, 6] x) => (float[batch, 12] y)",
        "h = Gemm (x, u, b) r = Relu (h) i = Gemm (r, v, b) s = Relu (i) y = Gemm (s, w, b)",
        {"u": (6, 12), "v": (12, 12), "w": (12, 12), "b": np.zeros(12, np.float32)},
    )


MODELS = {"none": no_biases, "shared": one_bias_for_all}
TARGETS: list[dict[str, float | str]] = [{"params": 0.6}, {"bytes": 0.7}, {"params": 0.7, "bytes": 0.75}]


def kept(cost: Cost, dense: Cost, metric: str) -> float:
    return float(getattr(cost, metric) / getattr(dense, metric))


@pytest.mark.parametrize("recipe", ["graphprune", "obspa", "flap"])
@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_targets_are_met_with_biases(
    name: str, target: dict[str, float], recipe: str, tmp_path: Path
) -> None:
    model, output = MODELS[name](), tmp_path / "out.onnx"
    result = gp.prune(model, output, target=target, recipe=recipe, calibration=feeds(model, batch=60))
    for metric, limit in target.items():
        assert kept(result.after, result.before, metric) <= limit
    assert output.stat().st_size == result.after.bytes
    proto, size = result.model.to_proto(), {t.name: list(t.dims) for t in model.graph.initializer}
    axis = 1 if name == "none" else 0  # of a weight, the one that is read
    for node in proto.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            before = size[node.input[1].split("/")[0]][axis]
            # Who lost inputs got a bias.
            assert initializer(proto, node.input[1]).shape[axis] == before or len(node.input) == 3


@pytest.mark.parametrize("metric", ["params", "bytes"])
def test_without_room_there_are_no_new_biases(metric: str) -> None:
    """The target is just what the largest cut reaches."""
    model = no_biases()
    data = feeds(model, batch=60)
    graph = gp.analyze(model)
    groups = [group for group in graph.groups if group.prunable and group.kind != "blocks"]
    scores = np.zeros(len(graph.analysis.algebra))
    most = Allocation(groups, scores, Limits(0.5), graph, {"params": 0.999}).largest_cut
    dense = graph.cost.evaluate()
    limit = kept(cost_of(cut_and_leave_room(graph, most), None), dense, metric)
    result = gp.prune(model, target={metric: limit}, floor=0.5, calibration=data)
    assert kept(result.after, dense, metric) <= limit
    assert "new_biases" in result.plan.options["allocation"]
    assert result.output_errors is not None
    assert result.output_errors[1] < result.output_errors[0]


def test_a_plan_keeps_its_target_whoever_compensates() -> None:
    """A plan for weights as they are has no room for anything else."""
    model = no_biases()
    plan = gp.plan(model, target={"params": 0.6}, criterion="l2")
    data = feeds(model, batch=60)
    dense = gp.analyze(model).cost.evaluate()
    again = gp.prune(model, use_plan=plan, compensator="sequential", calibration=data)
    assert kept(again.after, dense, "params") <= 0.6
    applied = gp.apply(model, plan, compensator="obs", calibration=data)
    assert sum(v.const_value.size for v in applied.ir.graph.initializers.values()) <= 0.6 * dense.params  # type: ignore[union-attr]
