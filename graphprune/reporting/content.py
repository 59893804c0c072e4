"""What a report shows, as plain data: read from the dependency graph and the result, drawn afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.algebra import Axis
from graphprune.axes_kept import Keeps
from graphprune.calibration.gathered import linears_of
from graphprune.deaths import Deaths
from graphprune.graph import DependencyGraph
from graphprune.groups import is_weight
from graphprune.layers import layer_of
from graphprune.report import GroupSummary, InspectReport, inspect

Removed = npt.NDArray[np.bool_]
#: Recurrent weights are ``[directions, gates * hidden, inputs]``.
_MADE = {"LSTM": 1, "GRU": 1, "RNN": 1}
_MOST_PAIRS = 256


@dataclass(frozen=True)
class Layer:
    """One layer along the depth.

    Attributes:
        name: as the exporter called it.
        op_type: of its node.
        size: width of its output before.
        kept: and after; none of a layer that goes whole.
        group: index of the group that the width belongs to, None for none.
        reason: why it can't shrink, None if it can.
    """

    name: str
    op_type: str
    size: int
    kept: int
    group: int | None
    reason: str | None


@dataclass(frozen=True)
class Structure:
    """The network before and after.

    Attributes:
        layers: in the order in which they are computed.
        groups: as `inspect` lists them, but for those that are set aside.
        kept: units that stay, by group.
        neighbours: per group, those that share a weight with it, with one such weight's name.
        aside: blocked groups that are nothing but the windows of convolutions.
        inspected: the rest of what is known about the original.
    """

    layers: tuple[Layer, ...]
    groups: tuple[GroupSummary, ...]
    kept: tuple[int, ...]
    neighbours: tuple[Mapping[int, str], ...]
    aside: tuple[GroupSummary, ...]
    inspected: InspectReport


def structure(graph: DependencyGraph, removed: Removed) -> Structure:
    """What a cut leaves of a network."""
    living = Deaths(graph.analysis).living(removed)
    inspected = inspect(graph)
    windows = _windows(graph)
    aside: list[GroupSummary] = []
    shown: list[GroupSummary] = []
    kept: list[int] = []
    numbers: dict[int, int] = {}
    for group, summary in zip(graph.groups, inspected.groups, strict=True):
        if not group.prunable and {(m.use, m.axis) for m in group.members} <= windows:
            aside.append(summary)
            continue
        numbers[id(group)] = len(shown)
        shown.append(summary)
        dead = living is not None and not any(graph.uses_by_key[m.use].node in living for m in group.members)
        kept.append(0 if dead else int((~removed[group.units]).sum()))
    layers = tuple(_layers(graph, Keeps(graph.analysis, removed), living, numbers))
    near = _neighbours(graph, numbers)
    return Structure(layers, tuple(shown), tuple(kept), near, tuple(aside), inspected)


def _windows(graph: DependencyGraph) -> set[tuple[str, int]]:
    """Axes of weights that are the height and width of a window."""
    found: set[tuple[str, int]] = set()
    for node in graph.cost.nodes:
        for layer in linears_of(node, graph.analysis.trace.shapes):
            use = graph.analysis.uses.get(layer.place)
            if use is not None and layer.window is not None:
                axes = set(range(len(use.axes))) - {layer.made, layer.contracted}
                found.update((use.key, axis) for axis in axes)
    return found


def _layers(
    graph: DependencyGraph, keeps: Keeps, living: set[ir.Node] | None, numbers: Mapping[int, int]
) -> Iterator[Layer]:
    for node in graph.cost.nodes:
        axis = _width(graph, node)
        if axis is None:
            continue
        groups = [group for group in graph.groups_of(axis) if id(group) in numbers]
        free = [group for group in groups if group.prunable]
        shown = (free or groups)[:1]
        mask = keeps.of(axis)
        kept = axis.size if mask is None else int(mask.sum())
        reason = None if free else next((g.reason for g in groups if g.reason), "no parameter makes it")
        yield Layer(
            name=layer_of(node), op_type=node.op_type, size=axis.size,
            kept=kept if living is None or node in living else 0,
            group=numbers[id(shown[0])] if shown else None, reason=reason,
        )  # fmt: skip


def _width(graph: DependencyGraph, node: ir.Node) -> Axis | None:
    """The axis of its weight that makes a layer's output; None for what multiplies no weight."""
    uses = graph.analysis.uses
    layers = linears_of(node, graph.analysis.trace.shapes)
    if layers:  # experts in one tensor are equally wide
        use = uses.get(layers[0].place)
        return use.axes[layers[0].made] if use is not None and len(use.axes) > layers[0].made else None
    for i in range(len(node.inputs)):
        use = uses.get((node, i))
        if use is not None and len(use.axes) > 1 and is_weight(use):
            return use.axes[_MADE.get(node.op_type, 0 if "Conv" in node.op_type else -1)]
    return None


def _neighbours(graph: DependencyGraph, numbers: Mapping[int, int]) -> tuple[dict[int, str], ...]:
    found: list[dict[int, str]] = [{} for _ in numbers]
    for use in graph.analysis.uses.values():
        if len(use.axes) < 2 or not is_weight(use):
            continue
        held = [
            [numbers[id(group)] for group in graph.groups_of(axis) if id(group) in numbers]
            for axis in use.axes
        ]
        # Units that make one axis together, as heads and their dims do.
        factors = [(ids, ids) for axis, ids in zip(use.axes, held, strict=True) if axis.labels.shape[1] > 1]
        for here, there in (*combinations(held, 2), *factors):
            if len(here) * len(there) > _MOST_PAIRS:
                continue  # one axis of hundreds of groups: a picture of all pairs shows nothing
            for a, b in product(here, there):
                if a != b:
                    found[a].setdefault(b, use.value.name or "")
                    found[b].setdefault(a, use.value.name or "")
    return tuple(found)
