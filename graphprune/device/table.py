"""How long a model takes on a device when units go: measured layers, interpolated between widths.

A layer's time depends on the widths at both its ends, so its table has two axes; between measured widths it
is interpolated. What the other nodes take (additions, norms, softmax) is not measured node by node: it is
what the whole model takes beyond its layers, and goes with the number of elements that they make.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.axis_counts import AxisCounts
from graphprune.cost import Factor, Products
from graphprune.deaths import Deaths
from graphprune.device.layers import Layers
from graphprune.device.pieces import Piece
from graphprune.graph import DependencyGraph

Removed = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.float64]
#: Measured widths per axis, at most: of layers with two axes that can shrink, and with one.
POINTS, POINTS_ALONE = 7, 16
#: Elements that a multiply-add counts for where a node has no table.
_PER_MAC = 1 / 16

#: Times of pieces, however they are come by.
Timer = Callable[[Sequence[Piece]], Mapping[Piece, float]]


@dataclass(frozen=True)
class Part:
    """Where a model's time goes.

    Attributes:
        name: of the layer.
        ms: of the original.
        least_ms: behind the cut.
    """

    name: str
    ms: float
    least_ms: float


class LatencyTable:
    """Estimates the latency of any cut.

    Args:
        graph: of the model.
        layers: of the model.
        most: all units that may go: tables reach so far.
        step: how coarse the widths of an axis are.
        timer: measures pieces.
        dense_ms: measured latency of the original.

    Attributes:
        measured: milliseconds of all pieces, by their keys.
    """

    def __init__(
        self,
        graph: DependencyGraph,
        layers: Layers,
        most: Removed,
        step: Callable[[Any], int],
        timer: Timer,
        dense_ms: float,
    ) -> None:
        self._deaths = Deaths(graph.analysis)
        algebra = graph.analysis.algebra
        self._layers = layers.timed
        products, self._owners = _products(graph, layers)
        whole = graph.analysis.algebra.plain(1)
        axes = [axis for layer in self._layers for axis in layer.axes]
        apart = {
            i: graph.cost.nodes[layer.node][0]
            for i, layer in enumerate(self._layers)
            if not layer.is_tabled and layer.node in graph.cost.nodes
        }
        factors = [f for term in [*products, *apart.values()] for f in term]
        self._counts = AxisCounts(algebra, [whole, *axes, *(f.axis for f in factors)])
        self._products = Products(self._counts, products)
        self._weights = np.array([_PER_MAC if node in graph.cost.nodes else 1.0 for node in self._owners])
        tabled = [layer.axes if layer.is_tabled else () for layer in self._layers]
        index = [[self._counts.index(axis) for axis in axes] for axes in tabled]
        index = [[*found, *[self._counts.index(whole)] * (2 - len(found))] for found in index]
        self._index = np.array(index, np.int64).reshape(len(self._layers), 2)
        none = np.zeros(len(algebra), bool)
        full, least = self._counts.kept(none), self._counts.kept(most)
        self._grids = np.full((len(self._layers), 2, POINTS_ALONE), np.inf)
        for i, layer in enumerate(self._layers):
            for d in range(2):
                place, is_there = self._index[i, d], d < len(tabled[i])
                by = step(layer.axes[d]) if is_there else 1
                most_points = POINTS if len(tabled[i]) > 1 else POINTS_ALONE
                points = grid(int(least[place]), int(full[place]), by, most_points) if is_there else [1]
                self._grids[i, d, : len(points)] = points
        self._times = self._measure(tabled, timer)
        self._apart = _Apart(apart, self._counts, len(self._layers))
        self._other_elements = max(self._elements(none), 1e-9)
        self._layer_ms = float(self.layer_times(none).sum())
        self._dense_ms = dense_ms
        self._none = none

    def _measure(self, tabled: Sequence[Sequence[Any]], timer: Timer) -> Numbers:
        times = np.full((len(self._layers), POINTS_ALONE, POINTS_ALONE), np.nan)
        places: dict[tuple[int, int, int], Piece] = {}
        for i, layer in enumerate(self._layers):
            for a, first in enumerate(self._grids[i, 0]):
                for b, second in enumerate(self._grids[i, 1]):
                    if np.isfinite([first, second]).all():
                        widths = [int(first), int(second)][: len(tabled[i])]
                        # Without a table of its own a layer is measured whole.
                        widths = widths or [axis.size for axis in layer.axes]
                        places[i, a, b] = layer.piece(widths)
        found = timer(list(places.values()))
        self.measured = {piece.key: ms for piece, ms in found.items()}
        for place, piece in places.items():
            times[place] = found[piece]
        # A narrower layer can be run as a wider one, so what takes longer was disturbed.
        for axis in (1, 2):
            reverse = np.flip(np.where(np.isnan(times), np.inf, times), axis)
            times = np.flip(np.minimum.accumulate(reverse, axis=axis), axis)
        return np.where(np.isfinite(times), times, 0.0)

    def layer_times(self, removed: Removed) -> Numbers:
        """``[layers]`` milliseconds of each timed layer behind a cut."""
        kept = self._counts.kept(removed)
        widths = kept[self._index].astype(np.float64)
        low, part = [], []
        for d in range(2):
            grids = self._grids[:, d]
            lengths = np.isfinite(grids).sum(axis=1)
            place = np.clip((grids <= widths[:, d, None]).sum(axis=1) - 1, 0, np.maximum(lengths - 2, 0))
            rows = np.arange(len(grids))
            start = grids[rows, place]
            end = np.where(lengths > 1, grids[rows, np.minimum(place + 1, POINTS_ALONE - 1)], start + 1)
            low.append(place)
            # Beyond the table's ends the line goes on.
            part.append(np.where(lengths > 1, (widths[:, d] - start) / (end - start), 0.0))
        rows = np.arange(len(self._layers))
        total = np.zeros(len(self._layers))
        for a in (0, 1):
            for b in (0, 1):
                weight = (part[0] if a else 1 - part[0]) * (part[1] if b else 1 - part[1])
                first, second = (np.minimum(low[d] + bit, POINTS_ALONE - 1) for d, bit in ((0, a), (1, b)))
                total += np.where(weight == 0, 0.0, weight * self._times[rows, first, second])
        total = np.maximum(total, 0.0) * self._apart.shares(kept)
        living = self._deaths.living(removed)
        if living is not None:
            total *= np.array([layer.node in living for layer in self._layers])
        return np.asarray(total)

    def _elements(self, removed: Removed) -> float:
        found = self._products.products(self._counts.kept(removed)) * self._weights
        living = self._deaths.living(removed)
        if living is not None:
            found = found * np.array([node in living for node in self._owners])
        return float(found.sum())

    @property
    def other_ms(self) -> float:
        """What the original takes beyond its timed layers."""
        return max(self._dense_ms - self._layer_ms, 0.0)

    @property
    def covered(self) -> float:
        """Sum of the layers over the latency of the whole model: near one where the table says it all."""
        return self._layer_ms / self._dense_ms

    def __call__(self, removed: Removed) -> float:
        """Estimated latency as a fraction of the original's."""
        layers = float(self.layer_times(removed).sum())
        other = self.other_ms * self._elements(removed) / self._other_elements
        return (layers + other) / (self._layer_ms + self.other_ms)

    def parts(self, removed: Removed) -> list[Part]:
        """Layers with what they take before and after a cut, the slowest after it first."""
        before, after = self.layer_times(self._none), self.layer_times(removed)
        scale = self._dense_ms / (self._layer_ms + self.other_ms)
        found = [
            Part(layer.name, float(b * scale), float(a * scale))
            for layer, b, a in zip(self._layers, before, after, strict=True)
        ]
        rest = self._elements(removed) / self._other_elements
        found.append(Part("all other nodes", self.other_ms * scale, self.other_ms * scale * rest))
        return sorted(found, key=lambda part: -part.least_ms)


class _Apart:
    """Layers without a table of their own: their time goes with their multiply-adds."""

    def __init__(self, terms: Mapping[int, list[Factor]], counts: AxisCounts, n: int) -> None:
        self._rows, self._n = np.array(list(terms), np.int64), n
        self._products = Products(counts, list(terms.values()))
        self._full = np.maximum(self._products.products(counts.sizes), 1)

    def shares(self, kept: npt.NDArray[np.int64]) -> Numbers:
        """``[layers]`` what is left of each such layer's multiply-adds, 1 for the others."""
        found = np.ones(self._n)
        if len(self._rows):
            found[self._rows] = self._products.products(kept) / self._full
        return found


def _products(graph: DependencyGraph, layers: Layers) -> tuple[list[list[Factor]], list[ir.Node]]:
    """Sizes whose products are what the other nodes work on, and whose they are."""
    products: list[list[Factor]] = []
    owners: list[ir.Node] = []
    for node, factors in layers.others:
        terms = graph.cost.nodes.get(node) or [factors]
        products += terms
        owners += [node] * len(terms)
    return products, owners


def grid(least: int, full: int, step: int, points: int) -> list[int]:
    """Widths to measure: multiples of a step from the least on, evenly spread if there are many, and all.

    Args:
        least: smallest width that can be left.
        full: width of the original.
        step: of the widths that a plan may have.
        points: at most.
    """
    first = max(-(-least // step) * step, 1)
    widths = [*range(first, full, step), full]
    if len(widths) <= points:
        return widths
    places = np.unique(np.rint(np.linspace(0, len(widths) - 1, points)).astype(int))
    return [widths[i] for i in places.tolist()]
