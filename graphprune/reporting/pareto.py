"""What a family of models costs against how well each does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from graphprune.amounts import count, milliseconds, size
from graphprune.family import Point, goodness
from graphprune.reporting.markup import Markup, join, table, tag
from graphprune.reporting.svg import number, picture

_WIDE, _TALL, _LEFT, _RIGHT, _TOP, _BOTTOM = 320, 250, 62, 24, 28, 42
_COSTS: dict[str, tuple[str, Callable[[float], str]]] = {
    "latency_ms": ("latency, ms", milliseconds),
    "macs": ("MACs", count),
    "bytes": ("file", size),
}


def pareto(points: Sequence[Point], judged_on: str) -> Markup:
    """Pictures and table."""
    known = [point for point in points if goodness(point.quality) is not None]
    shown = [cost for cost in _COSTS if any(getattr(point, cost) is not None for point in known)]
    plots = [_plot(known, cost) for cost in shown] if known else []
    said = (
        f"Accuracy or, without labels, distance of the outputs from the original's, on {judged_on}. The "
        "dashed line joins the models that no other beats in both; a square is the original."
    )
    return join(tag("p", said), tag("div", plots, class_="plots"), family_table(points))


def family_table(points: Sequence[Point]) -> Markup:
    """All numbers."""
    timed = any(point.latency_ms is not None for point in points)
    labelled = any(point.quality.accuracy is not None for point in points)
    agreed = any(point.quality.agreement is not None for point in points)
    head = ["model", "file", "MACs", "parameters", "file size", "output error"]
    head += ["same answer"] * agreed + ["accuracy"] * labelled + ["latency"] * timed + ["not beaten in"]
    rows = []
    for p in points:
        quality = p.quality
        row = [
            p.name, tag("code", Path(p.output).name, class_="file"),
            f"{count(p.macs)} ({p.kept['macs']:.1%})", f"{count(p.params)} ({p.kept['params']:.1%})",
            f"{size(p.bytes)} ({p.kept['bytes']:.1%})",
            "unknown" if quality.error is None else f"{quality.error:.3g}",
        ]  # fmt: skip
        row += [_share(quality.agreement)] * agreed + [_share(quality.accuracy)] * labelled
        if timed and p.latency_ms is not None and p.latency_ratio is not None:
            row.append(f"{milliseconds(p.latency_ms)} ms ({p.latency_ratio:.1%})")
        elif timed:
            row.append("unknown")
        row.append(", ".join(_COSTS[cost][0].split(",")[0] for cost in p.best_for) or "nothing")
        rows.append(row)
    return table(head, rows, caption="The family", numbers=2)


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2%}"


def _plot(points: Sequence[Point], cost: str) -> Markup:
    title, words = _COSTS[cost]
    is_accuracy = points[0].quality.accuracy is not None
    there = [point for point in points if getattr(point, cost) is not None]
    xs = [float(getattr(point, cost)) for point in there]
    ys = [_height(point) for point in there]
    right, (low, high) = max(xs) * 1.08 or 1.0, _span(ys, is_accuracy=is_accuracy)

    def place(x: float, y: float) -> tuple[float, float]:
        across = _LEFT + (_WIDE - _LEFT - _RIGHT) * x / right
        # Less error is better, so that better is always further up.
        share = (y - low) / (high - low) if is_accuracy else (high - y) / (high - low)
        return across, _TALL - _BOTTOM - (_TALL - _BOTTOM - _TOP) * share

    front = sorted((place(x, y) for x, y, p in zip(xs, ys, there, strict=True) if cost in p.best_for))
    line = "M" + "L".join(f"{number(x)} {number(y)}" for x, y in front) if front else ""
    floor = _TALL - _BOTTOM
    ticks = [right * i / 2 for i in range(3)]
    levels = [low + (high - low) * i / 4 for i in range(5)]
    marks, labels = [], []
    taken: list[tuple[float, float]] = []
    for x, y, point in zip(xs, ys, there, strict=True):
        across, down = place(x, y)
        if point.plan_sha256 is None:
            marks.append(
                tag("rect", x=number(across - 5), y=number(down - 5), width=10, height=10, class_="sign")
            )
        else:
            marks.append(tag("circle", cx=number(across), cy=number(down), r=5, class_="sign cut"))
        beside = _free(across, down, taken)
        taken.append((across, beside))
        labels.append(
            tag("text", point.name, x=number(across), y=number(beside), text_anchor="middle", class_="name")
        )
    return picture(
        _WIDE, _TALL,
        [tag("path", d=f"M{_LEFT} {number(place(0, y)[1])}H{_WIDE - _RIGHT}", class_="grid") for y in levels],
        tag("path", d=f"M{_LEFT} {_TOP}V{floor}H{_WIDE - _RIGHT}", class_="axis"),
        [tag("text", words(x), x=number(place(x, low)[0]), y=floor + 15, text_anchor=anchor)
         for x, anchor in zip(ticks, ("start", "middle", "end"), strict=True)],
        [tag("text", f"{y:.1%}" if is_accuracy else f"{y:.2g}", x=_LEFT - 5, y=number(place(0, y)[1] + 4),
             text_anchor="end") for y in levels],
        tag("text", title, x=_WIDE - _RIGHT, y=_TALL - 6, text_anchor="end"),
        tag("text", "accuracy" if is_accuracy else "output error", x=4, y=14),
        tag("path", d=line, class_="front"),
        marks, labels,
        label=f"{title} of {len(there)} models against {'accuracy' if is_accuracy else 'output error'}",
    )  # fmt: skip


def _free(across: float, down: float, taken: Sequence[tuple[float, float]]) -> float:
    """Where a name stands: above its mark, or, where another name is, below it, or further away."""
    places = [down - 9, down + 18, down - 23, down + 32]
    within = [y for y in places if 12 <= y <= _TALL - _BOTTOM + 6]
    clear = (y for y in within if all(abs(across - x) > 50 or abs(y - other) > 12 for x, other in taken))
    return next(clear, places[0])


def _height(point: Point) -> float:
    found = point.quality.accuracy if point.quality.accuracy is not None else point.quality.error
    return 0.0 if found is None else found


def _span(values: Sequence[float], *, is_accuracy: bool) -> tuple[float, float]:
    low, high = (min(values), max(values)) if is_accuracy else (0.0, max(values))
    room = 0.08 * (high - low) or 0.01
    return (max(low - room, 0.0), min(high + room, 1.0)) if is_accuracy else (0.0, high + room)
