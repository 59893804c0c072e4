"""`--report` on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import graphprune as gp

Save = Callable[[str], Path]
OPTIONS = ("--target", "macs=70%", "--criterion", "l2", "--floor", "0")


def test_prune_and_apply_write_it(cli, save: Save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    model, plan = save("cnn"), tmp_path / "p.json"
    page = tmp_path / "r.html"
    assert cli("prune", model, tmp_path / "o.onnx", *OPTIONS, "--plan-out", plan, "--report", page).code == 0
    text = page.read_text(encoding="utf-8")
    assert f"graphprune prune {model} {tmp_path / 'o.onnx'} --target macs=70%" in text
    assert cli("apply", plan, model, tmp_path / "b.onnx", "--report", tmp_path / "b.html").code == 0
    again = (tmp_path / "b.html").read_text(encoding="utf-8")
    assert "graphprune apply" in again
    for output, page_of in (("o.onnx", text), ("b.onnx", again)):  # the hash that the file itself has
        origin = gp.info(tmp_path / output).pruned
        assert origin is not None
        assert origin.plan_sha256 in page_of


def test_wrong_places(cli, save: Save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    model, out = save("mlp"), tmp_path / "o.onnx"
    before = sorted(tmp_path.iterdir())
    assert "--report-latency without a report" in cli(
        "prune", model, out, *OPTIONS, "--report-latency"
    ).error(2)
    assert "two of the files are the same" in cli("prune", model, out, *OPTIONS, "--report", out).error(2)
    assert "two of the files are the same" in cli("prune", model, out, *OPTIONS, "--report", model).error(2)
    assert "cannot write" in cli("prune", model, out, *OPTIONS, "--report", tmp_path / "no" / "r.html").error(
        1
    )
    assert sorted(tmp_path.iterdir()) == before


def test_no_report_of_what_could_not_be_done(cli, save: Save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = cli(
        "prune", save("other_domain"), tmp_path / "o.onnx", "--target", "macs=1%", "--criterion", "l2",
        "--report", tmp_path / "r.html",
    )  # fmt: skip
    assert done.code == 4
    assert [path.name for path in tmp_path.iterdir()] == ["other_domain.onnx"]


def test_a_sweep_prints_a_table_and_writes_a_page(cli, save: Save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    family = tmp_path / "family"
    options = ("--out-dir", family, "--criterion", "l2", "--floor", "0", "--no-measure")
    done = cli("sweep", save("cnn"), "--targets", "90%,70%", *options)
    assert done.code == 0
    assert "2 models by macs" in done.out
    assert "graphprune sweep" in (family / "report.html").read_text(encoding="utf-8")
    partly = cli("sweep", save("cnn"), "--targets", "90%,0.1%", *options, "--no-report", "--json")
    assert partly.code == 4
    assert "not reached: 0.1%" in partly.err
    assert [point["name"] for point in partly.json()["points"]] == ["original", "90%"]
    assert "no targets given" in cli("sweep", save("cnn"), "--targets", ",", *options).error(2)
