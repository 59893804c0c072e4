"""HTML from Python, in which every text is escaped unless it is markup already.

Names of tensors come from the model file, and may hold anything.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable
from typing import Any, TypeAlias

#: Characters that HTML can't hold, or that turn the direction of what follows.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_VOID = {"meta", "br", "hr", "input", "col"}


class Markup(str):
    """Text that is HTML."""


Child: TypeAlias = "str | int | float | Iterable[Child] | None"


def escape(text: str) -> str:
    """A text as HTML; what can't be seen stands there as its code point."""
    return html.escape(_UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def tag(name: str, /, *children: Child, **attributes: Any) -> Markup:
    """An element.

    Args:
        name: of the element.
        *children: markup as it is, other texts escaped, iterables one by one, None not at all.
        **attributes: ``class_`` is ``class``, other underscores are hyphens; True stands alone, None and
            False are left out.
    """
    pieces = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        label = key.rstrip("_").replace("_", "-")
        pieces.append(f" {label}" if value is True else f' {label}="{escape(str(value))}"')
    start = f"<{name}{''.join(pieces)}>"
    return Markup(start) if name in _VOID else Markup(f"{start}{join(*children)}</{name}>")


def join(*children: Child) -> Markup:
    """Markup of several things in a row."""
    return Markup("".join(_each(children)))


def _each(children: Iterable[Child]) -> Iterable[str]:
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            yield child
        elif isinstance(child, str):
            yield escape(child)
        elif isinstance(child, (int, float)):
            yield str(child)
        else:
            yield from _each(child)


def code(text: str) -> Markup:
    """A name, whose writing direction is its own business."""
    return tag("code", text, dir="ltr", translate="no")


def data(identifier: str, document: Any) -> Markup:
    """JSON for the page's script; no text in it can end the element."""
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(f'<script type="application/json" id="{escape(identifier)}">{text}</script>')


def table(
    head: Iterable[Child], rows: Iterable[Iterable[Child]], *, caption: str, numbers: int = 1
) -> Markup:
    """A table whose first cells name their rows.

    Args:
        head: titles of the columns.
        rows: cells.
        caption: what it shows.
        numbers: columns from this one on are aligned to the right.
    """

    def cell(kind: str, i: int, child: Child, scope: str | None = None) -> Markup:
        return tag(kind, child, scope=scope, class_="number" if i >= numbers else None)

    top = tag("tr", [cell("th", i, title, "col") for i, title in enumerate(head)])
    body = [
        tag(
            "tr", [cell("th" if i == 0 else "td", i, c, "row" if i == 0 else None) for i, c in enumerate(row)]
        )
        for row in rows
    ]
    return tag(
        "div",
        tag("table", tag("caption", caption), tag("thead", top), tag("tbody", body)),
        class_="scroll", tabindex="0", role="region", aria_label=caption,
    )  # fmt: skip
