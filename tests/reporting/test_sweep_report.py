"""The page of a sweep: all models, their Pareto plots, and one story for all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import Browser
from networks import NETWORKS, feeds, run
from test_report import Tree

import graphprune as gp
from graphprune.family import SweepResult
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
        assert point.output in text
    assert "Not reached: 0.1%" in text
    assert all(result.plan.sha256 in text for result in family.results)
    assert "graphprune sweep <x>" in text


def test_plots_in_a_browser(browser: Browser, family: SweepResult, tmp_path: Path) -> None:
    write_sweep_report(family, ReportRequest(tmp_path / "r.html"))
    browser.open(tmp_path / "r.html")
    marks = "document.querySelectorAll('.plots svg .sign')"
    assert browser.evaluate(f"{marks}.length") == 3 * len(family.points)
    # Every mark and label lies within its picture.
    inside = (
        "Array.from(document.querySelectorAll('.plots svg')).every((svg) => {"
        "const b = svg.getBoundingClientRect();"
        "return Array.from(svg.querySelectorAll('.sign')).every((m) => {const r = m.getBoundingClientRect();"
        "return r.left >= b.left && r.right <= b.right && r.top >= b.top && r.bottom <= b.bottom})})"
    )
    assert browser.evaluate(inside)
    browser.evaluate("document.querySelector('button[data-group]').click()")
    assert browser.evaluate("document.querySelector('#group-detail h3').textContent")
