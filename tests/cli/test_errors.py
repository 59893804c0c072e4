"""Exit codes and the four lines of every error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from networks import NETWORKS, initializer, replace

from graphprune import pruning
from graphprune.errors import (
    GraphPruneError,
    InternalError,
    ModelError,
    PlanError,
    TargetError,
    UsageError,
    ValidationError,
)
from graphprune.model import load

Save = Callable[[str], Path]


def test_exit_codes_are_those_of_the_interface_page() -> None:
    codes = {c: c.exit_code for c in (ModelError, PlanError, UsageError, ValidationError, TargetError)}
    assert list(codes.values()) == [1, 1, 2, 3, 4]
    assert InternalError.exit_code == GraphPruneError.exit_code == 70


def test_the_four_lines_in_their_order() -> None:
    error = ModelError("what", hint="try this", because="why", where="here")
    assert str(error) == "what\n  where:   here\n  because: why\n  try:     try this"
    assert str(ModelError("what", hint="try this")) == "what\n  try:     try this"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["prune"], "Missing argument 'MODEL'"),
        (["prune", "m.onnx"], "Missing argument 'OUT'"),
        (["prune", "m.onnx", "o.onnx"], "Missing option '--target'"),
        (["prune", "m.onnx", "o.onnx", "--target"], "--target"),
        (
            ["prune", "m.onnx", "o.onnx", "--target", "macs=50%", "--criterion", "l2", "--align", "x"],
            "--align",
        ),
        (
            ["prune", "m.onnx", "o.onnx", "--target", "macs=50%", "--criterion", "l2", "--floor", "x"],
            "--floor",
        ),
        (["inspect", "m.onnx", "--no-such-option"], "No such option"),
        (["inspect", "m.onnx", "extra"], "extra"),
        (["check", "m.onnx"], "Missing argument 'MODEL'"),
        (["profile"], "Missing argument"),
        (["inspect", "{model}", "--dim", "batch"], "cannot read the dimension 'batch'"),
        (["inspect", "{model}", "--dim", "batch=x"], "cannot read the dimension 'batch=x'"),
        (["inspect", "{model}", "--dim", "batch=²"], "cannot read the dimension 'batch=²'"),
        (["inspect", "{model}", "--dim", "batch=-1"], "cannot read the dimension 'batch=-1'"),
        (["inspect", "{model}", "--dim", "batch=0"], "dim 'batch' cannot be 0"),
        (["inspect", "{model}", "--dim", "rows=2"], "'rows' is not a symbolic dim"),
        (["inspect", "{model}", "--graph", "graph.png"], "cannot write a graph to 'graph.png'"),
        (["explain", "{model}", "none"], "the model has no tensor 'none'"),
        (["explain", "{model}", "a.v:1"], "try:     one of a.w, a.b"),
        (["explain", "{model}", "a.w:7"], "'a.w' has no axis 7"),
        (["explain", "{model}", "a.w:--1"], "no tensor 'a.w:--1'"),
        (["explain", "{model}", "a.w:²"], "no tensor 'a.w:²'"),
        (["explain", "{model}", ":"], "no tensor ':'"),
        (["profile", "{model}", "--batch", "0"], "batch must be at least 1"),
        (["profile", "{model}", "--provider", "abacus"], "abacus"),
    ],
)
def test_wrong_usage(cli, save: Save, arguments: list[str], text: str) -> None:  # type: ignore[no-untyped-def]
    model = str(save("mlp"))
    done = cli(*(a.replace("{model}", model) for a in arguments))
    assert text in done.error(2)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--target", "macs"], "cannot read the target 'macs'"),
        (["--target", "macs="], "cannot read the amount ''"),
        (["--target", "macs=1.2.3"], "cannot read the amount '1.2.3'"),
        (["--target", "macs=lots"], "cannot read the amount 'lots'"),
        (["--target", "macs=x%"], "cannot read the target 'macs=x%'"),
        (["--target", "macs=0%"], "the target macs=0% is out of range"),
        (["--target", "macs=140%"], "the target macs=140% is out of range"),
        (["--target", "macs=100%"], "the target macs=100% is out of range"),
        (["--target", "macs=nan%"], "out of range"),
        (["--target", "bytes=1"], "try:     bytes=1%, if a percentage was meant"),
        (["--target", "macs=8M"], "the target macs=8M is no cut\n  because: the model has 164 already"),
        (["--target", "joy=50%"], "unknown target 'joy'"),
        (["--target", "macs=50%", "--target", "macs=60%"], "two targets for 'macs'"),
        (["--target", "macs=50%", "--criterion", "taste"], "unknown criterion 'taste'"),
        (["--target", "macs=50%", "--allocator", "fair"], "unknown allocator 'fair'"),
        (["--target", "macs=50%", "--kinds", "ears"], "unknown kind 'ears'"),
        (["--target", "macs=50%", "--kinds", ""], "unknown kind ''"),
        (["--target", "macs=50%", "--include", "none*"], "'none*' matches no group"),
        (["--target", "macs=50%", "--exclude", "none*"], "'none*' matches no group"),
        (["--target", "macs=50%", "--align", "0"], "multiples of 0"),
        (["--target", "macs=50%", "--floor", "2"], "a floor of 2.0"),
        (["--target", "macs=50%", "--dim", "batch=0"], "dim 'batch' cannot be 0"),
    ],
)
def test_wrong_options_of_prune(cli, save: Save, tmp_path: Path, options: list[str], text: str) -> None:  # type: ignore[no-untyped-def]
    done = cli("prune", save("mlp"), tmp_path / "o.onnx", *options)
    assert text in done.error(2)
    assert [f.name for f in tmp_path.iterdir()] == ["mlp.onnx"]


def test_unreachable_target(cli, save: Save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = cli("prune", save("other_domain"), tmp_path / "o.onnx", "--target", "macs=1%", "--criterion", "l2")
    error = done.error(4)
    assert "cannot reach macs=1.0%" in error
    assert "the largest cut that 2 groups allow keeps macs" in error
    assert "no coupling rule for com.microsoft::Trilu" in error
    assert [f.name for f in tmp_path.iterdir()] == ["other_domain.onnx"]


def test_failed_verification_writes_nothing(cli, save: Save, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    right = pruning.cut

    def wrong(*arguments):  # type: ignore[no-untyped-def]
        proto = right(*arguments).to_proto()
        replace(proto, "b.w", initializer(proto, "b.w")[::-1].copy())
        return load(proto)

    monkeypatch.setattr(pruning, "cut", wrong)
    done = cli(
        "prune",
        save("mlp"),
        tmp_path / "o.onnx",
        "--target",
        "macs=60%",
        "--criterion",
        "l2",
        "--plan-out",
        tmp_path / "p.json",
    )
    error = done.error(3)
    assert "differs from the masked original" in error
    assert "nothing was written" in error
    assert [f.name for f in tmp_path.iterdir()] == ["mlp.onnx"]


def test_our_own_fault(cli, save: Save, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    def broken(*arguments, **options):  # type: ignore[no-untyped-def]
        message = "a bug\nin two lines"
        raise RuntimeError(message)

    monkeypatch.setattr(pruning, "verify_somehow", broken)
    command = ("prune", save("mlp"), tmp_path / "o.onnx", "--target", "macs=60%")
    error = cli(*command).error(70)
    assert "RuntimeError: a bug" in error
    assert "please report it" in error
    traced = cli("--traceback", *command)
    assert traced.code == 70
    assert traced.err.startswith("Traceback")
    assert [f.name for f in tmp_path.iterdir()] == ["mlp.onnx"]


def test_interruption_is_no_error_of_the_input(cli, save: Save, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    def interrupted(*arguments, **options):  # type: ignore[no-untyped-def]
        raise KeyboardInterrupt

    monkeypatch.setattr(pruning, "verify_somehow", interrupted)
    done = cli("prune", save("mlp"), tmp_path / "o.onnx", "--target", "macs=60%", "--criterion", "l2")
    assert done.code == 130
    assert "Traceback" not in done.err
    assert [f.name for f in tmp_path.iterdir()] == ["mlp.onnx"]


def test_too_little_memory_is_no_bug(cli, save: Save, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    def starved(*arguments, **options):  # type: ignore[no-untyped-def]
        message = "Unable to allocate 90.0 GiB"
        raise MemoryError(message)

    monkeypatch.setattr(pruning, "verify_somehow", starved)
    done = cli("prune", save("mlp"), tmp_path / "o.onnx", "--target", "macs=60%", "--criterion", "l2")
    assert done.error(1).splitlines() == [
        "graphprune: not enough memory",
        "  because: Unable to allocate 90.0 GiB",
        "  try:     smaller sizes: --dim NAME=SIZE",
    ]
    assert [f.name for f in tmp_path.iterdir()] == ["mlp.onnx"]


def test_forgotten_percent_sign(cli, save: Save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = cli("prune", save("cnn"), tmp_path / "o.onnx", "--target", "macs=50", "--criterion", "l2")
    assert done.error(2).splitlines() == [
        "graphprune: the target macs=50 keeps 50 of 69160",
        "  try:     macs=50%, if a percentage was meant",
    ]
    assert [f.name for f in tmp_path.iterdir()] == ["cnn.onnx"]


def test_check_of_models_with_other_outputs(cli, save: Save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    other = NETWORKS["mlp"]()
    other.graph.node[-1].output[0] = other.graph.output[0].name = "renamed"
    onnx.save(other, tmp_path / "other.onnx")
    assert "output 'y' is missing" in cli("check", save("mlp"), tmp_path / "other.onnx").error(3)
