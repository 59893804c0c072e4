"""`info`: what a file says of itself."""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx
from networks import NETWORKS

import graphprune as gp


def test_info_of_a_file(cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    model = NETWORKS["attention"]()
    onnx.save(model, tmp_path / "m.onnx")
    found = gp.info(tmp_path / "m.onnx")
    assert found.sha256 == hashlib.sha256((tmp_path / "m.onnx").read_bytes()).hexdigest()
    assert found.bytes == (tmp_path / "m.onnx").stat().st_size
    assert found.nodes == len(model.graph.node) == sum(found.ops.values())
    assert found.opsets == {"ai.onnx": 17}
    assert [v.name for v in found.inputs] == [v.name for v in model.graph.input]
    document = cli("info", tmp_path / "m.onnx", "--json").json()
    assert document["schema_version"] == 1
    assert document["pruned"] is None
    assert document["inputs"][0]["dtype"] == "float"
    shown = cli("info", tmp_path / "m.onnx").out
    assert "not by graphprune" in shown
    gp.prune(NETWORKS["cnn"](), tmp_path / "o.onnx", target={"macs": 0.7}, criterion="l2", floor=0.0)
    origin = gp.info(tmp_path / "o.onnx").pruned
    assert origin is not None
    assert origin.plan_sha256 in cli("info", tmp_path / "o.onnx").out
    assert "does not exist" in cli("info", tmp_path / "none.onnx").error(1)
