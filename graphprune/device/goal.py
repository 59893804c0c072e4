"""A latency target: the original measured, cuts estimated by a table, and found cuts measured again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graphprune.device.layers import find_layers
from graphprune.device.pieces import Piece
from graphprune.device.protocol import Device, Job
from graphprune.device.sizes import axes_of, batch_in, sizes_of
from graphprune.device.store import known_times
from graphprune.device.table import LatencyTable, Part
from graphprune.errors import TargetError
from graphprune.graph import DependencyGraph
from graphprune.groups import Group
from graphprune.passes.allocators.limits import Limits
from graphprune.progress import Progress
from graphprune.rewrite import cut
from graphprune.shapes.trace import trace

Removed = npt.NDArray[np.bool_]
#: A cut that meets all targets, the latency's among them as a fraction by the table.
Solve = Callable[[float], Removed]

#: Times that the table is corrected.
_ROUNDS = 8
#: A measured latency this close to the target meets it; the machine does not repeat itself better.
TOLERANCE = 0.015
_SECONDS = 4.0
#: Aims closer than this lead to the same cut.
_SLACK = 2e-3
#: Corrections change the table's budget by no more than this factor at a time.
_LARGEST_STEP = 2.0
#: Estimates have to differ by this part of them before a line is drawn through two measurements.
_APART = 0.02
#: Cuts that are too slow before the largest one is asked whether the target can be met at all.
_PATIENCE = 4


@dataclass(frozen=True)
class Round:
    """One cut that was measured.

    Attributes:
        aim: fraction of the latency that the table was asked for.
        estimated: what the table says of the cut.
        measured: what the machine says.
    """

    aim: float
    estimated: float
    measured: float


class LatencyGoal:
    """What a plan for a latency has to know about a machine.

    Args:
        graph: of the model.
        device: the machine.
        batch: size of symbolic first axes.
        progress: is told how far which stage is.
    """

    def __init__(self, graph: DependencyGraph, device: Device, batch: int, progress: Progress) -> None:
        self._graph, self._device, self._progress = graph, device, progress
        self._sizes, self._batch = sizes_of(graph, batch), batch_in(graph, batch)
        self._axes = axes_of(graph, batch)
        self._known: dict[bytes, float] = {}
        self.rounds: list[Round] = []
        self._table: LatencyTable | None = None

    def _original(self, folder: str) -> Job:
        """The original as the user's file, or written into a folder."""
        path = self._graph.model.path
        if path is None:
            path = Path(folder) / "original.onnx"
            self._graph.model.save(path, durable=False)
        return replace(self._job(path), comes_again=True)

    def _job(self, path: Path) -> Job:
        return Job(path, self._batch, self._axes)

    @cached_property
    def dense_ms(self) -> float:
        """Median latency of the original."""
        self._progress("measuring the original", 0, 1)
        with tempfile.TemporaryDirectory(prefix="graphprune-") as folder:
            found = self._device.measure([self._original(folder)], seconds=_SECONDS)[0]
        self._progress("measuring the original", 1, 1)
        return float(np.median(found.milliseconds))

    def table(self, groups: list[Group], limits: Limits) -> LatencyTable:
        """The table for cuts of these groups within these limits."""
        graph = self._graph
        may_go = np.zeros(len(graph.analysis.algebra), bool)
        most = may_go.copy()
        for group in groups:
            may_go[group.units] = True
            most[group.units[limits.kept(group, 0) :]] = True
        steps = {group.id: limits.step(group) for group in groups}

        def step(axis: Any) -> int:
            return max((steps.get(group.id, 1) for group in graph.groups_of(axis)), default=1)

        def timer(pieces: Sequence[Piece]) -> Mapping[Piece, float]:
            return known_times(
                self._device, pieces, lambda done, of: self._progress("timing layers", done, of)
            )

        shapes = graph.analysis.trace.nominal
        if self._sizes != dict(graph.analysis.trace.nominal_dims):
            shapes = trace(graph.model, self._sizes, only_nominal=True).nominal
        layers = find_layers(graph, shapes, may_go)
        self._table = LatencyTable(graph, layers, most, step, timer, self.dense_ms)
        return self._table

    def measure(self, removed: Removed) -> float:
        """Latency of a cut as a fraction of the original's, measured in alternation with it."""
        key = np.packbits(removed).tobytes()
        if key not in self._known:
            with tempfile.TemporaryDirectory(prefix="graphprune-") as folder:
                path = Path(folder) / "cut.onnx"
                cut(self._graph.analysis, removed).save(path, durable=False)
                jobs = [self._original(folder), self._job(path)]
                before, after = self._device.measure(jobs, seconds=_SECONDS)
            pairs = np.array(after.medians) / np.array(before.medians)
            self._known[key] = float(np.median(pairs))
        return self._known[key]

    def meet(self, wanted: float, solve: Solve, most: Removed) -> Removed:
        """The cut whose measured latency is nearest below what is wanted.

        The table is asked for a fraction, the cut that comes of it is measured, and the ratio of the two, or
        the line through two such cuts, corrects the next question; aims that were too slow and fast enough
        close in on each other.

        Args:
            wanted: fraction of the original's latency.
            solve: finds the best cut for a fraction by the table.
            most: the largest cut.

        Raises:
            TargetError: no cut is so fast; says where the time goes that can't be cut.
        """
        table = self._table
        assert table is not None
        low, high = 0.0, 1.0  # aims that were fast enough, and that were not
        least = table(most) * (1 + _SLACK)
        aim = max(wanted, least)
        points: list[tuple[float, float]] = []
        best: tuple[float, Removed] | None = None
        for number in range(_ROUNDS):
            self._progress("measuring cuts", number, _ROUNDS)
            try:
                found = solve(aim)
            except TargetError:
                if not self.rounds:  # another target's fault, or the recipe's
                    raise
                break
            measured, estimated = self.measure(found), table(found)
            self.rounds.append(Round(round(aim, 4), round(estimated, 4), round(measured, 4)))
            is_met = measured <= wanted * (1 + TOLERANCE)
            if is_met and (best is None or measured > best[0]):
                best = measured, found
            if is_met and measured >= wanted * (1 - TOLERANCE):
                break
            low, high = (max(low, aim), high) if is_met else (low, min(high, aim))
            points.append((estimated, measured))
            corrected = _corrected(points, wanted)
            if best is None and len(points) >= _PATIENCE:
                corrected = least
            if not low < corrected < high:
                corrected = (low + high) / 2
            if corrected < least and aim <= least:
                break
            corrected = max(corrected, least)
            if abs(corrected - aim) < _SLACK * aim:
                break
            aim = corrected
        self._progress("measuring cuts", _ROUNDS, _ROUNDS)
        if best is None:
            raise self._out_of_reach(wanted, most)
        return best[1]

    def _out_of_reach(self, wanted: float, most: Removed) -> TargetError:
        assert self._table is not None
        table, dense = self._table, self.dense_ms
        stays = self.measure(most)
        reached = min(stays, *(r.measured for r in self.rounds))
        # The table explains what stays; what it can't explain is there at any width.
        explained = max(table(most), 1e-9)
        shrink = min(stays / explained, 1.0)
        parts = [Part(p.name, p.ms, p.least_ms * shrink) for p in table.parts(most)]
        parts.append(Part("what no layer's table explains", dense, dense * (stays - explained * shrink)))
        parts = sorted((p for p in parts if p.least_ms > 1e-9 * dense), key=lambda p: -p.least_ms)
        shown = ", ".join(f"{part.name} {part.least_ms:.3g} ms" for part in parts[:4])
        blocked = [g for g in self._graph.groups if not g.prunable]
        reasons = list(dict.fromkeys(g.reason or "" for g in sorted(blocked, key=lambda g: -g.size)))[:2]
        message = f"cannot reach latency={wanted:.1%} ({wanted * dense:.3g} of {dense:.3g} ms)"
        return TargetError(
            message,
            where=f"the fastest cut that was measured takes {reached:.1%} of the original's time",
            because=f"{stays:.0%} of the time stays when all goes that may: {shown}"
            + (f"; blocked: {'; '.join(reasons)}" if reasons else ""),
            hint="a larger target, a --floor below 0.1, or --kinds with 'blocks' among them",
        )

    def notes(self) -> dict[str, Any]:
        """What the plan records."""
        return {
            "identity": self._device.identity.to_json(),
            "batch": self._batch,
            "sizes": dict(self._sizes),
            "original_ms": round(self.dense_ms, 4),
            "table_covers": round(self._table.covered, 4) if self._table is not None else None,
            "rounds": [asdict(entry) for entry in self.rounds],
        }


def _corrected(points: Sequence[tuple[float, float]], wanted: float) -> float:
    """What to ask the table for, after cuts whose ``(estimated, measured)`` fractions are known.

    With one cut, the table is wrong by a factor.  With two, what every run takes besides is told apart: the
    line through the last and, if it is there, the nearest one on the other side of the target.
    """
    estimated, measured = points[-1]
    factor = float(np.clip(wanted / measured, 1 / _LARGEST_STEP, _LARGEST_STEP))
    # Of cuts that are nearly the same, noise makes the slope.
    others = [p for p in points[:-1] if abs(p[0] - estimated) > _APART * estimated]
    others = [p for p in others if (p[1] - measured) * (p[0] - estimated) > 0]
    if not others:
        return estimated * factor
    across = [p for p in others if (p[1] > wanted) != (measured > wanted)]
    e, m = min(across, key=lambda p: abs(p[1] - wanted)) if across else others[-1]
    return estimated + (wanted - measured) * (e - estimated) / (m - measured)
