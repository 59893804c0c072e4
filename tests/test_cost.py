"""Costs against numbers computed by hand, and against the cut file measured again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import NETWORKS, build, graph_of

from graphprune import api
from graphprune.cost import Cost, measure
from graphprune.graph import analyze
from graphprune.model import load
from graphprune.rewrite import cut


def macs(model: onnx.ModelProto, **dims: int) -> int:
    return analyze(load(model), dims or None).cost.evaluate().macs


# Written out: output elements times length of the sum, node by node.
BY_HAND = {
    "cnn": 64 * (8 * 27 + 6 * 8 * 9 + 8 * 6 * 9) + 8 * 5,
    "option_a": 64 * 4 * 27 + 16 * 10 * 4 * 9 + 10 * 5,
    "dense": 64 * (4 * 27 + 3 * 4 * 9 + 5 * 7 * 9) + 12 * 5,
    "depthwise_se": 64 * (4 * 3 + 6 * 4 + 6 * 9 + 4 * 6) + 3 * 6 + 6 * 3 + 4 * 5,
    "grouped": 64 * (8 * 3 + 12 * 2 * 9) + 12 * 5,
    "flatten": 64 * 4 * 3 + 16 * 5,
    "mlp": 6 * 10 + 10 * 8 + 8 * 3,
    "gated_mlp": 128 * (12 * 14 + 7 * 12),
    "attention": 128 * 4 * 12 * 12 + 2 * 3 * 128 * 128 * 4,
    "attention_fused_gather": 128 * (12 * 36 + 12 * 12) + 2 * 3 * 128 * 128 * 4,
    "attention_fused_split": 128 * (12 * 36 + 12 * 12) + 2 * 3 * 128 * 128 * 4,
    "grouped_query": 4 * (12 * 24 + 2 * 12 * 8 + 24 * 12) + 2 * 6 * 4 * 4 * 4,
    "rotary": 4 * 4 * 12 * 12 + 2 * 3 * 4 * 4 * 4,
    "tied_embedding": 128 * (8 * 10 + 10 * 8 + 8 * 7),
    "group_norm": 64 * (6 * 3 + 4 * 6) + 4 * 5,
    "shape_arithmetic": 128 * 4 * 12 * 12 + 2 * 3 * 128 * 128 * 4,
    "batch_times_heads": 5 * 4 * 12 * 12 + 2 * 3 * 5 * 5 * 4,
    "merged_constants": 6 * 8 + 8 * 8 + 8 * 3,
    "other_domain": 6 * 8 + 8 * 9 + 9 * 10 + 10 * 3,
    "conditional": 6 * 8 + 8 * 9 + 9 * 3 + 2 * 9 * 3,  # both branches
}


@pytest.mark.parametrize("name", NETWORKS)
def test_macs_by_hand(name: str) -> None:
    assert graph_of(name).cost.evaluate().macs == BY_HAND[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_analysed_cost_is_that_of_the_file(name: str) -> None:
    """The sizes that dims are analysed at must not leak into the costs."""
    assert graph_of(name).cost.evaluate() == measure(load(NETWORKS[name]()))


@pytest.mark.parametrize("name", NETWORKS)
def test_predicted_cost_is_that_of_the_cut_file(name: str) -> None:
    """Half of every group's units: multiply-adds and parameters are exact, bytes all but the structure."""
    graph = graph_of(name)
    removed = np.zeros(len(graph.analysis.algebra), bool)
    for number, group in enumerate(graph.groups):
        if group.prunable and group.size > 1:
            # Different positions in groups of equal size, so that merged constants come apart.
            removed[group.units[number % 2 : number % 2 + group.size // 2]] = True
    assert removed.any()
    predicted = graph.cost.evaluate(removed)
    measured = measure(cut(graph.analysis, removed))
    assert predicted.macs == measured.macs
    assert predicted.params == measured.params
    assert predicted.macs < graph.cost.evaluate().macs


def test_params_by_hand() -> None:
    assert graph_of("mlp").cost.evaluate().params == 6 * 10 + 10 + 10 * 8 + 8 + 8 * 3 + 3
    # Reshape targets are integers, no parameters; the divisor is a float.
    assert graph_of("attention").cost.evaluate().params == 4 * 144 + 3 * 12 + 1


def test_shared_constants_count_once_before_and_per_copy_behind_the_cut() -> None:
    graph = graph_of("merged_constants")
    assert graph.cost.evaluate().params == 48 + 64 + 24 + 8 + 8
    first, second = (g for g in graph.groups if g.prunable and g.kind == "channels")
    removed = np.zeros(len(graph.analysis.algebra), bool)
    removed[first.units[0]] = True
    # a.w 6x7, b.w 7x8, c.w 8x3, and both vectors in two sizes
    assert graph.cost.evaluate(removed).params == 42 + 56 + 24 + 2 * (7 + 8)
    removed[second.units[0]] = True  # the same positions again: one copy is enough
    assert graph.cost.evaluate(removed).params == 42 + 49 + 21 + 2 * 7
    removed[second.units[0]], removed[second.units[1]] = False, True
    assert graph.cost.evaluate(removed).params == 42 + 49 + 21 + 2 * (7 + 7)


def test_weight_that_a_body_reads_as_well_keeps_its_full_copy() -> None:
    model = NETWORKS["conditional"]()
    body = next(a.g for a in model.graph.node[-2].attribute if a.name == "then_branch")
    body.node[0].input[1] = "c.w"  # [9, 3]: its first axis is blocked, so nothing changes
    graph = analyze(load(model))
    assert graph.cost.evaluate().params == 6 * 8 + 8 * 9 + 9 * 3 + 9 * 3


def test_dims_scale_the_cost() -> None:
    assert macs(NETWORKS["mlp"](), batch=4) == 4 * BY_HAND["mlp"]
    assert macs(NETWORKS["batch_times_heads"](), batch=3) == 3 * BY_HAND["batch_times_heads"]
    assert macs(NETWORKS["attention"](), time=10) == 10 * 4 * 144 + 2 * 3 * 10 * 10 * 4


def test_bytes_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "cnn.onnx"
    onnx.save(NETWORKS["cnn"](), path)
    assert analyze(load(path)).cost.evaluate().bytes == path.stat().st_size
    external = tmp_path / "external.onnx"
    onnx.save(NETWORKS["cnn"](), external, save_as_external_data=True, location="w", size_threshold=0)
    both = external.stat().st_size + (tmp_path / "w").stat().st_size
    assert analyze(load(external)).cost.evaluate().bytes == both


@pytest.mark.parametrize(
    ("body", "weights", "expected"),
    [
        ("y = ConvTranspose <strides = [2, 2]> (x, w)", {"w": (3, 5, 2, 2)}, 3 * 64 * 5 * 4),
        ("y = ConvTranspose <group = 3> (x, w)", {"w": (3, 2, 3, 3)}, 3 * 64 * 2 * 9),
        ("y = Conv <group = 3, dilations = [2, 2]> (x, w)", {"w": (6, 1, 3, 3)}, 16 * 6 * 9),
        ("y = Conv (x, w)", {"w": (6, 3, 8, 8)}, 6 * 3 * 64),
    ],
)  # fmt: skip
def test_convolutions_by_hand(body: str, weights: dict[str, tuple[int, ...]], expected: int) -> None:
    model = build("(float[batch, 3, 8, 8] x) => (float[batch, c, h, w2] y)", body, weights)
    assert macs(model) == expected


@pytest.mark.parametrize(("trans_a", "trans_b"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_gemm_by_hand(trans_a: int, trans_b: int) -> None:
    shape = "6, 4" if trans_a else "4, 6"
    model = build(
        f"(float[{shape}] x) => (float[4, 5] y)",
        f"y = Gemm <transA = {trans_a}, transB = {trans_b}> (x, w)",
        {"w": (5, 6) if trans_b else (6, 5)},
    )
    assert macs(model) == 4 * 6 * 5


def test_ratio_is_a_fraction_of_the_other() -> None:
    assert Cost(1, 2, 3).ratio(Cost(4, 4, 4)) == {"macs": 0.25, "params": 0.5, "bytes": 0.75}
    assert Cost(0, 0, 0).ratio(Cost(0, 0, 0)) == {"macs": 0.0, "params": 0.0, "bytes": 0.0}


def test_reached_is_measured() -> None:
    result = api.prune(NETWORKS["merged_constants"](), target={"params": 0.7}, criterion="l2")
    assert result.after == measure(result.model)
    assert result.plan.reached["params"] == pytest.approx(
        result.after.params / result.before.params, abs=1e-6
    )
