"""`recover`: help and wrong use without torch, the whole with it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "converters" / "recovery"))
from teachers import mlp, nudged, rows

QUICK = ("--epochs", "6", "--lr", "3e-2", "--batch-size", "32", "--threads", "1")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A pruned model, its reference, samples."""
    found = {name: tmp_path / name for name in ("small.onnx", "model.onnx", "samples.npz", "out.onnx")}
    onnx.save(nudged(mlp()), found["small.onnx"])
    onnx.save(mlp(), found["model.onnx"])
    np.savez(found["samples.npz"], **rows())  # type: ignore[arg-type]
    return found


def arguments(files: dict[str, Path]) -> tuple[str, ...]:
    small, model, samples, out = (str(path) for path in files.values())
    return ("recover", small, out, "--reference", model, "--data", samples)


def test_help_and_wrong_options(cli: Any, files: dict[str, Path]) -> None:
    done = cli("recover", "-h")
    assert done.code == 0
    assert "--checkpoint" in done.out
    assert "--lr" in cli(*arguments(files), "--lr", "fast").error(2)
    assert "lr can't be 0" in cli(*arguments(files), "--lr", "0").error(2)
    assert "no augment 'turn'" in cli(*arguments(files), "--augment", "turn").error(2)
    assert "--checkpoint FILE" in cli(*arguments(files), "--resume").error(2)
    assert not files["out.onnx"].exists()


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed")
def test_without_torch_one_line_says_what_to_install(cli: Any, files: dict[str, Path]) -> None:
    assert "pip install 'graphprune[torch]'" in cli(*arguments(files)).error(1)
    assert "pip install 'graphprune[torch]'" in cli("demo", "--recover").error(1)


@pytest.mark.torch
def test_json_and_table(cli: Any, files: dict[str, Path]) -> None:
    done = cli(*arguments(files), *QUICK, "--json")
    assert (done.code, done.err) == (0, "")
    found = done.json()
    assert found["schema_version"] == 1
    assert found["output"] == str(files["out.onnx"])
    assert found["after"]["error"]["y"] < found["before"]["error"]["y"]
    first = files["out.onnx"].read_bytes()
    done = cli(*arguments(files), *QUICK)
    assert done.code == 0
    assert "19 held-out samples" in done.out
    assert "written:" in done.out
    assert files["out.onnx"].read_bytes() == first
    ort.InferenceSession(files["out.onnx"])


@pytest.mark.torch
def test_errors_write_nothing(cli: Any, files: dict[str, Path], tmp_path: Path) -> None:
    other = mlp(classes=4)
    onnx.save(other, files["model.onnx"])
    assert "shape" in cli(*arguments(files), *QUICK).error(1)
    onnx.save(mlp(), files["model.onnx"])
    assert "no tensor 'q'" in cli(*arguments(files), *QUICK, "--hidden", "q").error(2)
    np.savez(files["samples.npz"], z=rows()["x"])
    assert "rename 'z' to 'x'" in cli(*arguments(files), *QUICK).error(1)
    assert not files["out.onnx"].exists()


@pytest.mark.torch
def test_demo_has_a_second_step(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphprune import demo

    monkeypatch.setitem(demo.RECOVERY, "epochs", 12)
    out = tmp_path / "digits.onnx"
    done = cli("demo", "--out", out, "--recover", "--json")
    assert done.code == 0, done
    found = done.json()["recovery"]
    before, after = found["accuracy"]
    assert found["macs"][1] < 0.11 * found["macs"][0]
    assert after > before + 0.1
    assert Path(found["output"]).is_file()
