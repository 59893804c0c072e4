"""The GitHub Action and the Dockerfile: as far as they can be tried without GitHub and without Docker."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import onnx
import pytest
from networks import NETWORKS

import graphprune as gp

ROOT = Path(__file__).parent.parent


def parsed(text: str) -> dict[str, Any]:
    yaml = pytest.importorskip("yaml", reason="needs PyYAML")
    return dict(yaml.safe_load(text))


@pytest.fixture
def action() -> dict[str, Any]:
    return parsed((ROOT / "action.yml").read_text(encoding="utf-8"))


def test_action_is_composite_and_takes_inputs_by_the_environment(action: dict[str, Any]) -> None:
    assert action["runs"]["using"] == "composite"
    for step in action["runs"]["steps"]:
        assert step["shell"] == "bash"
        assert "uses" not in step  # nobody else's code runs
        assert "${{" not in step["run"]  # an input is never part of a script
    used = set(re.findall(r"inputs\.([\w-]+)", (ROOT / "action.yml").read_text(encoding="utf-8")))
    assert used == set(action["inputs"])
    for output in action["outputs"].values():
        assert re.fullmatch(r"\$\{\{ steps\.prune\.outputs\.[\w-]+ \}\}", output["value"])


def environment(folder: Path, **inputs: str) -> dict[str, str]:
    """As a runner has it, with a graphprune that is installed already."""
    programs = folder / "graphprune" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").symlink_to(sys.executable)
    start = programs / "graphprune"
    start.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m graphprune "$@"\n', encoding="utf-8")
    start.chmod(0o755)
    empty = dict.fromkeys(("JOB", "MODEL", "OUT", "TARGET", "CALIBRATION", "REPORT", "OPTIONS"), "")
    given = {"RUNNER_TEMP": str(folder), "GITHUB_OUTPUT": str(folder / "output")}
    return {**os.environ, **empty, **given, **inputs}


def prune_step(action: dict[str, Any], folder: Path, **inputs: str) -> subprocess.CompletedProcess[str]:
    (script,) = [step["run"] for step in action["runs"]["steps"] if step.get("id") == "prune"]
    command = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", script]  # as GitHub runs it
    return subprocess.run(
        command, env=environment(folder, **inputs), cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_action_prunes(action: dict[str, Any], tmp_path: Path) -> None:
    onnx.save(NETWORKS["cnn"](), tmp_path / "my model.onnx")
    done = prune_step(
        action, tmp_path, MODEL="my model.onnx", OUT="o.onnx", TARGET="macs=70% params=90%", REPORT="r.html",
        OPTIONS="--criterion l2 --floor 0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    outputs = dict(line.split("=", 1) for line in (tmp_path / "output").read_text("utf-8").splitlines())
    origin = gp.info(tmp_path / "o.onnx").pruned
    assert origin is not None
    assert origin.reached is not None
    assert float(outputs["kept-macs"]) == pytest.approx(origin.reached["macs"], abs=1e-6)
    assert float(outputs["kept-macs"]) <= 0.7
    assert Path(outputs["result"]).is_file()
    assert (tmp_path / "r.html").is_file()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_action_reads_every_line(action: dict[str, Any], tmp_path: Path) -> None:
    onnx.save(NETWORKS["cnn"](), tmp_path / "m.onnx")
    done = prune_step(
        action, tmp_path, MODEL="m.onnx", OUT="o.onnx", TARGET="macs=90%\nparams=60%\n",
        OPTIONS="--criterion l2\n--floor 0\n",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "graphprune.json").read_text("utf-8"))
    assert document["target"] == {"macs": 0.9, "params": 0.6}
    assert document["options"]["floor"] == 0
    assert document["reached"]["params"] <= 0.6


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_action_fails_as_the_command_does_and_runs_no_input(action: dict[str, Any], tmp_path: Path) -> None:
    onnx.save(NETWORKS["mlp"](), tmp_path / "m.onnx")
    done = prune_step(
        action, tmp_path, MODEL="m.onnx", OUT="$(touch pwned).onnx", TARGET="macs=0.1%; touch pwned",
    )  # fmt: skip
    assert done.returncode == 2
    assert "graphprune: " in done.stderr
    assert not (tmp_path / "pwned").exists()


def test_the_step_installs_this_folder(action: dict[str, Any]) -> None:
    (step,) = [step for step in action["runs"]["steps"] if step["name"] == "Install graphprune"]
    assert step["env"]["SOURCE"] == "${{ github.action_path }}"
    assert 'install --quiet --disable-pip-version-check "$SOURCE"' in textwrap.dedent(step["run"])


def test_dockerfile_names_stages_that_are_there() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    stages = re.findall(r"^FROM \S+ AS (\w+)$", text, re.MULTILINE)
    assert stages == ["wheel", "cuda", "cpu"]  # the last one is built by default
    assert set(re.findall(r"--from=(\w+)", text)) <= set(stages)
    assert set(re.findall(r"docker build .*--target (\w+)", text)) <= set(stages)
    assert text.count("ENTRYPOINT") == text.count("USER graphprune") == 2
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line[:1] == "!"}
    assert all((ROOT / name).exists() for name in kept)
    # What pip needs to build the package.
    assert {"pyproject.toml", "README.md", "LICENSE", "graphprune", "passes", "converters", "models"} == kept
