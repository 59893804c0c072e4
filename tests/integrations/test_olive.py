"""The Olive pass, in Olive itself; left out where Olive is not installed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import NETWORKS, feeds

import graphprune as gp

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("olive") is None, reason="needs Microsoft Olive (pip install olive-ai)"
)

#: In a process of its own: Olive changes loggers and warnings of whoever imports it.
SCRIPT = """
import sys, olive
from graphprune.integrations.olive import package_config
olive.run(sys.argv[1], package_config=package_config(sys.argv[2]))
"""


def workflow(folder: Path, **options: object) -> dict[str, object]:
    return {
        "input_model": {"type": "ONNXModel", "model_path": str(folder / "m.onnx")},
        "passes": {"prune": {"type": "GraphPrune", **options}},
        "output_dir": str(folder / "out"),
        "cache_dir": str(folder / "cache"),
        "evaluate_input_model": False,
    }


def run(folder: Path, **options: object) -> subprocess.CompletedProcess[str]:
    (folder / "w.json").write_text(json.dumps(workflow(folder, **options)), encoding="utf-8")
    # Olive sends nothing from what it takes for a pipeline.
    environment = {**os.environ, "CI": "true", "OLIVE_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", SCRIPT, str(folder / "w.json"), str(folder / "package.json")]
    return subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )


def test_a_workflow_prunes_as_the_command_does(tmp_path: Path) -> None:
    model = NETWORKS["cnn"]()
    onnx.save(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "s.npz", **feeds(model, batch=32))
    done = run(
        tmp_path, target="macs=70%", calibration=str(tmp_path / "s.npz"), floor=0.0, criterion="l2",
        plan_out=str(tmp_path / "p.json"), report=str(tmp_path / "r.html"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (found,) = (tmp_path / "out").rglob("*.onnx")
    gp.prune(
        tmp_path / "m.onnx", tmp_path / "o.onnx", target={"macs": "70%"}, calibration=str(tmp_path / "s.npz"),
        floor=0.0, criterion="l2",
    )  # fmt: skip
    assert found.read_bytes() == (tmp_path / "o.onnx").read_bytes()
    assert gp.info(found).pruned is not None
    assert (tmp_path / "p.json").is_file()
    assert (tmp_path / "r.html").is_file()
