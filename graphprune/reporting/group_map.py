"""The dependency groups: a picture of which share a weight, a list, and what is known of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import sqrt
from typing import Any

from graphprune.report import GroupSummary
from graphprune.reporting.content import Structure
from graphprune.reporting.markup import Child, Markup, code, data, join, table, tag
from graphprune.reporting.svg import number, picture

_WIDE, _LEAST, _MOST, _SIDE, _ARCS, _BELOW = 900, 6.0, 40.0, 24, 170, 26
#: More arcs, or more members and neighbours of one group, are a blur or a megabyte.
_MOST_ARCS, _MOST_MEMBERS, _MOST_NEIGHBOURS, _MOST_CHANGES, _MOST_ROWS = 4000, 200, 60, 20, 500
_STATES = {
    "cut": "shrinks",
    "whole": "could shrink, and was left whole",
    "stuck": "blocked",
    "gone": "goes as a whole",
}


def state_of(group: GroupSummary, kept: int) -> str:
    """What became of a group."""
    if kept == 0:
        return "gone"
    if not group.prunable:
        return "stuck"
    return "cut" if kept < group.size else "whole"


def group_map(found: Structure) -> Markup:
    """The section's content."""
    states = [state_of(g, k) for g, k in zip(found.groups, found.kept, strict=True)]
    if not states:
        return tag("p", "The model has no groups.")
    options = [
        tag("option", f"{'blocked' if s == 'stuck' else f'{k}/{g.size}'} {g.kind}: {g.id}", value=i)
        for i, (g, k, s) in enumerate(zip(found.groups, found.kept, states, strict=True))
    ]
    explain = (
        "A group is what can only go together. Each sign is a group, in the order of the network; an arc "
        "joins two groups that share a weight. Choose one in the picture or in the list."
    )
    if found.aside:
        explain += f" Not shown: {len(found.aside)} groups of convolutions' window sizes, which stay."
    return join(
        tag("p", explain),
        _signs(states),
        _picture(found, states),
        tag(
            "div",
            tag(
                "div",
                tag("label", "Filter", for_="group-filter"),
                tag("input", id="group-filter", type="search", autocomplete="off", spellcheck="false"),
                tag("label", "Groups", for_="group-list"),
                tag("select", options, id="group-list", size="12"),
            ),
            tag("div", tag("p", "No group is chosen.", class_="note"), id="group-detail", aria_live="polite"),
            class_="explorer",
        ),
        data("group-data", _data(found, states)),
        tag("details", tag("summary", "Groups as a table"), _table(found, states)),
    )  # fmt: skip


def blocked(found: Structure) -> Markup:
    """What can't shrink, by reason."""
    reasons: dict[str, list[Markup]] = defaultdict(list)
    for i, group in enumerate(found.groups):
        if not group.prunable:
            reasons[_short(group)].append(_chooser(group.id, i))
    for group in found.aside:
        reasons[_short(group)].append(code(group.id))
    if not reasons:
        return tag("p", "Nothing: every group can shrink.")
    rows = [
        (reason, [join(example, " ") for example in examples[:3]], len(examples))
        for reason, examples in sorted(reasons.items(), key=lambda item: -len(item[1]))
    ]
    missing = [f"{op.domain}::{op.op_type} ({op.count})" for op in found.inspected.ops if not op.rule]
    without = "Operators without a coupling rule, which block what touches them: "
    return join(
        table(("reason", "for example", "groups"), rows, caption="Blocked groups, by reason", numbers=2),
        tag("p", without, ", ".join(missing), ".") if missing else None,
    )


def _short(group: GroupSummary) -> str:
    """The reason without the node."""
    return (group.reason or "").split(" (")[0]


def _chooser(name: str, i: int) -> Markup:
    return tag("button", code(name), type="button", class_="chooser", data_group=i)


def _signs(states: Sequence[str]) -> Markup:
    entries = [
        tag("li", picture(14, 14, _sign(state, [(7, 7, 5)]), label=None), f"{words} ({states.count(state)})")
        for state, words in _STATES.items()
        if state in states
    ]
    return tag("ul", entries, class_="legend")


def _sign(state: str, places: Sequence[tuple[float, float, float]]) -> Markup:
    """Signs ``(x, y, radius)`` of one kind as one path: they differ in shape."""
    pieces = []
    for x, y, r in places:
        left, right, up, down = (number(v) for v in (x - r, x + r, y - r, y + r))
        if state == "stuck":
            pieces.append(f"M{left} {up}H{right}V{down}H{left}ZL{right} {down}M{right} {up}L{left} {down}")
        elif state == "gone":
            pieces.append(f"M{left} {down}H{right}L{number(x)} {up}Z")
        else:
            d, c = number(2 * r), number(r)
            pieces.append(f"M{left} {number(y)}a{c} {c} 0 1 0 {d} 0a{c} {c} 0 1 0-{d} 0")
    return tag("path", d="".join(pieces), class_=f"sign {state}")


def _picture(found: Structure, states: Sequence[str]) -> Markup:
    count = len(found.groups)
    step = min(max(_WIDE / count, _LEAST), _MOST)
    width, line = 2 * _SIDE + step * (count - 1), _ARCS + 8
    largest = max(group.size for group in found.groups)
    places: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for i, group in enumerate(found.groups):
        radius = step * (0.2 + 0.25 * sqrt(group.size / largest))
        places[states[i]].append((_SIDE + i * step, line, min(radius, 9)))
    pairs = sorted({(min(i, j), max(i, j)) for i, near in enumerate(found.neighbours) for j in near},
                   key=lambda pair: pair[1] - pair[0])  # fmt: skip
    shown = pairs[:_MOST_ARCS]
    spans = max((b - a for a, b in shown), default=1)
    arcs = "".join(
        f"M{number(_SIDE + a * step)} {line}a{number((b - a) * step / 2)} "
        f"{number(_ARCS * sqrt((b - a) / spans))} 0 0 1 {number((b - a) * step)} 0"
        for a, b in shown
    )
    note = None
    if len(shown) < len(pairs):
        note = tag("p", f"The {len(shown)} shortest of {len(pairs)} arcs are drawn.", class_="note")
    drawing = picture(
        width, line + _BELOW,
        tag("path", d=arcs, class_="arcs"),
        tag("path", d="", class_="arcs chosen", id="group-arcs"),
        [_sign(state, where) for state, where in places.items()],
        tag("circle", r=12, cx=0, cy=line, class_="cursor", id="group-cursor", visibility="hidden"),
        label=f"{count} groups in the order of the network, {len(pairs)} pairs of them share a weight",
    )  # fmt: skip
    return join(
        tag(
            "div", drawing, class_="scroll", id="group-picture", data_side=_SIDE, data_step=f"{step:.4f}",
            data_line=line, data_arcs=_ARCS, data_spans=spans, tabindex="0", role="group",
            aria_label="Picture of the groups; arrow keys choose the next one",
        ),
        note,
    )  # fmt: skip


def _data(found: Structure, states: Sequence[str]) -> dict[str, Any]:
    """Texts once, everything else as numbers into them."""
    texts: dict[str, int] = {}

    def place(text: str) -> int:
        return texts.setdefault(text, len(texts))

    def entry(i: int, g: GroupSummary) -> list[Any]:
        near = sorted(found.neighbours[i].items())
        return [
            place(g.id), place(g.kind), g.size, found.kept[i], place(_STATES[states[i]]), place(g.layer),
            g.macs, g.params, place(g.reason) if g.reason else -1,
            [place(change) for change in g.changes[:_MOST_CHANGES]],
            [[place(m.name), m.axis] for m in g.members[:_MOST_MEMBERS]], len(g.members),
            [[j, place(name)] for j, name in near[:_MOST_NEIGHBOURS]], len(near),
        ]  # fmt: skip

    groups = [entry(i, group) for i, group in enumerate(found.groups)]
    return {"groups": groups, "texts": list(texts)}


def _table(found: Structure, states: Sequence[str]) -> Markup:
    def row(i: int, g: GroupSummary) -> list[Child]:
        how = "exact" if g.exact else f"changes {len(g.changes)} statistics"
        said = g.reason if g.reason is not None else f"{_STATES[states[i]]}; removal is {how}"
        return [_chooser(g.id, i), g.kind, said, g.size, found.kept[i], len(g.members)]

    costly = sorted(range(len(found.groups)), key=lambda i: -found.groups[i].macs)[:_MOST_ROWS]
    rows = [row(i, found.groups[i]) for i in sorted(costly)]
    head = ("group", "kind", "what became of it", "units", "kept", "tensors")
    caption = f"{len(rows)} of {len(states)} groups, those with most multiply-adds"
    return table(head, rows, caption="All groups" if len(rows) == len(states) else caption, numbers=3)
