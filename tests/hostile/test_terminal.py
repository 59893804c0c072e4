"""What is printed: names can't obey the terminal, be markup, or pass for another line."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from networks import NETWORKS

from graphprune.errors import ModelError
from graphprune.printable import printable

NAMES = [
    "\x1b[2J\x1b[31mred", "\x1b]0;title\x07", "a\rb", "a\x08\x08b", "\u202etxt.exe", "[bold]a[/bold]", "[/]",
    "a\nb", "\x9b31m", "\u2066a\u2069", "\u200bzero", "[link=file:///etc]x[/link]", "\x00", ":smile:",
]  # fmt: skip


@pytest.fixture(params=NAMES, ids=range(len(NAMES)))
def named(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A model whose first weight, first node and input have an odd name."""
    name, model = request.param, NETWORKS["mlp"]()
    first, source = model.graph.initializer[0].name, model.graph.input[0].name
    model.graph.initializer[0].name = f"w{name}"
    model.graph.input[0].name = f"x{name}"
    for node in model.graph.node:
        node.name = f"n{name}{node.name}"
        node.input[:] = [{first: f"w{name}", source: f"x{name}"}.get(n, n) for n in node.input]
    onnx.save(model, tmp_path / "m.onnx")
    return name, tmp_path / "m.onnx"


def test_tables_show_the_name_and_nothing_obeys_it(named: tuple[str, Path], printed) -> None:  # type: ignore[no-untyped-def]
    name, path = named
    out = path.parent / "o.onnx"
    for text in (
        printed("inspect", path, "--all"),
        printed("explain", path, f"w{name}:1"),
        printed("prune", path, out, "--target", "macs=60%", "--criterion", "l2"),
    ):
        assert printable(text) == text
    if not set(name) & set("\n\r\x07\x08"):  # these the library for tables leaves out
        assert f"'w{printable(name)}', axis 1" in printed("explain", path, f"w{name}:1")


def test_errors_show_the_name_and_nothing_obeys_it(named: tuple[str, Path], refusal) -> None:  # type: ignore[no-untyped-def]
    name, path = named
    error = refusal("explain", path, f"nothing{name}", code=2)
    assert "nothing" in error
    error = refusal("inspect", path.parent / f"none{name.replace(chr(0), '')}.onnx")
    assert "does not exist" in error


def test_an_error_has_four_lines_whatever_is_in_it() -> None:
    text = "a\nb\x1b[2J\u2028c\u202ed\ud800"
    error = ModelError(text, where=text, because=text, hint=text)
    assert len(str(error).splitlines()) == 4
    str(error).encode()
    assert "\x1b" not in str(error)
    assert "\\x1b" in str(error)


@pytest.mark.parametrize("text", ["conv1.weight", "größe", "重み", "a b", "🙂", "a\nb"])
def test_plain_names_stay(text: str) -> None:
    assert printable(text) == text
