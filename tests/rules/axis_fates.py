"""What the rules do with each axis of each input: carried, contracted, statistic or blocked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rule_law import Case, analyse

from graphprune.algebra import Axis
from graphprune.analysis import Analysis


def describe(case: Case) -> str:
    """One line: what the rules did with each axis of each input."""
    analysis, _ = analyse(case)
    algebra = analysis.algebra
    carried = {u for o in analysis.model.ir.graph.outputs for a in analysis.axes[o.name]
               for u in np.unique(algebra.live(a)).tolist()}  # fmt: skip
    statistic = {u for a, _, _ in analysis.facts.statistics for u in np.unique(algebra.live(a)).tolist()}
    values: dict[str, Sequence[Axis]] = {
        v.name: analysis.axes[v.name] for v in analysis.model.ir.graph.inputs if v.name in analysis.axes
    }
    for use in analysis.uses.values():
        values.setdefault(use.value.name, use.axes)
    inputs = []
    for name, axes in values.items():
        if name in analysis.plain:
            continue
        words = [_fate(analysis, axis, carried, statistic) for axis in axes]
        inputs.append(f"{name}[{', '.join(words)}]")
    return f"{case.name} | {' '.join(inputs)}"


def _fate(analysis: Analysis, axis: Axis, carried: set[int], statistic: set[int]) -> str:
    if axis.size == 1:
        return "1"
    algebra = analysis.algebra
    rows = algebra.live(axis)
    units = set(np.unique(rows).tolist()) - {0}
    words = [
        word
        for word, found in (
            ("carried", units & carried),
            ("contracted", units - carried - statistic),
            ("statistic", units & statistic),
        )
        if found
    ]
    if not units or not (rows > 0).any(axis=1).all():
        texts = sorted({analysis.facts.reasons[r].text for r in algebra.reasons(axis) - {0}})
        words.append(("partly " if units else "") + f"blocked ({'; '.join(texts)})")
    return "+".join(words)
