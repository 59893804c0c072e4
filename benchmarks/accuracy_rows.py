"""Results of the accuracy benchmark: a file of JSON lines, and the tables made from it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

DENSE = "dense"


@dataclass(frozen=True)
class Row:
    """One method at one budget.

    Attributes:
        model: name of the task.
        budget: share of the multiply-adds asked for; 1 for the dense model.
        method: what was run.
        choosing: made to choose by (on held-out samples), not to report (on the test split).
        samples: calibration samples.
        seed: of everything random.
        metric: what ``value`` is.
        value: on the test split; None where there is none.
        parts: its parts, if any.
        held_out: figures to choose by.
        macs: share of the multiply-adds that the file keeps, counted by graphprune.
        seconds: of the job.
        peak_mb: of its process.
        note: what there is to say.
    """

    model: str
    budget: float
    method: str
    choosing: bool
    samples: int
    seed: int
    metric: str = ""
    value: float | None = None
    parts: dict[str, float] = field(default_factory=dict)
    held_out: dict[str, float] = field(default_factory=dict)
    macs: float | None = None
    seconds: float | None = None
    peak_mb: int | None = None
    note: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        return (self.model, self.budget, self.method, self.choosing, self.samples, self.seed)


class Results:
    """The file; of rows with the same key the last counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        rows = [Row(**json.loads(line)) for line in lines if line.strip()]
        self.rows = {row.key: row for row in rows}

    def add(self, row: Row) -> None:
        self.rows[row.key] = row
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")


def markdown(rows: Iterable[Row], *, brief: bool) -> str:
    """A table per model and budget, best first."""
    found = list(rows)
    heads = {(r.model, r.budget, r.choosing, r.samples, r.seed): None for r in found if r.method != DENSE}
    parts = []
    for model, budget, choosing, samples, seed in heads:
        every = [
            r for r in found if (r.model, r.choosing, r.samples, r.seed) == (model, choosing, samples, seed)
        ]
        dense = next((r for r in every if r.method == DENSE), None)
        pruned = [r for r in every if r.method != DENSE and r.budget == budget]
        parts += [_table(dense, pruned, brief=brief), ""]
    return "\n".join(parts)


def _score(row: Row) -> float:
    """Higher is better; rows without a figure come last."""
    if row.choosing and row.held_out:
        name, value = next(iter(row.held_out.items()))
        return value if name.startswith("dev") else -value
    if row.value is None:
        return float("-inf")
    return -row.value if row.metric == "perplexity" else row.value


def _family(method: str) -> str:
    """Without the scope, and with any samples behind new BatchNorm statistics: the best of them is shown."""
    return re.sub(r" (global|local)\b", "", method).replace(" (augmented)", "")


def _table(dense: Row | None, rows: list[Row], *, brief: bool) -> str:
    ranked = sorted(rows, key=_score, reverse=True)
    if brief:
        first: dict[str, Row] = {}
        for row in ranked:
            first.setdefault(_family(row.method), row)
        ranked = list(first.values())
    top = rows[0]
    figures = (
        [*dict.fromkeys(name for row in rows for name in row.held_out)] if top.choosing else [top.metric]
    )
    is_ratio = top.metric == "perplexity" and dense is not None and not top.choosing
    columns = ["method", "MACs kept", *figures, *(["x dense"] if is_ratio else []), "s", "peak MB"]
    where = "held-out samples" if top.choosing else "test split"
    lines = [
        f"### {top.model}, macs={top.budget:.1%}, {top.samples} samples, {where}",
        "",
        f"| {' | '.join(columns)} |",
        f"| --- {'| ---: ' * (len(columns) - 1)}|",
    ]
    for row in [*([dense] if dense else []), *ranked]:
        lines.append(f"| {' | '.join([*_cells(row, dense, figures, is_ratio=is_ratio)])} |")
    return "\n".join(lines)


def _cells(row: Row, dense: Row | None, figures: list[str], *, is_ratio: bool) -> list[str]:
    given = row.held_out if row.choosing else {row.metric: row.value}
    numbers = [given.get(name) for name in figures]
    cells = [_number(value, 4 if name == "KL" else 2) for name, value in zip(figures, numbers, strict=True)]
    has_none = all(value is None for value in numbers)
    if is_ratio:
        ratio = row.value / dense.value if dense and dense.value and row.value is not None else None
        cells.append(_number(ratio, 3))
    # One line each, whatever an error message holds.
    name = f"{row.method}: {row.note}".replace("|", "/") if has_none and row.note else row.method
    macs = "-" if row.macs is None else f"{row.macs:.1%}"
    return [name, macs, *cells, _number(row.seconds, 1), _number(row.peak_mb, 0)]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
