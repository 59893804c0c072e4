"""Room for what compensators add to a model, so that targets of parameters and bytes are met by the result.

A Conv or Gemm without a bias gets one, and layers that share a bias get one each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from graphprune.passes.compensators.slots import bias_slot

from graphprune.algebra import Axis
from graphprune.calibration.gathered import linears_of
from graphprune.calibration.landing import landing_of
from graphprune.calibration.linear import Linear
from graphprune.calibration.moments import MAX_FEATURES
from graphprune.calibration.rows import is_weighted
from graphprune.cost import CostModel, Vector
from graphprune.graph import DependencyGraph
from graphprune.model import Model

Removed = npt.NDArray[np.bool_]
#: Bytes of a small constant in a file beside its numbers and the two places where its name stands.
_HEAD = 48


class Room:
    """The cost of a cut with all biases that a compensator may add.

    Args:
        graph: of the model.
    """

    def __init__(self, graph: DependencyGraph) -> None:
        self._graph = graph

    @cached_property
    def cost(self) -> CostModel:
        """Of the cut model with all of them: no result of a compensator costs more."""
        vectors = list(_biases(self._graph))
        if not vectors:
            return self._graph.cost
        heads = sum(vector.head_bytes for vector in vectors)
        return CostModel(self._graph.analysis, self._graph.cost.evaluate().bytes + heads, vectors)

    def extra_bytes(self, removed: Removed) -> int:
        """Bytes by which a compensator makes the file of a cut longer, at most."""
        return self.cost.evaluate(removed).bytes - self._graph.cost.evaluate(removed).bytes

    def is_there(self, removed: Removed, pruned: Model, targets: Mapping[str, float]) -> bool:
        """Does the cut meet those targets with the biases too that it meets without them?

        Args:
            removed: the removed units.
            pruned: the cut model.
            targets: metric -> fraction of the original that may be kept.
        """
        dense = self._graph.cost.evaluate()
        plain, full = (cost.evaluate(removed).ratio(dense) for cost in (self._graph.cost, self.cost))
        if "bytes" in targets:
            size = pruned.file_bytes
            plain["bytes"] = size / max(dense.bytes, 1)
            full["bytes"] = (size + self.extra_bytes(removed)) / max(dense.bytes, 1)
        counted = {metric: limit for metric, limit in targets.items() if metric in plain}  # no latency
        return all(full[metric] <= limit or plain[metric] > limit for metric, limit in counted.items())


def _biases(graph: DependencyGraph) -> Iterator[Vector]:
    analysis, reached = graph.analysis, False
    shapes = analysis.trace.shapes
    for node in graph.model.ir.graph:
        for layer in linears_of(node, shapes):
            use = analysis.uses.get(layer.place)
            # Nothing is re-solved before the first layer that can lose inputs.
            reached = reached or (use is not None and _may_lose(graph, use.axes[layer.contracted]))
            if not reached:
                continue
            landing = landing_of(layer.output, shapes)
            if layer.features > MAX_FEATURES or is_weighted(layer, landing):
                continue
            slot = bias_slot(layer, landing)
            tensor = layer.constant.const_value
            if slot is None or not slot.adds or tensor is None:
                continue
            size = int(tensor.shape.numpy()[layer.made])
            axis = use.axes[layer.made] if use is not None else analysis.algebra.plain(size)
            yield Vector(axis, node, tensor.nbytes / max(tensor.size, 1), _head(layer, slot.node, slot.index))


def _may_lose(graph: DependencyGraph, axis: Axis) -> bool:
    return any(group.prunable for group in graph.groups_of(axis))


def _head(layer: Linear, node: ir.Node, index: int) -> int:
    old = node.inputs[index] if index < len(node.inputs) else None
    name = (layer.constant if old is None else old).name or ""
    return _HEAD + 2 * len(name.encode())
