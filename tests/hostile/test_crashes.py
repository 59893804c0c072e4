"""Libraries that fail over a model: whose fault it is, and what is left when they crash."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from networks import NETWORKS

from graphprune import api
from graphprune.cli import analysis_commands
from graphprune.cli.isolation import isolated
from graphprune.invalid_models import why_invalid

PRUNE = ("--target", "macs=60%", "--criterion", "l2")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")


def failing(*arguments: object, **options: object) -> None:
    message = "unexpected"
    raise RuntimeError(message)


def wrong_inner_size(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.dims[:] = list(tensor.dims)[::-1]


def unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "NoSuchThing"


def wrong_attribute(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("nonsense", 1))


@pytest.mark.parametrize("damage", [wrong_inner_size, unknown_operator, wrong_attribute])
def test_an_unexpected_error_over_an_invalid_model_is_the_models(
    refusal: Callable[..., str], mlp: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[..., None]
) -> None:
    model = onnx.load(mlp)
    damage(model)
    onnx.save(model, mlp)
    monkeypatch.setattr(analysis_commands, "summarise", failing)
    monkeypatch.setattr(analysis_commands, "analyze", failing)
    error = refusal("inspect", mlp)
    assert "is no valid model" in error
    assert "onnx" in error.splitlines()[1]


def test_an_unexpected_error_over_a_valid_model_is_ours(
    refusal: Callable[..., str], mlp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysis_commands, "analyze", failing)
    assert "please report it" in refusal("inspect", mlp, code=70)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_valid_models_are_valid(name: str, tmp_path: Path) -> None:
    onnx.save(NETWORKS[name](), tmp_path / "m.onnx")
    assert why_invalid(tmp_path / "m.onnx") is None


def test_no_model_is_no_invalid_model(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"nonsense")
    assert why_invalid(tmp_path / "m.onnx") is None


# ---- --isolate ----------------------------------------------------------------------------------


@needs_fork
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGKILL])
def test_a_crash_is_an_error(
    refusal: Callable[..., str], mlp: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    def crash(*arguments: object, **options: object) -> None:
        os.write(2, b"native words\n")
        signal.signal(number, signal.SIG_DFL) if number != signal.SIGKILL else None
        os.kill(os.getpid(), number)

    monkeypatch.setattr(api, "analyze", crash)
    before = mlp.read_bytes()
    error = refusal("--isolate", "prune", mlp, mlp.parent / "o.onnx", *PRUNE)
    assert "crashed" in error or "was killed" in error
    assert "native words" not in error
    assert mlp.read_bytes() == before
    assert not (mlp.parent / "o.onnx").exists()


@needs_fork
@pytest.mark.parametrize("code", [0, 1, 3, 70])
def test_exit_codes_come_through(code: int) -> None:
    assert isolated(lambda: code) == code


@needs_fork
def test_the_command_does_what_it_does(mlp: Path) -> None:
    """In a process of its own, since what it prints comes from another one."""
    command = [sys.executable, "-m", "graphprune", "--isolate", "prune", mlp, mlp.parent / "o.onnx", *PRUNE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "before and after" in done.stdout
    assert (mlp.parent / "o.onnx").is_file()
    command[4:6] = ["inspect", mlp.parent / "none.onnx"]
    done = subprocess.run(command[:6], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("graphprune: model file")


@needs_fork
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_both_processes_end(tmp_path: Path, number: signal.Signals) -> None:
    if number == signal.SIGKILL and sys.platform != "linux":
        pytest.skip("only Linux tells a process that its parent is gone")
    script = (
        "import os, time\n"
        "from graphprune.cli.isolation import isolated\n"
        "def run():\n"
        "    print(os.getpid(), flush=True)\n"
        "    time.sleep(60)\n"
        "    return 0\n"
        "raise SystemExit(isolated(run))\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.send_signal(number)
        assert parent.wait(30) != 0
    for _ in range(300):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            break
        if Path(f"/proc/{child}/stat").exists() and " Z " in Path(f"/proc/{child}/stat").read_text():
            break  # ended, and not yet collected
        time.sleep(0.1)
    else:
        pytest.fail("the command goes on")


@needs_fork
def test_an_interrupt_reaches_the_command() -> None:
    script = """
import sys, time
from graphprune.cli.isolation import isolated

def run():
    try:
        time.sleep(0.3)  # the other side is listening by then
        print("ready", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        return 130
    return 0

sys.exit(isolated(run))
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
