"""Pieces of pictures that several sections share."""

from __future__ import annotations

from collections.abc import Iterable

from graphprune.reporting.markup import Child, Markup, tag

#: Fills that differ in pattern and not only in colour.
PATTERNS = tag(
    "svg",
    tag(
        "defs",
        tag(
            "pattern", tag("path", d="M-1 1L1-1M0 6L6 0M5 7L7 5", class_="hatch"),
            id="fill-removed", width=6, height=6, patternUnits="userSpaceOnUse",
        ),
        tag(
            "pattern", tag("circle", cx=2, cy=2, r=1, class_="dot"),
            id="fill-blocked", width=4, height=4, patternUnits="userSpaceOnUse",
        ),
    ),
    width=0, height=0, aria_hidden="true", class_="patterns",
)  # fmt: skip


def picture(width: float, height: float, *children: Child, label: str | None, class_: str = "") -> Markup:
    """An image as wide as it is, or as the page where that is narrower and it need not scroll.

    Args:
        width: in pixels.
        height: in pixels.
        *children: what is drawn.
        label: what it shows, in words; None hides it from those who can't see it.
        class_: of the element.
    """
    return tag(
        "svg", *children, viewBox=f"0 0 {number(width)} {number(height)}", width=number(width),
        height=number(height), class_=class_ or None, role="img" if label is not None else None,
        aria_label=label, aria_hidden="true" if label is None else None, focusable="false",
    )  # fmt: skip


def number(value: float) -> str:
    """As short as a tenth of a pixel allows."""
    return f"{value:.1f}".removesuffix(".0")


def boxes(places: Iterable[tuple[float, float, float, float]]) -> str:
    """One path of many rectangles ``(x, y, width, height)``; those without an area are left out."""
    return "".join(
        f"M{number(x)} {number(y)}h{number(w)}v{number(h)}h-{number(w)}z"
        for x, y, w, h in places
        if w > 0 and h > 0
    )


def legend(*meanings: tuple[str, str]) -> Markup:
    """What the fills mean: ``(class, words)``."""
    swatch = {"x": 0.5, "y": 0.5, "width": 15, "height": 11}
    entries = [
        tag("li", picture(16, 12, tag("rect", class_=name, **swatch), label=None), words)
        for name, words in meanings
    ]
    return tag("ul", entries, class_="legend")
