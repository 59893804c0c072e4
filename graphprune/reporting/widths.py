"""The widths of all layers along the depth, what stays and what goes."""

from __future__ import annotations

from collections.abc import Sequence

from graphprune.reporting.content import Layer
from graphprune.reporting.markup import Markup, code, join, table, tag
from graphprune.reporting.svg import boxes, legend, number, picture

_LEFT, _TOP, _TALL, _GAP, _STRIP, _BOTTOM = 52, 8, 180, 26, 60, 20
#: Pixels that the bars fill, and how wide one is.
_WIDE, _LEAST, _MOST = 900, 3.0, 36.0


def widths(layers: Sequence[Layer]) -> Markup:
    """The section's content."""
    if not layers:
        return tag("p", "The model has no layer that multiplies by a weight.")
    cut = [layer for layer in layers if layer.kept < layer.size]
    gone = sum(layer.kept == 0 for layer in layers)
    said = f"{len(cut)} of {len(layers)} layers are narrower than before"
    said += f", {gone} of them gone as a whole." if gone else "."
    note = "Click a bar, or focus the picture and use the arrow keys, to read one layer."
    return join(
        tag("p", said),
        legend(("kept", "kept"), ("removed", "removed"), ("blocked", "kept, since it can't shrink")),
        tag(
            "div", picture_of(layers), class_="scroll", id="widths-picture", role="slider", tabindex="0",
            aria_label="layer", aria_valuemin="1", aria_valuemax=str(len(layers)), aria_valuenow="1",
            aria_valuetext=_words(layers[0]),
        ),
        tag("p", note, id="widths-note", class_="note", aria_live="polite"),
        tag("details", tag("summary", "All layers as a table"), _table(layers)),
    )  # fmt: skip


def _words(layer: Layer) -> str:
    return f"{layer.name}: {layer.kept} of {layer.size} kept"


def picture_of(layers: Sequence[Layer], label: str | None = None) -> Markup:
    """The bars; with a label an image, without one something to move through."""
    step = min(max(_WIDE / len(layers), _LEAST), _MOST)
    width = _LEFT + step * len(layers) + 8
    height = _TOP + _TALL + _GAP + _STRIP + _BOTTOM
    most = max(layer.size for layer in layers)
    floor, strip = _TOP + _TALL, _TOP + _TALL + _GAP
    bar = step * 0.8 if step > 4 else step - 0.5
    drawn: dict[str, list[tuple[float, float, float, float]]] = {"kept": [], "removed": [], "blocked": []}
    shares: list[tuple[float, float, float, float]] = []
    for i, layer in enumerate(layers):
        x = _LEFT + i * step
        kept, size = (_TALL * n / most for n in (layer.kept, layer.size))
        kind = "blocked" if layer.reason is not None and layer.kept else "kept"
        drawn[kind].append((x, floor - kept, bar, kept))
        drawn["removed"].append((x, floor - size, bar, size - kept))
        share = _STRIP * layer.kept / max(layer.size, 1)
        shares.append((x, strip + _STRIP - share, bar, share))
    end = width - 8
    lines = [(_TOP, str(most)), (floor, "0"), (strip, "100%"), (strip + _STRIP, "0%")]
    cursor = tag(
        "rect", x=_LEFT - 1, y=_TOP - 4, width=number(bar + 2), height=height - _BOTTOM, class_="cursor",
        id="widths-cursor", data_left=_LEFT, data_step=f"{step:.4f}", visibility="hidden",
    )  # fmt: skip
    return picture(
        width, height,
        [tag("path", d=f"M{_LEFT} {y}H{number(end)}", class_="grid") for y, _ in lines],
        [tag("text", text, x=_LEFT - 6, y=y + 4, text_anchor="end") for y, text in lines],
        [tag("path", d=boxes(places), class_=kind) for kind, places in drawn.items()],
        tag("path", d=boxes(shares), class_="kept"),
        tag("text", "width", x=_LEFT, y=floor + 15),
        tag("text", "share kept, first layer to last", x=_LEFT, y=height - 5),
        cursor if label is None else None,
        label=label,
    )  # fmt: skip


def _table(layers: Sequence[Layer]) -> Markup:
    rows = [
        (
            tag("span", code(layer.name), data_group=layer.group),
            layer.op_type, layer.reason or "", layer.size, layer.kept,
            f"{layer.kept / max(layer.size, 1):.0%}",
        )
        for layer in layers
    ]  # fmt: skip
    head = ("layer", "operator", "why it can't shrink", "width before", "after", "kept")
    return tag("div", table(head, rows, caption="Widths of all layers", numbers=3), id="widths-table")
