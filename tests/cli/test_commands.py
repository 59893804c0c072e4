"""Every command, for people: exit code 0, results on stdout, remarks on stderr."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import few_digits
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from networks import NETWORKS, graph_of

import graphprune as gp

COMMANDS = ("inspect", "explain", "prune", "apply", "check", "profile", "convert", "demo")
Save = Callable[[str], Path]


def test_help_lists_every_command(cli) -> None:  # type: ignore[no-untyped-def]
    done = cli("-h")
    assert done.code == 0
    assert done.err == ""
    assert all(command in done.out for command in COMMANDS)


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(cli, command: str, flag: str) -> None:  # type: ignore[no-untyped-def]
    done = cli(command, flag)
    assert done.code == 0
    assert done.err == ""
    assert f"graphprune {command}" in done.out
    assert "--json" in done.out


def test_version(cli) -> None:  # type: ignore[no-untyped-def]
    done = cli("--version")
    assert (done.code, done.out) == (0, f"graphprune {gp.__version__}\n")


def test_no_command_shows_help_and_is_wrong_usage(cli) -> None:  # type: ignore[no-untyped-def]
    done = cli()
    assert done.code == 2
    assert "Usage" in done.out


def test_module_runs_as_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "graphprune", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"graphprune {gp.__version__}\n"


def test_inspect(cli, save: Save) -> None:  # type: ignore[no-untyped-def]
    done = cli("inspect", save("other_domain"))
    assert done.code == 0
    assert done.err == ""
    assert "groups: 2 can shrink" in done.out
    assert "com.microsoft::Trilu" in done.out
    assert "no coupling rule for com.microsoft::Trilu" in done.out
    assert "model input 'x'" in done.out


def test_inspect_of_a_model_without_anything_unknown(cli, save: Save) -> None:  # type: ignore[no-untyped-def]
    assert "without a coupling rule" not in cli("inspect", save("mlp"), "--all").out


@pytest.mark.parametrize("ending", ["dot", "graphml", "json"])
def test_inspect_writes_the_graph(cli, save: Save, tmp_path: Path, ending: str) -> None:  # type: ignore[no-untyped-def]
    done = cli("inspect", save("mlp"), "--graph", tmp_path / f"g.{ending}", "--json")
    assert done.code == 0
    assert done.err == f"dependency graph: {tmp_path / f'g.{ending}'}\n"
    assert done.json()["groups"]
    assert (tmp_path / f"g.{ending}").stat().st_size > 100


def test_explain_what_goes_together(cli, save: Save) -> None:  # type: ignore[no-untyped-def]
    done = cli("explain", save("mlp"), "a.w:1")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "'a.w', axis 1: 10 positions",
        "can shrink by: a.w:1",
        "goes together with:",
        "  a.b, axis 0",
        "  b.w, axis 0",
    ]


def test_explain_what_blocks_and_the_way_there(cli, save: Save) -> None:  # type: ignore[no-untyped-def]
    out = cli("explain", save("cnn"), "fc.w").out
    assert "blocked: model output 'y'" in out
    assert "can shrink" not in out
    assert "but not by" not in out
    assert "fc.w[0] -> Gemm 'Gemm_y' -> y[1]" in out


def test_explain_of_a_product_with_a_blocked_factor(cli, save: Save) -> None:  # type: ignore[no-untyped-def]
    done = cli("explain", save("attention_fused_gather"), "qkv.w:1")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "'qkv.w', axis 1: 36 positions",
        "can shrink by: qkv.w:1/heads, qkv.w:1/head_dim",
        "but not by qkv.w:1: model output 'y' is made of it",
        "goes together with:",
        "  o.w, axis 0",
        "  qkv.b, axis 0",
    ]


@pytest.mark.parametrize("name", ["attention_fused_gather", "grouped", "cnn"])
def test_explain_takes_every_group_that_inspect_lists(cli, save: Save, name: str) -> None:  # type: ignore[no-untyped-def]
    model = save(name)
    for group in cli("inspect", model, "--json").json()["groups"]:
        found = cli("explain", model, group["id"], "--json").json()
        first = group["members"][0]
        if group["kind"] == "blocks":
            assert found["value"] == group["id"]
            continue
        assert (found["value"], found["axis"]) == (first["name"], first["axis"])
        listed = found["groups"] + found["goes_with"] if group["prunable"] else found["blocked"]
        assert group["id"] in listed
        assert found["blocked"].get(group["id"]) == group["reason"]


def test_explain_takes_names_with_colons(cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """tf2onnx writes names such as ``dense/kernel:0``."""
    model = NETWORKS["mlp"]()
    for node in model.graph.node:
        node.input[:] = ["b.w:0" if n == "b.w" else n for n in node.input]
    for tensor in model.graph.initializer:
        if tensor.name == "b.w":
            tensor.name = "b.w:0"
    onnx.save(model, tmp_path / "m.onnx")
    for given, axis in (("b.w:0", 0), ("b.w:0:0", 0), ("b.w:0:1", 1), ("b.w:0:-1", 1)):
        found = cli("explain", tmp_path / "m.onnx", given, "--json").json()
        assert (found["value"], found["axis"]) == ("b.w:0", axis)


def test_prune_writes_model_and_plan(cli, save: Save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = cli(
        "prune",
        save("cnn"),
        tmp_path / "out.onnx",
        "--target",
        "macs=50%",
        "--criterion",
        "l2",
        "--plan-out",
        tmp_path / "p.json",
    )
    assert done.code == 0
    assert "before and after" in done.out
    lines = done.out.splitlines()[-4:]
    assert re.fullmatch(
        r"verified: the cut is right\. On random inputs of 2 sizes the outputs equal those of the original "
        r"with the same slices masked \(within [0-9.e-]+, values up to [0-9.]+\)",
        lines[0],
    )
    assert lines[1] == "this says nothing about accuracy: evaluate the pruned model on your data"
    assert lines[2].startswith("widths that are no multiple of 8 can run slower than before: --align auto")
    assert f"written: {tmp_path / 'out.onnx'}" in done.out.replace("\n", "")
    sha256 = hashlib.sha256((tmp_path / "cnn.onnx").read_bytes()).hexdigest()
    expected = f"graphprune {gp.__version__}, onnxruntime {ort.__version__}, model sha256 {sha256}\n"
    assert done.err == expected
    onnx.checker.check_model(onnx.load(tmp_path / "out.onnx"), full_check=True)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["cnn.onnx", "out.onnx", "p.json"]


def test_prune_without_verification_says_so(cli, save: Save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = cli(
        "prune", save("mlp"), tmp_path / "o.onnx", "--target", "macs=60%", "--criterion", "l2", "--no-verify"
    )
    assert done.code == 0
    assert "not verified (--no-verify)" in done.out
    assert "verified: the cut is right" not in done.out
    assert "this says nothing about accuracy" in done.out


def test_prune_with_alignment_does_not_suggest_it(cli, save: Save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = cli(
        "prune", save("mlp"), tmp_path / "o.onnx", "--target", "macs=60%", "--criterion", "l2", "--align", "2"
    )
    assert done.code == 0
    assert "--align" not in done.out


def test_prune_says_what_is_not_exact(cli, save: Save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = cli(
        "prune", save("tied_embedding"), tmp_path / "o.onnx", "--target", "macs=60%", "--criterion", "l2"
    )
    assert "not the same as zeroing: these run over kept positions only, or not at all: LayerNorm" in done.out


def test_prune_passes_every_option_on(cli, save: Save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = cli(
        "prune", save("attention"), tmp_path / "o.onnx", "--target", "macs=80%", "--target", "params=90%",
        "--criterion", "random", "--allocator", "global", "--kinds", "heads,head_dim", "--include", "q.w",
        "--exclude", "o.w", "--align", "2", "--floor", "0.25", "--seed", "7", "--dim", "batch=2",
        "--dim", "time=9", "--exact-only", "--plan-out", tmp_path / "p.json", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    plan = json.loads((tmp_path / "p.json").read_text())
    assert plan["options"] == {
        "criterion": "random", "allocator": "global", "align": 2, "floor": 0.25, "seed": 7,
        "exact_only": True, "kinds": ["head_dim", "heads"], "include": ["q.w"], "exclude": ["o.w"],
        "compensator": "none", "calibration": "none",
    }  # fmt: skip
    assert plan["target"] == {"macs": 0.8, "params": 0.9}
    assert [g["id"] for g in plan["groups"]] == ["q.w:1/head_dim"]
    expected = gp.prune(
        NETWORKS["attention"](), use_plan=gp.Plan.from_json(plan), dims={"batch": 2, "time": 9}
    )
    assert done.json()["before"]["macs"] == expected.before.macs


def test_apply_repeats_a_plan(cli, save: Save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    model = save("cnn")
    cli(
        "prune",
        model,
        tmp_path / "a.onnx",
        "--target",
        "macs=50%",
        "--criterion",
        "l2",
        "--plan-out",
        tmp_path / "p.json",
    )
    done = cli("apply", tmp_path / "p.json", model, tmp_path / "b.onnx")
    assert done.code == 0
    assert "note:" not in done.err
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_apply_says_that_the_plan_was_made_for_another_file(cli, save: Save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    model = save("cnn")
    cli(
        "prune",
        model,
        tmp_path / "a.onnx",
        "--target",
        "macs=50%",
        "--criterion",
        "l2",
        "--plan-out",
        tmp_path / "p.json",
    )
    other = onnx.load(model)
    other.producer_name = "somebody else"
    onnx.save(other, model)
    done = cli("apply", tmp_path / "p.json", model, tmp_path / "b.onnx")
    assert done.code == 0
    assert "note: the plan was made for another file" in done.err


def test_check(cli, save: Save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    model = save("mlp")
    same = cli("check", model, model)
    assert (same.code, same.out.splitlines()[-1]) == (0, "the same function")
    cli("prune", model, tmp_path / "o.onnx", "--target", "macs=60%", "--criterion", "l2")
    done = cli("check", model, tmp_path / "o.onnx")
    assert done.code == 3
    assert "largest difference" in done.out
    assert done.out.splitlines()[-1] == "not the same function"
    assert "nothing, if they are meant to differ; a tolerance of " in done.err
    hint = done.err.split("a tolerance of ")[1].split(" would pass")[0]
    assert cli("check", model, tmp_path / "o.onnx", "--tolerance", hint).code == 0
    np.savez(tmp_path / "d.npz", x=np.zeros((1, 6), np.float32))
    assert cli("check", model, model, "--data", tmp_path / "d.npz").code == 0


def test_profile(cli, save: Save) -> None:  # type: ignore[no-untyped-def]
    done = cli("profile", save("mlp"), save("cnn"), "--repeat", 3, "--warmup", 1, "--no-ops", "--batch", 2)
    assert (done.code, done.err) == (0, "")
    assert all(text in done.out for text in ("p50 ms", "p99 ms", "samples/s", "mlp.onnx", "cnn.onnx"))


def test_profile_measures_a_batch_once_and_refuses_a_negative_number_of_layers(cli, save: Save) -> None:  # type: ignore[no-untyped-def]
    done = cli("profile", save("mlp"), "--repeat", 2, "--warmup", 1, "--no-ops", "--batch", "2,2", "--json")
    assert [run["batch"] for run in json.loads(done.out)["runs"]] == [2]
    assert cli("profile", save("mlp"), "--layers", -1).code == 2


def test_an_address_that_nothing_is_measured_on(cli, save: Save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """The host is never asked, so the command says that."""
    options = ("--target", "macs=70%", "--criterion", "l2", "--floor", 0, "--on", "ssh://nobody.invalid")
    done = cli("prune", save("cnn"), tmp_path / "o.onnx", *options)
    assert done.code == 0
    assert "--on ssh://nobody.invalid is not used" in done.err


def test_convert_takes_an_onnx_file(cli, save: Save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = cli("convert", save("mlp"), tmp_path / "o.onnx")
    assert done.code == 0
    assert "largest difference from the source 0" in done.out
    assert onnx.load(tmp_path / "o.onnx").graph.output[0].name == "y"


def test_two_runs_print_and_write_the_same(cli, save: Save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    model, outputs = save("attention"), []
    for _ in range(2):
        done = cli(
            "prune",
            model,
            tmp_path / "o.onnx",
            "--target",
            "macs=70%",
            "--criterion",
            "l2",
            "--plan-out",
            tmp_path / "p",
        )
        written = (tmp_path / "o.onnx").read_bytes(), (tmp_path / "p").read_bytes()
        outputs.append((done.out, written, cli("inspect", model, "--json").out))
    assert outputs[0] == outputs[1]


def test_tables_are_not_cut_off_when_piped(cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    model = NETWORKS["mlp"]()
    long = "encoder/" * 30 + "weight"
    for node in model.graph.node:
        node.input[:] = [long if n == "b.w" else n for n in node.input]
    next(t for t in model.graph.initializer if t.name == "b.w").name = long
    onnx.save(model, tmp_path / "m.onnx")
    out = cli("inspect", tmp_path / "m.onnx").out
    assert "…" not in out
    assert cli("explain", tmp_path / "m.onnx", f"{long}:1").code == 0


def test_names_are_no_markup(cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Names in square brackets must not be taken for colours."""
    model = NETWORKS["mlp"]()
    odd = "[bold]w[/bold][red]"
    for node in model.graph.node:
        node.input[:] = [odd if n == "a.w" else n for n in node.input]
    next(t for t in model.graph.initializer if t.name == "a.w").name = odd
    onnx.save(model, tmp_path / "m.onnx")
    assert odd in cli("inspect", tmp_path / "m.onnx").out
    assert odd in cli("explain", tmp_path / "m.onnx", f"{odd}:1").out


def test_reader_that_goes_away_is_no_error(save: Save) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "graphprune", "inspect", str(save("cnn")), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 0


def test_groups_of_the_table_are_those_of_the_library(cli, save: Save) -> None:  # type: ignore[no-untyped-def]
    found = cli("inspect", save("dense"), "--json").json()["groups"]
    assert [g["id"] for g in found] == [g.id for g in graph_of("dense").groups]


def test_check_of_a_file_in_float16_against_its_original(cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    plain = few_digits.mlp()
    files = [tmp_path / "plain.onnx", tmp_path / "half.onnx"]
    for path, model in zip(files, (plain, few_digits.WAYS["float16"](plain)), strict=True):
        onnx.save(model, path)
    assert cli("check", *files).code == 0
    assert cli("check", *files, "--json").json()["tolerance"] == 2e-2
    assert cli("check", *files, "--tolerance", "1e-5").code == 3
