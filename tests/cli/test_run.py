"""Job files: the same words, the same checks, the same result as the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import NETWORKS, feeds

Save = Callable[[str], Path]

JOB = """
[model]
path = "mlp.onnx"
out = "out.onnx"

[target]
macs = "70%"

[options]
criterion = "l2"
"""


def job(folder: Path, text: str, name: str = "graphprune.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_job_is_the_command(cli, save: Save, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    save("mlp")
    path = job(
        tmp_path,
        JOB + 'plan-out = "plan.json"\nreport = "r.html"\nfloor = 0.0\nkinds = ["channels"]\nseed = 3\n'
        'exact-only = true\nverify = false\ninclude = ["*"]\n',
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    found = cli("run", path, "--json")
    assert found.code == 0, found.err
    command = cli(
        "prune", tmp_path / "mlp.onnx", tmp_path / "again.onnx", "--target", "macs=70%", "--criterion", "l2",
        "--floor", "0", "--kinds", "channels", "--seed", "3", "--exact-only", "--no-verify",
        "--include", "*", "--json",
    )  # fmt: skip
    assert found.json()["verify"] is None
    assert {k: v for k, v in found.json().items() if k not in ("seconds", "output")} == {
        k: v for k, v in command.json().items() if k not in ("seconds", "output")
    }
    assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "again.onnx").read_bytes()
    assert list(elsewhere.iterdir()) == []
    # The report names the command that the job stands for.
    assert "graphprune prune " in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_without_a_name_it_is_the_file_here(cli, save: Save, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    save("mlp")
    job(tmp_path, JOB)
    monkeypatch.chdir(tmp_path)
    done = cli("run")
    assert done.code == 0
    assert "before and after" in done.out


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (("[options]", "[optoins]"), "unknown key 'optoins'\n"),
        (("criterion", "critreion"), "unknown key 'critreion' in [options]"),
        (("criterion", "target"), "unknown key 'target' in [options]"),
        (("macs", "mac"), "unknown key 'mac' in [target]"),
        (("out =", "output ="), "[model] lacks 'out'"),
        (('path = "mlp.onnx"', ""), "[model] lacks 'path'"),
        (('"mlp.onnx"', "3"), "'path' of [model] is no path"),
        (("[target]\nmacs", "[targets]\nmacs"), "unknown key 'targets'"),
        (('[target]\nmacs = "70%"', ""), "the job does not say what to do"),
        (("[options]", '[sweep]\ntargets = ["50%"]\n[options]'), "a job does one thing"),
        (('"l2"', "true"), "'criterion' can't be True"),
        (('"l2"', '["l2", "lamp"]'), "'criterion' has 2 values"),
        (('"l2"', '"l2"\nexact-only = 1'), "'exact-only' is true or false, not 1"),
        (('"l2"', '"l2"\nsamples = 4\n[calibration]\nsamples = 3'), "'samples' is said twice"),
        (('"l2"', '"l2"\nseed = "x"'), "Invalid value for '--seed'"),
        (('"l2"', '"taste"'), "unknown criterion 'taste'"),
        (('"70%"', '"70'), "cannot read the job file"),
        (("[model]", "model = 3\n[other]"), "unknown key 'other'"),
        (('[model]\npath = "mlp.onnx"\nout = "out.onnx"', "model = 3"), "'model' is no section"),
    ],
)
def test_wrong_jobs(cli, save: Save, tmp_path: Path, change: tuple[str, str], text: str) -> None:  # type: ignore[no-untyped-def]
    save("mlp")
    assert change[0] in JOB
    assert text in cli("run", job(tmp_path, JOB.replace(*change, 1))).error(2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["graphprune.toml", "mlp.onnx"]


def test_unknown_keys_name_the_nearest(cli, save: Save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    save("mlp")
    assert "try:     'plan-out'" in cli("run", job(tmp_path, JOB + 'plan_out = "p"\n')).error(2)
    assert "try:     'options'" in cli("run", job(tmp_path, JOB.replace("[options]", "[optoins]"))).error(2)
    assert "cannot read the job file" in cli("run", tmp_path / "none.toml").error(2)


def test_exit_codes_are_those_of_the_command(cli, save: Save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    save("other_domain")
    text = JOB.replace("mlp", "other_domain").replace("70%", "1%")
    assert "cannot reach macs=1.0%" in cli("run", job(tmp_path, text)).error(4)
    assert "does not exist" in cli("run", job(tmp_path, JOB)).error(1)


def test_several_jobs_share_what_stands_above_them(cli, save: Save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    save("mlp")
    text = """
[model]
path = "mlp.onnx"

[options]
criterion = "l2"
seed = 1

[jobs.half]
model = { out = "half.onnx" }
target = { macs = 0.6 }
options = { plan-out = "half.json" }

[jobs.again]
model = { out = "again.onnx" }
apply = { plan = "half.json" }
options = { seed = 2 }
"""
    wrong = cli("run", job(tmp_path, text))
    assert "unknown key 'criterion' in [options]" in wrong.error(2)
    text = text.replace('[options]\ncriterion = "l2"\nseed = 1\n', "").replace(
        "{ plan-out", '{ criterion = "l2", plan-out'
    )
    found = cli("run", job(tmp_path, text), "--json")
    assert set(found.json()["jobs"]) == {"half", "again"}
    assert (tmp_path / "half.onnx").read_bytes() == (tmp_path / "again.onnx").read_bytes()
    (tmp_path / "half.onnx").unlink()
    one = cli("run", tmp_path / "graphprune.toml", "--job", "half", "--json")
    assert one.json()["output"].endswith("half.onnx")
    assert "there is no job 'hlaf'" in cli("run", tmp_path / "graphprune.toml", "--job", "hlaf").error(2)


def test_a_sweep_with_samples(cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    model = NETWORKS["cnn"]()
    onnx.save(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "s.npz", **feeds(model, batch=32))
    text = """
[model]
path = "m.onnx"

[calibration]
data = "s.npz"
samples = 24

[sweep]
targets = ["80%", "60%"]
out-dir = "family"
measure = false
report = false

[options]
criterion = "l2"
"""
    found = cli("run", job(tmp_path, text), "--json")
    assert [point["name"] for point in found.json()["points"]] == ["original", "80%", "60%"]
    names = {path.name for path in (tmp_path / "family").iterdir()}
    assert names == {
        "m-macs-80.onnx",
        "m-macs-80.plan.json",
        "m-macs-60.onnx",
        "m-macs-60.plan.json",
        "sweep.json",
    }
    text = text.replace('"80%", "60%"', '"80%", "0.1%"')
    partly = cli("run", job(tmp_path, text), "--json")
    assert partly.code == 4
    assert list(partly.json()["unreached"]) == ["0.1%"]
