"""The models of a sweep, what each costs and how well it does, and which are worth having."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from graphprune.graph import DependencyGraph
from graphprune.pruning import PruneResult
from graphprune.quality import Quality
from graphprune.report import SCHEMA_VERSION

#: What a model may cost, in the order in which it is shown.
COSTS = ("latency_ms", "macs", "bytes")


@dataclass(frozen=True)
class Point:
    """One model of the family, or the original.

    Attributes:
        name: the target as it was given; "original".
        output: the file.
        macs: multiply-adds.
        params: parameters.
        bytes: of the file.
        kept: these as fractions of the original.
        latency_ms: median, measured in alternation with all others; None if not measured.
        latency_ratio: over the original's, by rounds of the alternation.
        quality: on the data, or on the calibration's held-out samples.
        plan_sha256: of the plan; None for the original.
        best_for: costs ("latency_ms", "macs", "bytes") of which no model of the family has less at the same
            quality or a better one.
    """

    name: str
    output: str
    macs: int
    params: int
    bytes: int
    kept: Mapping[str, float]
    latency_ms: float | None
    latency_ratio: float | None
    quality: Quality
    plan_sha256: str | None
    best_for: tuple[str, ...] = ()


@dataclass(frozen=True)
class SweepResult:
    """What :func:`sweep` did.

    Attributes:
        metric: what the targets are about.
        points: the original, then the models, as the targets were given.
        results: of each pruned model, in the same order.
        unreached: target -> why it can't be reached.
        graph: the dependency graph of the original.
        judged_on: what the quality was measured on, in words.
        source_sha256: hash of the original.
        not_measured: why latency could not be measured, if it could not.
    """

    metric: str
    points: tuple[Point, ...]
    results: tuple[PruneResult, ...]
    unreached: Mapping[str, str]
    graph: DependencyGraph
    judged_on: str
    source_sha256: str
    not_measured: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The result as a document with ``schema_version``."""
        return {
            "schema_version": SCHEMA_VERSION,
            "metric": self.metric,
            "points": [asdict(point) for point in self.points],
            "unreached": dict(self.unreached),
            "judged_on": self.judged_on,
            "not_measured": self.not_measured,
            "model_sha256": self.source_sha256,
        }


def goodness(quality: Quality) -> float | None:
    """The best that is known of it, more is better: accuracy, else the distance to the original's outputs."""
    if quality.accuracy is not None:
        return quality.accuracy
    return None if quality.error is None else -quality.error


def best(points: Sequence[Point]) -> tuple[Point, ...]:
    """The points, each with the costs for which it lies on the Pareto front."""
    return tuple(
        replace(point, best_for=tuple(cost for cost in COSTS if _is_on_front(point, points, cost)))
        for point in points
    )


def _is_on_front(point: Point, points: Sequence[Point], cost: str) -> bool:
    mine, good = getattr(point, cost), goodness(point.quality)
    if mine is None or good is None:
        return False
    for other in points:
        theirs, better = getattr(other, cost), goodness(other.quality)
        if theirs is None or better is None:
            continue
        if theirs <= mine and better >= good and (theirs < mine or better > good):
            return False
    return True
