"""The report in a real browser: nothing in the console, usable by keyboard, light, dark and on paper."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from browser import Browser
from networks import NETWORKS
from test_report import EVIL, renamed

import graphprune as gp

FOCUS = "document.activeElement.id || document.activeElement.textContent.trim()"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    gp.prune(NETWORKS["attention"](), target={"macs": 0.7}, criterion="l2", floor=0.0, report=path)
    return path


def test_it_draws_and_does_not_complain(browser: Browser, report: Path) -> None:
    pictures = {}
    for dark in (False, True):
        browser.open(report, dark=dark)
        # Bars and signs have an area, in colours that are not the page's.
        for shape in ("path.kept", "path.removed", "path.sign.cut", "path.arcs"):
            box = f"document.querySelector('#content {shape}').getBBox()"
            assert browser.evaluate(f"{box}.width * {box}.height") > 0, shape
        pictures[dark] = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        assert browser.screenshot().startswith(b"\x89PNG")
        # The style sheet and the script passed the page's own policy.
        assert browser.evaluate("document.getElementById('theme').hidden") is False
    assert pictures == {False: "rgb(255, 255, 255)", True: "rgb(20, 24, 31)"}


def test_light_and_dark_by_hand(browser: Browser, report: Path) -> None:
    browser.open(report)
    for expected in ("rgb(20, 24, 31)", "rgb(255, 255, 255)"):
        browser.evaluate("document.getElementById('theme').focus()")
        browser.press("Enter")
        assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == expected


def test_the_keyboard_is_enough(browser: Browser, report: Path) -> None:
    browser.open(report)
    seen = []
    for _ in range(40):
        browser.press("Tab")
        seen.append(browser.evaluate(FOCUS))
        if seen[-1] == "group-list":
            break
    assert seen[0] == "Skip to the content"
    order = [
        name
        for name in seen
        if name in ("theme", "widths-picture", "group-picture", "group-filter", "group-list")
    ]
    assert order == ["theme", "widths-picture", "group-picture", "group-filter", "group-list"]
    browser.press("Home")
    first = browser.evaluate("document.querySelector('#group-detail h3').textContent")
    browser.press("ArrowDown")
    second = browser.evaluate("document.querySelector('#group-detail h3').textContent")
    listed = [group.id for group in gp.analyze(gp.load(NETWORKS["attention"]())).groups]
    assert first == listed[0]
    assert second == listed[1]
    # On to a neighbour, by its button.
    browser.press("Tab", "Tab")
    wanted = browser.evaluate("document.activeElement.textContent")
    assert wanted in listed
    browser.press("Enter")
    assert browser.evaluate("document.querySelector('#group-detail h3').textContent") == wanted
    assert browser.evaluate("document.getElementById('group-arcs').getAttribute('d')").startswith("M")


def test_bars_by_keyboard_and_mouse(browser: Browser, report: Path) -> None:
    browser.open(report)
    browser.evaluate("document.getElementById('widths-picture').focus()")
    note = "document.getElementById('widths-note').textContent"
    browser.press("End")
    last = browser.evaluate(note)
    browser.press("ArrowLeft")
    assert browser.evaluate(note) != last
    count = int(browser.evaluate("document.getElementById('widths-picture').getAttribute('aria-valuemax')"))
    assert last.startswith(f"{count}. ")
    browser.evaluate("document.getElementById('widths').scrollIntoView()")
    box = "document.querySelector('#widths-picture svg').getBoundingClientRect()"
    x, y = browser.evaluate(f"{box}.left") + 52 + 5, browser.evaluate(f"{box}.top") + 150
    browser.click(x, y)
    assert browser.evaluate(note).startswith("1. ")
    assert "of 1" in browser.evaluate(note)


def test_the_filter_leaves_what_matches(browser: Browser, report: Path) -> None:
    browser.open(report)
    browser.evaluate("document.getElementById('group-filter').focus()")
    browser.type("heads")
    shown = browser.evaluate(
        "Array.from(document.getElementById('group-list').options, (o) => o.textContent)"
    )
    assert shown
    assert all("heads" in text for text in shown)


def test_everything_has_a_name(browser: Browser, report: Path) -> None:
    browser.open(report)
    browser.send("Accessibility.enable")
    tree = browser.send("Accessibility.getFullAXTree")["nodes"]
    browser.send("Accessibility.disable")
    wanted = {"button", "link", "textbox", "searchbox", "listbox", "slider", "img", "table", "region"}
    roles = set()
    for node in tree:
        role = node.get("role", {}).get("value")
        if not node["ignored"] and role in wanted:
            roles.add(role)
            assert node.get("name", {}).get("value"), node
    assert {"button", "link", "searchbox", "listbox", "slider", "table"} <= roles


@pytest.mark.parametrize("dark", [False, True])
def test_texts_stand_out_from_the_page(browser: Browser, report: Path, dark: bool) -> None:
    """The contrast that WCAG asks of texts (4.5) and of pictures (3)."""
    browser.open(report, dark=dark)
    read = "getComputedStyle(document.documentElement).getPropertyValue('--{}').trim()"
    shades = {
        name: browser.evaluate(read.format(name))
        for name in ("page", "text", "soft", "box", "kept", "removed", "blocked", "chosen")
    }
    for ground in ("page", "box"):
        assert min(contrast(shades[ground], shades[name]) for name in ("text", "soft", "kept")) >= 4.5
        assert min(contrast(shades[ground], shades[n]) for n in ("removed", "blocked", "chosen")) >= 3


def contrast(first: str, second: str) -> float:
    def light(shade: str) -> float:
        parts = [int(shade[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(first), light(second)))
    return (high + 0.05) / (low + 0.05)


def test_it_prints_light_and_open(browser: Browser, report: Path) -> None:
    browser.open(report, dark=True)
    assert browser.pdf().startswith(b"%PDF")
    assert browser.evaluate("Array.from(document.querySelectorAll('details')).every((d) => d.open)")
    browser.send("Emulation.setEmulatedMedia", media="print", features=[])
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_narrow_windows_do_not_scroll_sideways(browser: Browser, report: Path) -> None:
    browser.open(report, width=360)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 360


def test_names_run_nothing(browser: Browser, tmp_path: Path) -> None:
    model: onnx.ModelProto = NETWORKS["cnn"]()
    names = {t.name: f"{EVIL[i % len(EVIL)]} {i}" for i, t in enumerate(model.graph.initializer)}
    names = {old: new.replace("\x00", "") for old, new in names.items()}
    gp.prune(
        renamed(model, names), target={"macs": 0.7}, criterion="l2", floor=0.0, report=tmp_path / "evil.html"
    )
    browser.open(tmp_path / "evil.html")
    count = int(browser.evaluate("document.getElementById('group-list').length"))
    for i in range(count):
        browser.evaluate(f"chooseGroup({i}, false)")
    assert browser.evaluate("document.images.length") == 0
    assert browser.evaluate("document.scripts.length") == 2
