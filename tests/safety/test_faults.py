"""A full disk, a lost permission, a changed input: an error of four lines, and nothing is lost."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import NETWORKS, feeds

import graphprune as gp
from graphprune import pruning
from graphprune.cli import main
from graphprune.errors import ModelError
from graphprune.plan import Plan
from graphprune.storage import durable, writing

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FOUR_LINES = ("graphprune: ", "  where:   ", "  because: ", "  try:     ")


def store(path: Path, *, external: bool, network: str = "mlp") -> Path:
    onnx.save(
        NETWORKS[network](), path, save_as_external_data=external, location=f"{path.name}.data",
        size_threshold=0,
    )  # fmt: skip
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def command(capsys: Any, *arguments: object) -> tuple[int, str]:
    """Exit code and error of a command; the error has the form that is promised."""
    with pytest.raises(SystemExit) as exit_:
        main([str(a) for a in arguments])
    err = capsys.readouterr().err
    code = exit_.value.code
    assert isinstance(code, int)
    if code == 1:
        lines = err.splitlines()
        assert lines[0].startswith(FOUR_LINES[0])
        assert all(line.startswith(FOUR_LINES[1:]) for line in lines[1:])
    return code, err


def written_to(file: Path) -> None:
    file.write_bytes(file.read_bytes()[::-1])


def replaced(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(file.read_bytes())
    other.replace(file)


def cut_off(file: Path) -> None:
    os.truncate(file, 10)


def made_longer(file: Path) -> None:
    with file.open("ab") as opened:
        opened.write(bytes(64))


CHANGES = [written_to, replaced, cut_off, made_longer, Path.unlink]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("name", ["in.onnx", "in.onnx.data", "whole.onnx"])
def test_changed_input(
    tmp_path: Path, monkeypatch: Any, capsys: Any, change: Callable[[Path], Any], name: str
) -> None:
    """The input is changed after it was read, before its last weights are."""
    model = store(tmp_path / name.removesuffix(".data"), external=not name.startswith("whole"))
    out, plan = tmp_path / "out.onnx", tmp_path / "plan.json"
    out.write_bytes(b"old")
    plan.write_bytes(b"old plan")
    right = pruning.cost_of

    def changed(*arguments: Any, **options: Any) -> Any:
        change(tmp_path / name)
        return right(*arguments, **options)

    monkeypatch.setattr(pruning, "cost_of", changed)
    code, err = command(
        capsys, "prune", model, out, "--target", "macs=60%", "--criterion", "l2", "--plan-out", plan
    )
    assert code == 1
    said = f"{name}' was {'removed' if change is Path.unlink else 'changed'} while it was read"
    # What reads the data in between may find first that they are not there.
    assert said in err or (
        name.endswith(".data") and "'in.onnx' is no valid model" in err.replace(f"{tmp_path}/", "")
    )
    assert (out.read_bytes(), plan.read_bytes()) == (b"old", b"old plan")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("external", [True, False], ids=["external", "whole"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EACCES, errno.EIO], ids=errno.errorcode.get)
def test_a_disk_that_fails_at_the_end(
    tmp_path: Path, monkeypatch: Any, capsys: Any, external: bool, error: int
) -> None:
    """Some file systems tell only now that there was no room."""
    model = store(tmp_path / "in.onnx", external=external)
    arguments = ("prune", model, tmp_path / "out.onnx", "--target", "macs=60%", "--criterion", "l2")
    assert command(capsys, *arguments)[0] == 0
    before = contents(tmp_path)

    def full(file: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "fsync", full)
    code, err = command(capsys, *arguments[:4], "macs=80%", *arguments[5:])
    assert code == 1
    assert os.strerror(error) in err
    assert contents(tmp_path) == before


def test_the_plan_is_written_first_and_appears_last(tmp_path: Path, monkeypatch: Any) -> None:
    """A disk that has room for one of the two only leaves both as they were."""
    model = store(tmp_path / "in.onnx", external=False)
    out, plan = tmp_path / "out.onnx", tmp_path / "plan.json"
    seen = []
    right = writing.publish

    def publish(*arguments: Any, **options: Any) -> None:
        seen.extend(path.name for path in tmp_path.iterdir() if "plan" in path.name)
        right(*arguments, **options)

    monkeypatch.setattr(writing, "publish", publish)
    gp.prune(model, out, target={"macs": 0.6}, criterion="l2", plan_out=plan)
    assert seen == [".plan.json.0.graphprune"]
    assert Plan.load(plan).model_file == str(model)
    before = contents(tmp_path)

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writing, "publish", full)
    with pytest.raises(ModelError, match="cannot write"):
        gp.prune(model, out, target={"macs": 0.8}, criterion="l2", plan_out=plan)
    assert contents(tmp_path) == before


def test_a_leftover_of_a_plan_is_named_and_used_again(tmp_path: Path, caplog: Any) -> None:
    part = tmp_path / ".a.txt.0.graphprune"
    part.write_text("much more than there will be")
    with durable.file_ready_at(tmp_path / "a.txt") as file:
        file.write(b"new")
    assert contents(tmp_path) == {"a.txt": b"new"}
    assert str(part) in caplog.text


def test_two_writers_of_one_file(tmp_path: Path) -> None:
    with durable.file_ready_at(tmp_path / "a.txt") as first:
        first.write(b"first")
        with durable.file_ready_at(tmp_path / "a.txt") as second:
            second.write(b"second")
        assert (tmp_path / "a.txt").read_bytes() == b"second"
    assert contents(tmp_path) == {"a.txt": b"first"}


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="no such links here")
def test_a_link_in_the_place_of_a_temporary_file(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    (tmp_path / ".a.txt.0.graphprune").symlink_to(mine)
    with pytest.raises(OSError, match="symbolic link"), durable.file_ready_at(tmp_path / "a.txt"):
        pass
    (tmp_path / ".a.txt.0.graphprune").unlink()
    (tmp_path / ".a.txt.0.graphprune").hardlink_to(mine)
    with durable.file_ready_at(tmp_path / "a.txt") as file:
        file.write(b"new")
    assert mine.read_text() == "mine"
    assert (tmp_path / "a.txt").read_text() == "new"


@pytest.mark.parametrize("place", ["cost_of", "validate"])
def test_any_error_of_the_system_is_told_in_four_lines(
    tmp_path: Path, monkeypatch: Any, capsys: Any, place: str
) -> None:
    """Temporary files of calibration, say, on a disk that is full."""

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/somewhere/x.npy")

    monkeypatch.setattr(pruning, place, full)
    model = store(tmp_path / "in.onnx", external=False)
    code, err = command(
        capsys, "prune", model, tmp_path / "o.onnx", "--target", "macs=60%", "--criterion", "l2"
    )
    assert code == 1
    assert "  where:   /somewhere/x.npy\n  because: No space left on device\n" in err
    assert [path.name for path in tmp_path.iterdir()] == ["in.onnx"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_result_that_cannot_be_printed(tmp_path: Path) -> None:
    model = store(tmp_path / "in.onnx", external=False)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "graphprune", "inspect", str(model)],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("graphprune: cannot print the result\n  where:   standard output\n")


def test_sigterm_cleans_up(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    def stopped(*arguments: Any, **options: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(pruning, "cost_of", stopped)
    model = store(tmp_path / "in.onnx", external=False)
    before = signal.getsignal(signal.SIGTERM)
    code, err = command(
        capsys, "prune", model, tmp_path / "o.onnx", "--target", "macs=60%", "--criterion", "l2"
    )
    assert (code, err) == (143, "stopped: no output is half written\n")
    assert [path.name for path in tmp_path.iterdir()] == ["in.onnx"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_sweep_is_alone_in_its_folder(tmp_path: Path, monkeypatch: Any) -> None:
    module = importlib.import_module("graphprune.sweep")  # its name in the package is the function's
    model = store(tmp_path / "in.onnx", external=False)
    seen = []
    right = module.carry_out

    def carry_out(*arguments: Any, **options: Any) -> Any:
        seen.extend(path.name for path in (tmp_path / "out").iterdir())
        return right(*arguments, **options)

    monkeypatch.setattr(module, "carry_out", carry_out)
    gp.sweep(model, tmp_path / "out", targets=["70%"], criterion="l2", measure=False)
    assert seen == [".sweep.json.graphprune"]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"in-macs-70.onnx", "in-macs-70.plan.json", "sweep.json"}


@pytest.mark.parametrize(
    ("script", "options", "count"),
    [
        ("kill.py", ("--runs", "2", "--width", "16", "--seed", "3"), "     2  next runs that worked"),
        (
            "faults.py",
            ("--only", "sizes", "--points", "3", "--width", "16"),
            "     3  external data, too large",
        ),
    ],
)
def test_the_benchmarks(script: str, options: tuple[str, ...], count: str) -> None:
    """A few of what they do by the hundred."""
    given = [sys.executable, str(BENCHMARKS / script), *options]
    done = subprocess.run(given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert count in done.stdout
    assert "wrong" not in done.stdout


def test_memory_mapped_samples_are_left_alone(tmp_path: Path) -> None:
    """Nothing that a run reads beside the model is written to."""
    model = store(tmp_path / "in.onnx", external=True, network="cnn")
    archive = tmp_path / "calib.npz"
    np.savez(archive, **feeds(NETWORKS["cnn"](), batch=16))
    before = contents(tmp_path)
    gp.prune(model, tmp_path / "out.onnx", target={"params": 0.7}, recipe="obspa", calibration=archive)
    assert {name: data for name, data in contents(tmp_path).items() if name in before} == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_device_or_a_pipe_is_not_replaced(tmp_path: Path, capsys: Any) -> None:
    pipe, model = tmp_path / "pipe.onnx", store(tmp_path / "in.onnx", external=False)
    os.mkfifo(pipe)
    options = ("--target", "macs=60%", "--criterion", "l2")
    for arguments in ((pipe, *options), (tmp_path / "o.onnx", *options, "--plan-out", pipe)):
        code, err = command(capsys, "prune", model, *arguments)
        assert code == 1
        assert "is a device or a pipe, no file" in err
        assert pipe.is_fifo()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in.onnx", "pipe.onnx"]
