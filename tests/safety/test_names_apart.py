"""No command writes over a file that it reads, or over one that it has just written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from graphprune.models import demo_model_path

from graphprune.cli import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model with external data, its samples, and a plan for it."""
    model = onnx.load(demo_model_path())
    onnx.save(
        model, tmp_path / "m.onnx", save_as_external_data=True, location="m.onnx.data", size_threshold=1024
    )
    shape = [max(d.dim_value, 1) for d in model.graph.input[0].type.tensor_type.shape.dim]
    np.savez(tmp_path / "s.npz", **{model.graph.input[0].name: np.zeros((4, *shape[1:]), np.float32)})
    (tmp_path / "d.toml").write_text("")
    prune = ["m.onnx", "first.onnx", "--plan-out", "p.json"]
    assert run(tmp_path, ["prune", *prune, *HALF]) == 0
    return tmp_path


HALF = ["--target", "macs=50%", "--criterion", "l2", "--no-verify"]

COLLISIONS = {
    "model over data": ["prune", "m.onnx", "m.onnx.data", *HALF],
    "applied over data": ["apply", "p.json", "m.onnx", "m.onnx.data"],
    "plan over data": ["prune", "m.onnx", "o.onnx", "--plan-out", "m.onnx.data", *HALF],
    "report over data": ["prune", "m.onnx", "o.onnx", "--report", "m.onnx.data", *HALF],
    "plan over samples": [
        "prune", "m.onnx", "o.onnx", "--calibration", "s.npz", "--plan-out", "s.npz", *HALF
    ],
    "plan over declarations": [
        "prune", "m.onnx", "o.onnx", "--declare", "d.toml", "--plan-out", "d.toml", *HALF
    ],
    "model over plan": ["apply", "p.json", "m.onnx", "p.json"],
    "report over plan": ["apply", "p.json", "m.onnx", "o.onnx", "--report", "p.json"],
    "plan over weights": ["prune", "m.onnx", "o.onnx", "--plan-out", "o.onnx.data", *HALF],
    "report over weights": [
        "prune", "m.onnx", "o.onnx", "--report", "o.onnx.data", "--shard-size", "1MB", *HALF
    ],
    "plan and report": ["prune", "m.onnx", "o.onnx", "--plan-out", "q", "--report", "q", *HALF],
}  # fmt: skip


def run(folder: Path, arguments: list[str]) -> int:
    """The exit code of a command, all files of which are in a folder."""
    places = [str(folder / a) if Path(a).suffix or a == "q" else a for a in arguments]
    with pytest.raises(SystemExit) as exit_:
        main(places)
    code = exit_.value.code
    return code if isinstance(code, int) else 0


@pytest.mark.parametrize("arguments", COLLISIONS.values(), ids=COLLISIONS)
def test_nothing_is_written_over(folder: Path, arguments: list[str]) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert run(folder, arguments) == 2
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
