"""Layers of both models find each other by the nodes that they compute."""

from __future__ import annotations

from pathlib import Path

from networks import NETWORKS

import graphprune as gp
from graphprune.profiling.report import LayerTime as Timed
from graphprune.reporting.latency import Latencies, LayerTime, latency
from graphprune.reporting.measured import matched
from graphprune.reporting.request import ReportRequest


def timed(name: str, ms: float, *origins: str) -> Timed:
    return Timed(name, "Conv", "cpu", ms, 0.0, origins)


def test_the_same_nodes_are_the_same_layer() -> None:
    before = [timed("a", 2.0, "conv1", "relu1"), timed("b", 1.0, "conv2"), timed("reorder", 0.5)]
    after = [timed("x", 1.0, "conv1"), timed("y", 0.25, "relu1"), timed("reorder", 0.25)]
    assert matched(before, after) == [
        LayerTime("conv1", "Conv", 2.0, 1.25),
        LayerTime("conv2", "Conv", 1.0, None),
        LayerTime("reorder", "Conv", 0.5, 0.25),
    ]


def test_what_only_the_pruned_model_has() -> None:
    assert matched([], [timed("x", 1.0, "new")]) == [LayerTime("new", "Conv", None, 1.0)]


def test_words_of_the_section() -> None:
    layers = [LayerTime("<conv>", "Conv", 2.0, None), LayerTime("b", "Relu", None, 0.5)]
    text = latency(Latencies(4.0, 2.0, (0.5, 0.4, 0.6), "on <cpu>", layers))
    assert (
        "4 ms before, 2 ms after: 50.0% of the time (40.0% to 60.0% over the rounds), on &lt;cpu&gt;" in text
    )
    assert "&lt;conv&gt;" in text
    assert "gone" in text
    assert "<table" not in latency(Latencies(4.0, 2.0, (0.5, 0.4, 0.6), "here", []))


def test_measured_on_request(tmp_path: Path) -> None:
    request = ReportRequest(tmp_path / "r.html", latency=True)
    model = NETWORKS["cnn"]()
    gp.prune(model, target={"macs": 0.7}, criterion="l2", floor=0.0, report=request, threads=1)
    text = request.path.read_text(encoding="utf-8")
    assert "Runs of both models alternate." in text
    assert "1 thread." in text
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    assert convolutions
    assert all(name in text for name in convolutions)
