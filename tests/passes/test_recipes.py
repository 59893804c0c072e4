"""Recipes and their options, from Python and from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphprune.passes.allocators import ALLOCATORS
from graphprune.passes.compensators import COMPENSATORS
from graphprune.passes.criteria import CRITERIA
from graphprune.passes.recipes import DEFAULT, RECIPES, choose
from networks import NETWORKS, build, feeds, initializer

import graphprune as gp
from graphprune.cli import main
from graphprune.errors import ModelError, TargetError, UsageError

Run = Callable[..., tuple[int, str, str]]
TABLES = {"criterion": CRITERIA, "allocator": ALLOCATORS, "compensator": COMPENSATORS, "recipe": RECIPES}


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command: its exit code, and what it printed."""

    def go(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            main([str(a) for a in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return int(exit_.value.code or 0), captured.out, captured.err

    return go


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A model, samples for it, and a place for the result."""
    model = NETWORKS["cnn"]()
    onnx.save(model, tmp_path / "in.onnx")
    np.savez(tmp_path / "calib.npz", **feeds(model, batch=40), labels=np.arange(40))
    return tmp_path / "in.onnx", tmp_path / "calib.npz", tmp_path / "out.onnx"


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", ["cnn", "attention"])
def test_every_recipe_works_or_says_why_not(name: str, recipe: str) -> None:
    model = NETWORKS[name]()
    asked = RECIPES[recipe].kinds
    kinds = {g.kind for g in gp.analyze(model).groups if g.prunable}
    options: dict[str, Any] = {
        "target": {"params": 0.8}, "calibration": feeds(model, batch=24), "verify_result": False
    }  # fmt: skip
    if asked is not None and not kinds & set(asked):
        with pytest.raises(TargetError, match=f"'{recipe}' removes {asked[0]} only, and the model has none"):
            gp.prune(model, recipe=recipe, **options)
        return
    result = gp.prune(model, recipe=recipe, **options)
    assert result.after.params <= 0.8 * result.before.params
    assert result.plan.options["criterion"] == RECIPES[recipe].criterion
    assert asked is None or {g.kind for g in result.plan.groups} <= set(asked)
    onnx.checker.check_model(result.model.to_proto(), full_check=True)


def test_parts_replace_those_of_a_recipe() -> None:
    base = RECIPES["obspa"]
    assert choose() is RECIPES[DEFAULT]
    assert choose("obspa") is base
    assert choose("obspa", compensator="none").compensator == "none"
    assert choose("obspa", compensator="none").allocator == base.allocator
    plain = choose(criterion="l2")
    assert (plain.criterion, plain.allocator, plain.compensator) == ("l2", "auto", "none")
    with pytest.raises(UsageError, match="unknown recipe 'spa'"):
        choose("spa")


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_name_what_exists(recipe: str) -> None:
    for part in ("criterion", "allocator", "compensator"):
        assert getattr(RECIPES[recipe], part) in TABLES[part]
    assert RECIPES[recipe].source


@pytest.mark.parametrize("option", TABLES)
def test_unknown_names_are_wrong_usage(option: str, files: tuple[Path, ...], command: Run) -> None:
    model, _, out = files
    code, printed, message = command("prune", model, out, "--target", "macs=50%", f"--{option}", "nonsense")
    assert (code, printed) == (2, "")
    assert f"unknown {option} 'nonsense'" in message
    assert all(name in message for name in TABLES[option])
    assert not out.exists()


BAD: dict[str, Any] = {
    "another name": {"image": np.zeros((4, 3, 8, 8), np.float32)},
    "another size": {"x": np.zeros((4, 3, 8, 9), np.float32)},
    "another rank": {"x": np.zeros((4, 3), np.float32)},
    "no numbers": {"x": np.full((4, 3, 8, 8), np.nan, np.float32)},
    "no samples": {"x": np.zeros((0, 3, 8, 8), np.float32)},
    "text": {"x": np.full((4, 3, 8, 8), "a")},
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_samples_are_bad_input(name: str, files: tuple[Path, ...], command: Run) -> None:
    model, archive, out = files
    np.savez(archive, **BAD[name])
    arguments = ["--target", "macs=50%", "--calibration", archive, "--plan-out", out.with_suffix(".json")]
    code, printed, message = command("prune", model, out, *arguments)
    assert (code, printed) == (1, "")
    assert message.startswith("graphprune: ")
    assert not out.exists()
    assert not out.with_suffix(".json").exists()


def test_absent_samples_are_bad_input(files: tuple[Path, ...], command: Run) -> None:
    model, archive, out = files
    archive.unlink()
    code, _, message = command("prune", model, out, "--target", "macs=50%", "--calibration", archive)
    assert code == 1
    assert str(archive) in message
    assert not out.exists()


def test_samples_are_used_and_counted(files: tuple[Path, ...], command: Run) -> None:
    model, archive, out = files
    documents = {}
    for name, options in {
        "given": ["--calibration", archive],
        "few": ["--calibration", archive, "--samples", 8],
        "none": ["--calibration", "none", "--samples", 40],
        "unsaid": ["--samples", 40],
    }.items():
        code, printed, _ = command(
            "prune", model, out, "--target", "macs=50%", "--json", "--no-verify", *options
        )
        assert code == 0
        documents[name] = json.loads(printed)
    assert [documents[n]["samples_are_made_up"] for n in documents] == [False, False, True, True]
    assert documents["given"]["options"]["calibration"] == "samples"
    assert documents["none"]["options"]["calibration"] == "none"
    assert documents["none"]["output_errors"] == documents["unsaid"]["output_errors"]
    assert documents["given"]["output_errors"] != documents["few"]["output_errors"]
    code, _, message = command("prune", model, out, "--target", "macs=50%", "--samples", 0)
    assert code == 2
    assert "0 calibration samples" in message


def test_the_summary_says_what_was_measured(files: tuple[Path, ...], command: Run) -> None:
    model, archive, out = files
    code, printed, _ = command("prune", model, out, "--target", "macs=50%", "--calibration", archive)
    assert code == 0
    assert "outputs on calibration samples: relative squared error" in printed
    code, printed, _ = command("prune", model, out, "--target", "macs=50%", "--samples", 32)
    assert "outputs on made-up samples" in printed
    assert "evaluate the pruned model on your data" in printed
    np.savez(archive, **feeds(NETWORKS["cnn"](), batch=128))
    out.unlink()
    code, printed, _ = command("prune", model, out, "--target", "macs=50%", "--calibration", archive)
    assert "outputs on held-out calibration samples" in printed


def test_a_plan_is_applied_with_weights_solved_anew(files: tuple[Path, ...], command: Run) -> None:
    model, archive, out = files
    plan, solved = out.with_suffix(".json"), out.with_name("solved.onnx")
    options = ["--target", "macs=50%", "--calibration", archive, "--compensator", "none", "--plan-out", plan]
    assert command("prune", model, out, *options)[0] == 0
    again = out.with_name("again.onnx")
    assert command("apply", plan, model, again)[0] == 0
    assert again.read_bytes() == out.read_bytes()
    code, printed, _ = command(
        "apply", plan, model, solved, "--compensator", "obs", "--calibration", archive, "--json"
    )
    assert code == 0
    before, after = json.loads(printed)["output_errors"]
    assert after < before
    plain, better = onnx.load(out), onnx.load(solved)
    shapes = [[list(t.dims) for t in m.graph.initializer if t.name.endswith(".w")] for m in (plain, better)]
    assert shapes[0] == shapes[1]
    assert any(
        not np.array_equal(initializer(plain, t.name), initializer(better, t.name))
        for t in plain.graph.initializer
    )
    assert command("apply", plan, model, solved, "--compensator", "magic")[0] == 2


def unknown_operator(at: str) -> onnx.ModelProto:
    """An operator that no runtime knows, before or behind the layers."""
    bodies = {
        "front": "s = my.Scale (x) h = MatMul (s, u) r = Relu (h) y = MatMul (r, v)",
        "back": "h = MatMul (x, u) r = Relu (h) p = MatMul (r, v) y = my.Scale (p)",
    }
    return build(
        "(float[batch, 6] x) => (float[batch, 3] y)", bodies[at], {"u": (6, 16), "v": (16, 3)},
        domains={"my": 1},
    )  # fmt: skip


@pytest.mark.parametrize("at", ["front", "back"])
def test_a_model_that_cannot_run_is_judged_by_its_weights(at: str, tmp_path: Path, command: Run) -> None:
    model, out, declared = tmp_path / "in.onnx", tmp_path / "out.onnx", tmp_path / "ops.toml"
    onnx.save(unknown_operator(at), model)
    declared.write_text('["my.Scale"]\naxes = "... -> ..."\nzero = true\n')
    arguments = ["prune", model, out, "--target", "macs=50%", "--declare", declared]
    code, printed, message = command(*arguments)
    assert code == 0, message
    assert "weights only, since the model can't be run here" in printed
    assert out.exists()
    out.unlink()
    np.savez(tmp_path / "calib.npz", x=np.ones((8, 6), np.float32))
    code, _, message = command(*arguments, "--calibration", tmp_path / "calib.npz")
    assert code == 1  # samples were given, and can't be used
    assert "onnxruntime can't run" in message
    assert not out.exists()
    code, printed, _ = command(*arguments, "--criterion", "l1")
    assert code == 0
    with pytest.raises(ModelError):
        gp.prune(model, target={"macs": 0.5}, recipe="obspa", declarations=declared)


def test_a_recipe_says_which_kinds_it_leaves_alone() -> None:
    """The user has named no kinds, so there is nothing to change about them but the recipe."""
    model = build(
        "(float[batch, 6] x) => (float[batch, 4] y)",
        "h = MatMul (x, u) r = Relu (h) s = MatMul (r, v) t = Add (x, s) y = MatMul (t, w)",
        {"u": (6, 8), "v": (8, 6), "w": (6, 4)},
    )
    with pytest.raises(TargetError) as caught:
        gp.plan(model, target={"params": 0.001}, recipe="shortened")
    assert "the recipe 'shortened' removes blocks only" in str(caught.value)
    assert "another --recipe, or --kinds" in str(caught.value)
    assert "leave out" not in str(caught.value)
    assert "--floor" not in str(caught.value)  # blocks go whole
    with pytest.raises(TargetError) as caught:
        gp.plan(model, target={"params": 0.001}, recipe="shortened", kinds=["channels"])
    assert "recipe" not in str(caught.value)


def test_progress_is_told() -> None:
    model = NETWORKS["mlp"]()
    told: list[tuple[str, int, int]] = []
    gp.prune(
        model, target={"macs": 0.6}, calibration=feeds(model, batch=20), verify_result=False,
        progress=lambda *stage: told.append(stage),
    )  # fmt: skip
    stages = [stage for stage, _, _ in told]
    assert {"calibrating", "scoring", "measuring cuts", "re-solving the kept weights"} <= set(stages)
    assert all(0 <= done <= total for _, done, total in told)
    last = {stage: (done, total) for stage, done, total in told}
    assert all(done == total for done, total in last.values())


class Stop(Exception):
    """Somebody has had enough."""


@pytest.mark.parametrize("stage", ["calibrating", "re-solving the kept weights"])
def test_an_interrupted_run_leaves_nothing(stage: str, tmp_path: Path) -> None:
    model, out, plan = NETWORKS["mlp"](), tmp_path / "out.onnx", tmp_path / "plan.json"

    def stop(name: str, done: int, total: int) -> None:
        if name == stage:
            raise Stop

    with pytest.raises(Stop):
        gp.prune(
            model, out, plan_out=plan, target={"macs": 0.6}, calibration=feeds(model, batch=20), progress=stop
        )
    assert not list(tmp_path.iterdir())


def test_a_plan_that_is_applied_records_what_became_of_the_weights(files: tuple[Path, ...]) -> None:
    model, archive, _ = files
    first = gp.prune(model, target={"macs": 0.5}, calibration=archive)
    assert first.plan.options["compensator"] == "joint"
    plain = gp.prune(model, use_plan=first.plan)
    assert (plain.plan.options["compensator"], plain.output_errors) == ("none", None)
    again = gp.prune(model, use_plan=first.plan, compensator="obs", calibration=archive)
    assert again.plan.options["compensator"] == "obs"


def test_samples_measure_a_cut_whose_weights_stay(files: tuple[Path, ...], command: Run) -> None:
    model, archive, out = files
    options = ("--target", "macs=50%", "--criterion", "l2", "--calibration", archive)
    code, printed, _ = command("prune", model, out, *options)
    assert code == 0
    assert "weights as they were" in printed
