"""Layer by layer along the graph: each layer's inputs come from the pruned model, its targets from the original.

So a layer also makes up for what the layers before it could not (asymmetric reconstruction, Zhang et al. 2015;
He et al. 2017).  Where a layer's output is added to something, the target is what the sum should be, minus
what the other operand has become: a residual branch repairs the stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.axes_kept import Keep, Keeps
from graphprune.calibration.evidence import Evidence
from graphprune.calibration.landing import Landing, landing_of
from graphprune.calibration.linear import Linear, linear_of
from graphprune.calibration.moments import valid_rows
from graphprune.calibration.segments import Segments
from graphprune.model import Model
from graphprune.passes.compensators.normal_equations import NormalEquations
from graphprune.passes.compensators.slots import add_bias, bias_slot, read, write

Removed = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Sequential:
    """Re-solves every layer that a cut reaches, in topological order."""

    def __call__(self, evidence: Evidence, removed: Removed, pruned: Model) -> Model:
        """New weights for ``pruned``, which is changed and returned."""
        original = evidence.graph.model
        keeps = Keeps(evidence.graph.analysis, removed)
        known = {v.name: v for n in original.ir.graph for v in n.outputs}
        old = Segments(original, evidence.batches, evidence.threads)
        new = Segments(pruned, evidence.batches, evidence.threads)
        layers = [layer for n in pruned.ir.graph if (layer := linear_of(n)) is not None]
        cut = _cut_layers(evidence, keeps)
        first = next((i for i, layer in enumerate(layers) if layer.output.name in cut), len(layers))
        open_layers = {layer.node for layer in layers[first:]}
        for i, layer in enumerate(layers[first:]):
            evidence.progress("re-solving the kept weights", i, len(layers) - first)
            open_layers.discard(layer.node)
            if layer.output.name not in known:
                continue
            landing = _reachable(layer, new, open_layers, known)
            target = known[landing.value.name]
            new.advance([layer.source, *([landing.other] if landing.other is not None else [])])
            old.advance([target])
            self._solve(evidence, keeps, pruned, layer, landing, old, new)
        return pruned

    def _solve(
        self,
        evidence: Evidence,
        keeps: Keeps,
        pruned: Model,
        layer: Linear,
        landing: Landing,
        old: Segments,
        new: Segments,
    ) -> None:
        sums = NormalEquations()
        weight = read(layer.constant)
        matrices = layer.matrices(weight)
        features = matrices.shape[1]
        slot = bias_slot(layer, landing)
        others = new.values(landing.other.name or "") if landing.other is not None else None
        name = landing.value.name or ""
        axes = keeps.analysis.axes.get(name)
        keep = tuple(keeps.of(a) for a in axes) if axes is not None else ()
        own = _own_bias(layer)
        for b, (data, target) in enumerate(
            zip(new.values(layer.source.name or ""), old.values(name), strict=True)
        ):
            wanted = _kept(target, keep)
            pick = evidence.sampler.pick(layer, features, wanted.shape, b)
            base = np.zeros_like(wanted)
            if others is not None:
                base = base + others[b]
            for node, index in landing.biases:
                base = base + read(node.inputs[index]).astype(np.float32)  # type: ignore[arg-type]
            rows, aims, bases = layer.rows(data, pick), layer.targets(wanted, pick), layer.targets(base, pick)
            valid = valid_rows(evidence.masks[b], wanted.shape, layer) if pick is None else None
            if valid is not None:
                rows, aims, bases = rows[:, valid], aims[:, valid], bases[:, valid]
            now = rows @ matrices.astype(np.float32) + own + bases
            sums.add(rows, aims - now)
        change, shift, _ = sums.solve(centred=slot is not None)
        if not np.isfinite(change).all() or not np.isfinite(shift).all():
            return
        write(pruned.ir.graph, layer.node, layer.weight, layer.weights(matrices + change, weight.shape))
        if slot is not None:
            add_bias(pruned.ir.graph, layer, slot, shift.reshape(-1))


def _cut_layers(evidence: Evidence, keeps: Keeps) -> set[str | None]:
    return {c.layer.output.name for c in evidence.consumers if keeps.of(c.axis) is not None}


def _reachable(
    layer: Linear, new: Segments, open_layers: set[ir.Node], known: Mapping[str | None, ir.Value]
) -> Landing:
    """The landing, without the sum if its other operand needs a layer that is not solved yet."""
    landing = landing_of(layer.output)
    biases = tuple((n, i) for n, i in landing.biases if n.outputs[0].name in known)
    plain = Landing(biases[-1][0].outputs[0] if biases else layer.output, biases)
    if landing.other is None or landing.value.name not in known:
        return plain
    needed = new.pending([landing.other])
    return plain if needed & open_layers or layer.node in needed else landing


def _kept(array: npt.NDArray[np.generic], keep: Keep) -> npt.NDArray[np.float32]:
    for d, mask in enumerate(keep):
        if mask is not None and array.shape[d] == len(mask):
            array = np.compress(mask, array, axis=d)
    return np.asarray(array, np.float32)


def _own_bias(layer: Linear) -> npt.NDArray[np.float32]:
    """``[groups, 1, o]``: what the node itself adds."""
    if len(layer.node.inputs) < 3 or layer.node.inputs[2] is None:
        return np.zeros((1, 1, 1), np.float32)
    bias = read(layer.node.inputs[2]).astype(np.float32)
    return bias.reshape(layer.groups, 1, -1) if bias.size > 1 else bias.reshape(1, 1, 1)
