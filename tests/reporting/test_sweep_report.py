"""The page of a sweep: all models, their Pareto plots, and one story for all of them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from browser import Browser
from networks import NETWORKS, feeds, run
from test_report import Tree

import graphprune as gp
from graphprune.family import Point, SweepResult
from graphprune.quality import Quality
from graphprune.reporting.pareto import pareto
from graphprune.reporting.request import ReportRequest
from graphprune.reporting.sweep_report import write_sweep_report


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> SweepResult:
    model = NETWORKS["cnn"]()
    data = feeds(model, batch=32)
    data["labels"] = run(model, data)[0].argmax(axis=1)
    return gp.sweep(
        model, tmp_path_factory.mktemp("family"), targets=["90%", "70%", "0.1%"], criterion="l2", floor=0.0,
        data=data, threads=1,
    )  # fmt: skip


def test_all_models_are_there(family: SweepResult, tmp_path: Path) -> None:
    request = ReportRequest(tmp_path / "r.html", "graphprune sweep <x>")
    write_sweep_report(family, request)
    tree = Tree(request.path.read_text(encoding="utf-8"))
    keys = [a["id"] for _, a in tree.elements if "id" in a]
    assert len(keys) == len(set(keys))
    text = " ".join(tree.text)
    for point in family.points:
        assert point.name in text
        assert Path(point.output).name in text
    assert "Not reached: 0.1%" in text
    why = family.unreached["0.1%"].splitlines()
    assert len(why) > 1
    assert any(piece.splitlines() == why for piece in tree.text)  # lines as they were, not run together
    assert all(result.plan.sha256 in text for result in family.results)
    assert "graphprune sweep <x>" in text


def test_names_of_equal_models_stand_apart() -> None:
    quality = Quality(8, None, None, 0.1)
    kept = {"macs": 1.0, "params": 1.0, "bytes": 1.0}
    points = [
        Point(f"p{i}", f"a/{i}.onnx", 100 + i, 9, 9, kept, None, None, quality, str(i)) for i in range(3)
    ]
    tree = Tree(str(pareto(points, "the data")))
    names = [(a["x"], a["y"]) for kind, a in tree.elements if kind == "text" and a.get("class") == "name"]
    for plot in (names[:3], names[3:]):  # by MACs, by file
        heights = sorted(float(y) for _, y in plot)
        assert len(heights) == 3
        assert all(b - a > 12 for a, b in pairwise(heights))


def test_plots_in_a_browser(browser: Browser, family: SweepResult, tmp_path: Path) -> None:
    write_sweep_report(family, ReportRequest(tmp_path / "r.html"))
    browser.open(tmp_path / "r.html")
    marks = "document.querySelectorAll('.plots svg .sign')"
    assert browser.evaluate(f"{marks}.length") == 3 * len(family.points)
    # Every mark and label lies within its picture.
    inside = (
        "Array.from(document.querySelectorAll('.plots svg')).every((svg) => {"
        "const b = svg.getBoundingClientRect();"
        "return Array.from(svg.querySelectorAll('.sign, text')).every((m) => {"
        "const r = m.getBoundingClientRect();"
        "return r.left >= b.left && r.right <= b.right && r.top >= b.top && r.bottom <= b.bottom})})"
    )
    assert browser.evaluate(inside)
    browser.evaluate("document.querySelector('button[data-group]').click()")
    assert browser.evaluate("document.querySelector('#group-detail h3').textContent")
