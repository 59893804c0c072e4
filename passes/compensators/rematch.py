"""Normalisation statistics re-matched: every channel gets the mean and the variance back that it had.

Behind a cut, channels have another mean and another variance, and errors of single layers add up along the
graph.  Node by node, on the samples, a BatchNormalization learns the statistics of what it reads now, and a
layer with a bias (into which a BatchNormalization may have been folded) gets its outputs scaled and shifted.
The weights of single inputs are not touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from graphprune.passes.compensators.pairs import pairs_of
from graphprune.passes.compensators.statistics_places import LayerPlace, NormPlace, Place, layer_place

from graphprune.axes_kept import Keeps
from graphprune.calibration.batch_norms import ChannelSums, Statistics, norm_of
from graphprune.calibration.evidence import Evidence
from graphprune.calibration.gathered import Gathered
from graphprune.calibration.linear import Linear
from graphprune.calibration.moments import valid_rows
from graphprune.calibration.rows import is_weighted
from graphprune.calibration.segments import Segments
from graphprune.model import Model
from graphprune.progress import counted

Removed = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rematch:
    """Sets the first two moments of every channel to the original's, in topological order.

    Attributes:
        grows: the model may get biases.
        copies: norms that share their statistics may get their own.
    """

    grows: bool = True
    copies: bool = True

    def __call__(self, evidence: Evidence, removed: Removed, pruned: Model) -> Model:
        """New statistics and scales for ``pruned``, which is changed and returned."""
        keeps = Keeps(evidence.graph.analysis, removed)
        known = {v.name: v for n in evidence.graph.model.ir.graph for v in n.outputs}
        known |= {v.name: v for v in evidence.graph.model.ir.graph.inputs}
        layers = {
            layer.node: layer
            for layer, consumer in pairs_of(evidence, keeps, pruned)
            if not isinstance(layer, Gathered) and not is_weighted(layer, consumer.landing)
        }
        old = Segments(evidence.graph.model, evidence.batches, evidence.threads)
        new = Segments(pruned, evidence.batches, evidence.threads)
        nodes = list(pruned.ir.graph)
        for node in counted(evidence.progress, "re-matching statistics", nodes):
            place = self._place(evidence, layers, node)
            if place is None or place.value.name not in known:
                continue
            twin = known[place.value.name]
            new.advance(place.reads)
            old.advance([twin])
            # Not by running the node, whose weights are about to change.
            now = _statistics(evidence, place, new.probe(place.value))
            before = _statistics(evidence, place, old.values(twin.name or ""))
            if now is None or before is None:
                continue
            mask = _kept(keeps, twin, place.axis)
            if mask is not None and len(mask) == len(before.mean):
                before = before.take(mask)
            if before.mean.shape == now.mean.shape:
                place.match(pruned.ir.graph, before, now)
        return pruned

    def _place(self, evidence: Evidence, layers: Mapping[ir.Node, Linear], node: ir.Node) -> Place | None:
        norm = norm_of(node)
        if norm is not None:
            return NormPlace(norm) if self.copies or norm.has_own_statistics else None
        layer = layers.get(node)
        if layer is None:
            return None
        return layer_place(layer, evidence.landing(layer.output), grows=self.grows)


def _statistics(
    evidence: Evidence, place: Place, batches: Iterable[npt.NDArray[np.generic]]
) -> Statistics | None:
    sums = ChannelSums()
    for b, array in enumerate(batches):
        if evidence.held_out[b]:
            continue
        layer = place.layer if isinstance(place, LayerPlace) else None
        valid = valid_rows(evidence.masks[b], array.shape, layer) if layer is not None else None
        sums.add(array, place.axis, valid)
    return sums.statistics


def _kept(keeps: Keeps, value: ir.Value, axis: int) -> npt.NDArray[np.bool_] | None:
    axes = keeps.analysis.axes.get(value.name or "", [])
    return keeps.of(axes[axis]) if -len(axes) <= axis < len(axes) else None
