"""The report's file: complete, self-contained, escaped, small."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import onnx
import pytest
from networks import NETWORKS

import graphprune as gp
from graphprune.errors import DeviceError, ModelError, UsageError
from graphprune.reporting.markup import Markup, code, data, escape, tag
from graphprune.reporting.request import ReportRequest

EVIL = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "<!--<script>",
    "]]>&lt;b&gt;&#x3c;i>",
    "javascript:alert(3)//",
    "\u202egnp.exe \x00\x1b[31m",
    "'; DROP TABLE groups; --`${alert(4)}`",
]


class Tree(HTMLParser):
    """Elements with their attributes, and the texts that a reader sees."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, name: str, attributes: Any) -> None:
        self.elements.append((name, dict(attributes)))
        if name not in {"meta", "input"}:
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, text: str) -> None:
        self.text.append(text)


def renamed(model: onnx.ModelProto, names: dict[str, str]) -> onnx.ModelProto:
    """The same with other names of initializers and nodes."""
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.name = names.get(node.name, node.name)
    for tensor in model.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    return model


def written(path: Path, name: str, **options: Any) -> str:
    gp.prune(NETWORKS[name](), target={"macs": 0.7}, criterion="l2", floor=0.0, report=path, **options)
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_has_a_report(name: str, tmp_path: Path) -> None:
    text = written(tmp_path / "r.html", name)
    tree = Tree(text)
    keys = [attributes["id"] for _, attributes in tree.elements if "id" in attributes]
    assert len(keys) == len(set(keys))
    assert {"summary", "widths", "groups", "blocked", "origin"} <= set(keys)
    targets = [a["href"] for kind, a in tree.elements if kind == "a"]
    assert {str(target)[1:] for target in targets} <= set(keys)
    # Nothing that a browser would fetch, and no handlers in attributes.
    assert not re.search(r"https?:|src=|@import|<link|<iframe|\son[a-z]+=|\sstyle=", text)
    assert not any("NaN" in piece or "None" in piece for piece in tree.text)


def test_what_it_says_is_what_was_done(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(NETWORKS["attention"](), path)
    request = ReportRequest(tmp_path / "r.html", "graphprune prune 'a b' <c>")
    result = gp.prune(
        path, tmp_path / "o.onnx", target={"macs": 0.6}, criterion="l2", report=request,
        plan_out=tmp_path / "p.json",
    )  # fmt: skip
    text = " ".join(Tree((tmp_path / "r.html").read_text(encoding="utf-8")).text)
    assert "m.onnx, pruned" in text
    assert "graphprune prune 'a b' <c>" in text
    for fact in (result.source_sha256, result.plan.sha256, gp.__version__, str(tmp_path / "o.onnx")):
        assert fact in text
    for group in gp.analyze(gp.load(path)).groups:
        assert group.id in text
    assert f"{result.after.ratio(result.before)['macs']:.1%}" in text


def test_names_are_texts_whatever_they_say(tmp_path: Path) -> None:
    model = NETWORKS["cnn"]()
    weights = [tensor.name for tensor in model.graph.initializer]
    nodes = [node.name for node in model.graph.node]
    names = {
        old: f"{EVIL[i % len(EVIL)]} {i}".replace("\x00", "") for i, old in enumerate([*weights, *nodes])
    }
    request = ReportRequest(tmp_path / "r.html", "graphprune </pre><script>alert(5)</script>")
    gp.prune(renamed(model, names), target={"macs": 0.7}, criterion="l2", floor=0.0, report=request)
    plain = Tree(written(tmp_path / "plain.html", "cnn"))
    evil = Tree(request.path.read_text(encoding="utf-8"))
    # The names are all there, and the page has not one element more for them.
    assert (
        sum(kind == "script" for kind, _ in evil.elements)
        == sum(k == "script" for k, _ in plain.elements)
        == 2
    )
    assert {kind for kind, _ in evil.elements} <= {kind for kind, _ in plain.elements} | {"pre"}
    assert not any(key.startswith("on") or key == "src" for _, a in evil.elements for key in a)
    text = "".join(evil.text)
    assert "</script><script>alert(1)</script>" in text
    assert "\u202e" not in text
    assert "\\u202egnp.exe" in text


@pytest.mark.parametrize("text", EVIL)
def test_markup_escapes(text: str) -> None:
    read = Tree(tag("p", text, title=text, data_x=text))
    seen = "".join(read.text)
    assert seen == escape_seen(text) == read.elements[0][1]["title"] == read.elements[0][1]["data-x"]
    assert [kind for kind, _ in read.elements] == ["p"]
    assert "<" not in escape(text)
    assert (
        "<" not in data("x", {text: text})[len('<script type="application/json" id="x">') : -len("</script>")]
    )
    assert tag("p", Markup("<b>"), code(text)).startswith("<p><b><code")


def escape_seen(text: str) -> str:
    """Controls are shown as their code points."""
    return re.sub("[\x00\x1b\u202e]", lambda found: f"\\u{ord(found[0]):04x}", text)


def test_policy_allows_this_script_and_no_other(tmp_path: Path) -> None:
    text = written(tmp_path / "r.html", "mlp")
    (policy,) = [a["content"] for kind, a in Tree(text).elements if kind == "meta" and "http-equiv" in a]
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_same_job_same_page_but_for_the_seconds(tmp_path: Path) -> None:
    pages = [written(tmp_path / f"{i}.html", "cnn") for i in range(2)]
    first, second = (re.sub(r'number">\d+\.\d\d<|<td>\d+\.\d\d</td>', "", text) for text in pages)
    assert first == second


def test_report_of_a_saved_plan(tmp_path: Path) -> None:
    plan = gp.plan(NETWORKS["cnn"](), target={"macs": 0.7}, criterion="l2")
    gp.prune(NETWORKS["cnn"](), use_plan=plan, report=tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Dependency groups" in text
    assert plan.sha256 in text


def test_latency_is_measured_at_the_sizes_that_are_counted(tmp_path: Path) -> None:
    """Whatever the axes are called: by an expression, or not at all."""
    model = NETWORKS["attention"]()
    first = model.graph.input[0].type.tensor_type.shape.dim
    names = [dim.dim_param for dim in first]
    assert names[0]
    for change in ("2*k", ""):
        first[0].dim_param = change
        del model.graph.value_info[:]
        request = ReportRequest(tmp_path / "r.html", latency=True)
        dims = {"k": 3} if change else {f"{model.graph.input[0].name}:0": 6}
        gp.prune(model, target={"macs": 0.8}, criterion="l2", floor=0.0, report=request, dims=dims)
        assert "batch 6" in request.path.read_text(encoding="utf-8")


def test_a_device_that_is_gone_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*given: object) -> None:
        message = "the link was lost"
        raise DeviceError(message, hint="nothing was written")

    monkeypatch.setattr("graphprune.reporting.report.measured", lost)
    request = ReportRequest(tmp_path / "r.html", latency=True)
    with pytest.raises(DeviceError, match=r"the link was lost(.|\n)*o.onnx' is written") as caught:
        gp.prune(NETWORKS["cnn"](), tmp_path / "o.onnx", target={"macs": 0.7}, criterion="l2", report=request)
    assert "nothing was written" not in str(caught.value)


def test_a_place_that_can_not_be_written_is_said_first(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot write"):
        written(tmp_path / "no" / "r.html", "mlp", output=tmp_path / "o.onnx")
    with pytest.raises(UsageError, match="two of the files are the same"):
        written(tmp_path / "o.onnx", "mlp", output=tmp_path / "o.onnx")
    assert list(tmp_path.iterdir()) == []
