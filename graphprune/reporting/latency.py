"""How long both models take, as a whole and layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphprune.amounts import milliseconds
from graphprune.reporting.markup import Markup, code, join, table, tag
from graphprune.reporting.svg import legend, number, picture

_SHOWN, _WIDE, _ROW = 24, 420, 30


@dataclass(frozen=True)
class LayerTime:
    """Milliseconds per run of one layer; None in the model that does not have it."""

    name: str
    op_type: str
    before: float | None
    after: float | None


@dataclass(frozen=True)
class Latencies:
    """What was measured.

    Attributes:
        before: median milliseconds of a run of the original.
        after: and of the pruned model.
        ratio: after over before, with its 10th and 90th percentile over the rounds of the interleaving.
        how: provider, device, threads, batch, in words.
        layers: by time in the original; empty where the runtime does not say.
    """

    before: float
    after: float
    ratio: tuple[float, float, float]
    how: str
    layers: Sequence[LayerTime]


def latency(found: Latencies) -> Markup:
    """The section's content."""
    ratio, low, high = found.ratio
    said = (
        f"{milliseconds(found.before)} ms before, {milliseconds(found.after)} ms after: {ratio:.1%} of the "
        f"time ({low:.1%} to {high:.1%} over the rounds), {found.how}. Runs of both models alternate. "
        "Measured for this page, apart from what a latency target measured when it planned."
    )
    if not found.layers:
        return tag("p", said)
    layers = sorted(found.layers, key=lambda layer: -(layer.before or 0))
    shown = layers[:_SHOWN]
    note = (
        f"The {len(shown)} slowest of {len(layers)} layers. Times of single layers come from the runtime's "
        "own profiler, which takes time itself."
    )
    rows = [
        (
            code(layer.name), layer.op_type, *_words(layer),
        )
        for layer in layers
    ]  # fmt: skip
    every = table(("layer", "operator", "before", "after"), rows, caption="Time of all layers", numbers=2)
    return join(
        tag("p", said),
        legend(("removed", "before"), ("kept", "after")),
        tag("div", _bars(shown), class_="scroll"),
        tag("p", note, class_="note"),
        tag("details", tag("summary", "All layers as a table"), every),
    )


def _bars(layers: Sequence[LayerTime]) -> Markup:
    most = max((max(layer.before or 0, layer.after or 0) for layer in layers), default=0) or 1.0
    rows = []
    for i, layer in enumerate(layers):
        y, before = i * _ROW, _WIDE * (layer.before or 0) / most
        after = _WIDE * (layer.after or 0) / most
        words = " → ".join(_words(layer))
        rows.append(
            tag(
                "g",
                tag("text", f"{_short(layer.name)} ({layer.op_type})", x=0, y=y + 18, class_="name"),
                tag("rect", x=330, y=y + 4, width=number(before), height=9, class_="removed"),
                tag("rect", x=330, y=y + 14, width=number(after), height=9, class_="kept"),
                tag("text", words, x=number(336 + max(before, after)), y=y + 18),
            )
        )
    return picture(
        330 + _WIDE + 140, len(layers) * _ROW + 4, rows, label="Time of the slowest layers, before and after"
    )


def _words(layer: LayerTime) -> tuple[str, str]:
    return (
        "none" if layer.before is None else f"{milliseconds(layer.before)} ms",
        "gone" if layer.after is None else f"{milliseconds(layer.after)} ms",
    )


def _short(name: str) -> str:
    return name if len(name) <= 38 else f"…{name[-37:]}"
