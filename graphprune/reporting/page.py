"""One HTML file: no network, no other files; light and dark, on screen and on paper."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from graphprune.reporting.markup import Markup, join, tag
from graphprune.reporting.svg import PATTERNS


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        key: its address within the page.
        title: as headline and in the list of contents.
        body: its content.
    """

    key: str
    title: str
    body: Markup


def page(title: str, sections: Sequence[Section]) -> str:
    """The document.

    Its policy lets the browser load nothing and run no script but the one that is written here, whatever
    the names in a model may say.
    """
    style, script = _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; base-uri 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    contents = tag("ul", [tag("li", tag("a", part.title, href=f"#{part.key}")) for part in sections])
    main = [
        tag("section", tag("h2", part.title, id=f"{part.key}-title"), part.body,
            id=part.key, aria_labelledby=f"{part.key}-title")
        for part in sections
    ]  # fmt: skip
    body = tag(
        "body",
        tag("a", "Skip to the content", href="#content", class_="skip"),
        PATTERNS,
        tag(
            "header",
            tag("h1", title),
            tag("button", "Dark page", id="theme", type="button", hidden=True, class_="screen"),
        ),
        tag("nav", contents, aria_label="Contents"),
        tag(
            "noscript",
            tag("p", "Without JavaScript the pictures can't be explored; tables have layers and groups."),
        ),
        tag("main", main, id="content", tabindex="-1"),
        tag("script", Markup(script)),
    )
    return f"<!DOCTYPE html>\n{tag('html', join(head, body), lang='en')}\n"


def _asset(name: str) -> str:
    return files("graphprune.reporting").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
