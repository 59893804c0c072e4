"""Which layer of the pruned model is which of the original."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphprune.axes_kept import Keeps
from graphprune.calibration.evidence import Consumer, Evidence
from graphprune.calibration.gathered import Gathered, linears_of
from graphprune.calibration.linear import Linear
from graphprune.model import Model


def pairs_of(evidence: Evidence, keeps: Keeps, pruned: Model) -> Iterator[tuple[Linear, Consumer]]:
    """Layers of the pruned model in topological order, each with that of the original.

    A tensor keeps its name; an expert of a stack has the place that the experts before it leave.
    """
    known: dict[tuple[str, int], Consumer] = {}
    stays: dict[str, list[int]] = {}
    for consumer in evidence.consumers:
        name, layer = consumer.layer.output.name or "", consumer.layer
        known[name, layer.expert if isinstance(layer, Gathered) else 0] = consumer
        if isinstance(layer, Gathered) and name not in stays:
            kept = keeps.of(consumer.use.axes[0])
            experts = consumer.use.axes[0].size
            stays[name] = (np.arange(experts) if kept is None else np.flatnonzero(kept)).tolist()
    for node in pruned.ir.graph:
        for layer in linears_of(node, evidence.graph.analysis.trace.shapes):
            name = layer.output.name or ""
            place = stays.get(name, [])
            expert = layer.expert if isinstance(layer, Gathered) else 0
            if expert < len(place):
                expert = place[expert]
            if (name, expert) in known:
                yield layer, known[name, expert]
