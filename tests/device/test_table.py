"""Layers of a model at any widths, and what a table says of a cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from graphprune.passes.allocators import Limits
from latency_networks import attention, convolutions
from networks import build
from pretended_device import PretendedDevice

from graphprune.device.goal import LatencyGoal
from graphprune.device.layers import find_layers
from graphprune.device.local import LocalDevice
from graphprune.device.pieces import Piece
from graphprune.device.table import POINTS, LatencyTable, grid
from graphprune.graph import DependencyGraph, analyze
from graphprune.model import load
from graphprune.progress import silent
from graphprune.selection import Selection

Removed = np.ndarray[Any, Any]


def everything(graph: DependencyGraph) -> Removed:
    may_go = np.zeros(len(graph.analysis.algebra), bool)
    for group in Selection().choose(graph):
        may_go[group.units] = True
    return may_go


def cut_of(graph: DependencyGraph, **kept: int) -> Removed:
    """The units that go when groups, by the start of their ids, keep so many."""
    removed = np.zeros(len(graph.analysis.algebra), bool)
    for group in graph.groups:
        for name, count in kept.items():
            if group.id.startswith(name.replace("_", ".")):
                removed[group.units[count:]] = True
    return removed


def goal_of(
    model: onnx.ModelProto, device: PretendedDevice, batch: int = 1
) -> tuple[DependencyGraph, LatencyGoal]:
    graph = analyze(load(model))
    return graph, LatencyGoal(graph, device, batch, silent)


def test_layers_of_convolutions() -> None:
    graph = analyze(load(convolutions()))
    found = find_layers(graph, graph.analysis.trace.nominal, everything(graph))
    names = {layer.name: layer for layer in found.timed}
    assert list(names) == ["Conv_a0", "Conv_d0", "Conv_b0", "Conv_e0", "Gemm_y"]
    assert [len(layer.axes) for layer in found.timed] == [1, 1, 2, 1, 1]  # its sum ties both ends of the last
    assert names["Conv_a0"].tail == ("Relu",)
    assert names["Conv_d0"].tail == ("Relu",)  # a clip
    assert names["Conv_e0"].tail == ()
    narrow = names["Conv_d0"].piece([17])
    assert narrow.operands[0].shape == (1, 17, 16, 16)
    assert narrow.operands[1].shape == (17, 1, 3, 3)
    assert dict(narrow.attributes)["group"] == 17
    axes = [axis.size for axis in names["Conv_b0"].axes]
    piece = names["Conv_b0"].piece([24 if n == 48 else 40 for n in axes])
    assert [o.shape for o in piece.operands] == [(1, 24, 16, 16), (40, 24, 1, 1), (40,)]
    others = {node.op_type for node, _ in found.others}
    assert others == {"Add", "GlobalAveragePool"}


def test_groups_of_convolutions_are_right_at_any_width() -> None:
    """A runtime refuses what does not fit: channels that groups don't divide, biases of another length."""
    body = """
        a0 = Conv<pads: ints = [1, 1, 1, 1]>(x, a.w) a = Relu(a0)
        b = ConvTranspose<group: int = 16, strides: ints = [2, 2]>(a, b.w, b.b)
        c = Conv<group: int = 16, pads: ints = [1, 1, 1, 1]>(b, c.w, c.b)
        d = ConvTranspose<group: int = 4>(c, d.w, d.b) y = Conv(d, e.w)"""
    weights = {
        "a.w": (16, 4, 3, 3), "b.w": (16, 1, 2, 2), "b.b": (16,), "c.w": (32, 1, 3, 3), "c.b": (32,),
        "d.w": (32, 2, 1, 1), "d.b": (8,), "e.w": (4, 8, 1, 1),
    }  # fmt: skip
    graph = analyze(load(build("(float[1, 4, 8, 8] x) => (float[1, 4, 16, 16] y)", body, weights)))
    layers = {v.name: v for v in find_layers(graph, graph.analysis.trace.nominal, everything(graph)).timed}
    groups = {name: layer.has_groups for name, layer in layers.items() if "Conv_y" not in name}
    assert groups == {
        "Conv_a0": False, "ConvTranspose_b": False, "Conv_c": True, "ConvTranspose_d": True,
    }  # fmt: skip
    assert dict(layers["ConvTranspose_b"].piece([7]).attributes)["group"] == 7
    device = LocalDevice(threads=1)
    goal = LatencyGoal(graph, device, 1, silent)
    goal.__dict__["dense_ms"] = 1.0
    assert goal.table(Selection().choose(graph), Limits(0.1, 4)).measured


def test_layers_of_attention() -> None:
    graph = analyze(load(attention()))
    found = find_layers(graph, graph.analysis.trace.nominal, everything(graph))
    names = {layer.name: layer for layer in found.timed}
    assert names["MatMul_q0"].tail == ("Add",)
    assert names["MatMul_h0"].tail == ("Add", "Relu")
    assert len(names["MatMul_s0"].axes) == 2  # heads, and their dims
    assert {node.op_type for node, _ in found.others} == {"Softmax", "Transpose", "Add"}


@pytest.mark.parametrize("make", [convolutions, attention])
def test_the_whole_model_is_one(make: Any) -> None:
    graph, goal = goal_of(make(), PretendedDevice())
    table = goal.table(Selection().choose(graph), Limits(0.1, 8))
    assert table(np.zeros(len(graph.analysis.algebra), bool)) == pytest.approx(1.0)
    assert table.covered <= 1.0


def test_measured_widths_are_exact() -> None:
    """Two widths of one layer are cut together: the table says what the machine does."""
    device = PretendedDevice(per_element=0.0)
    graph, goal = goal_of(convolutions(), device)
    table = goal.table(Selection().choose(graph), Limits(0.1, 8))
    for kept in ({"c1_w": 24}, {"c2_w": 32}, {"c1_w": 40, "c2_w": 48}, {"c1_w": 8, "c2_w": 8}):
        removed = cut_of(graph, **kept)
        assert removed.any()
        assert table(removed) == pytest.approx(goal.measure(removed), rel=1e-4)


def test_other_nodes_go_with_their_elements() -> None:
    device = PretendedDevice(per_mac=1e-9, per_element=1e-4)
    graph, goal = goal_of(convolutions(), device)
    table = goal.table(Selection().choose(graph), Limits(0.1, 8))
    removed = cut_of(graph, c2_w=32)
    assert table(removed) == pytest.approx(goal.measure(removed), rel=0.01)
    assert table(removed) < 0.8


def test_batch_changes_what_is_timed() -> None:
    device = PretendedDevice()
    graph, one = goal_of(convolutions(), device)
    eight = LatencyGoal(graph, device, 8, silent)
    assert eight.dense_ms == pytest.approx(8 * one.dense_ms, rel=1e-6)
    asked = eight.table(Selection().choose(graph), Limits(0.1, 8)).measured
    assert asked
    assert all("[8," in key for key in asked)


def test_what_looks_slower_when_narrower_is_taken_for_noise() -> None:
    graph = analyze(load(convolutions()))
    layers = find_layers(graph, graph.analysis.trace.nominal, everything(graph))

    def timer(pieces: Sequence[Piece]) -> Mapping[Piece, float]:
        # Everything takes as long as the whole, but for what was disturbed.
        return {p: 5.0 if p.operands[1].shape[0] == 24 else 1.0 for p in pieces}

    most = cut_of(graph, c1_w=8, c2_w=8)
    table = LatencyTable(graph, layers, most, lambda axis: 8, timer, 5.0)
    assert table(cut_of(graph, c1_w=24, c2_w=24)) == pytest.approx(1.0)


def test_whole_blocks_take_their_layers_along() -> None:
    graph, goal = goal_of(attention(), PretendedDevice())
    groups = Selection(["blocks", "channels"]).choose(graph)
    table = goal.table(groups, Limits(0.1, 8))
    for group in groups:
        if group.kind == "blocks":
            removed = np.zeros(len(graph.analysis.algebra), bool)
            removed[group.units] = True
            assert table(removed) == pytest.approx(goal.measure(removed), abs=0.06)
            assert table(removed) < 0.9


def test_grids() -> None:
    assert grid(8, 48, 8, 7) == [8, 16, 24, 32, 40, 48]
    assert grid(5, 20, 8, 7) == [8, 16, 20]
    assert grid(1, 1, 4, 7) == [1]
    many = grid(32, 2048, 16, POINTS)
    assert len(many) == POINTS
    assert many[0] == 32
    assert many[-1] == 2048
    assert all(width % 16 == 0 for width in many)
