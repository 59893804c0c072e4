"""Layer by layer along the graph: inputs come from the pruned model, targets from the original.

So a layer also makes up for what the layers before it could not (asymmetric reconstruction, Zhang et al.
2015; He et al. 2017).  Where a layer's output is added to something, the target is what the sum should be,
minus what the other operand has become: a residual branch repairs the stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from graphprune.passes.compensators.couples import Couple, couples_of
from graphprune.passes.compensators.joint import Joint
from graphprune.passes.compensators.normal_equations import NormalEquations
from graphprune.passes.compensators.pairs import pairs_of
from graphprune.passes.compensators.parallel import Parallel
from graphprune.passes.compensators.slots import add_bias, bias_slot, read, write

from graphprune.axes_kept import Keeps
from graphprune.calibration.evidence import Evidence
from graphprune.calibration.gathered import Gathered, linears_of
from graphprune.calibration.landing import Landing
from graphprune.calibration.linear import Linear
from graphprune.calibration.moments import MAX_FEATURES, valid_rows
from graphprune.calibration.rows import spread, weights_of
from graphprune.calibration.segments import Segments
from graphprune.model import Model
from graphprune.progress import counted

Removed = npt.NDArray[np.bool_]
#: Rows per feature that a layer is fitted to.
ROWS_PER_FEATURE = 192


@dataclass(frozen=True)
class Aim:
    """What a layer is solved for.

    Attributes:
        layer: of the pruned model.
        landing: of its output, as far as it can be computed already.
        targets: values of the original that add up to what the layer's output and ``landing.others`` should.
    """

    layer: Linear
    landing: Landing
    targets: tuple[ir.Value, ...]

    @property
    def reads(self) -> tuple[ir.Value, ...]:
        """Values of the pruned model."""
        importance = self.landing.importance
        bias = _bias_of(self.layer)
        extra = [v for v in (importance, bias if not _is_known(bias) else None) if v is not None]
        return (*self.layer.reads, *self.landing.others, *extra)


@dataclass(frozen=True)
class Sequential:
    """Re-solves every layer that a cut reaches, in topological order.

    Attributes:
        joint: solve a hidden width's layers together too.
        grows: layers without a bias of their own get one.
    """

    joint: bool = True
    grows: bool = True

    def __call__(self, evidence: Evidence, removed: Removed, pruned: Model) -> Model:
        """New weights for ``pruned``, which is changed and returned."""
        original = evidence.graph.model
        # A weight that several layers share can't wait for any of them.
        Parallel(grows=self.grows, shared_only=True)(evidence, removed, pruned)
        evidence = evidence.with_mixtures()
        keeps = Keeps(evidence.graph.analysis, removed)
        known = {v.name: v for n in original.ir.graph for v in n.outputs}
        old = Segments(original, evidence.batches, evidence.threads)
        new = Segments(pruned, evidence.batches, evidence.threads)
        shapes = evidence.graph.analysis.trace.shapes
        layers = [layer for n in pruned.ir.graph for layer in linears_of(n, shapes)]
        pairs = {(a.output.name, _expert(a)): b.layer for a, b in pairs_of(evidence, keeps, pruned)}
        cut = _cut_layers(evidence, keeps)
        couples = list(couples_of(evidence, pruned)) if self.joint else []
        first_nodes = {p.node for c in couples if c.consumer.output.name in cut for p in c.producers}
        first = next(
            (i for i, x in enumerate(layers) if x.output.name in cut or x.node in first_nodes), len(layers)
        )
        reached = next((i for i, x in enumerate(layers) if x.output.name in cut), len(layers))
        as_before = {layer.node for layer in layers[:reached]}
        ready = {c.producers[-1].node: c for c in couples if c.consumer.node not in as_before}
        open_layers = {layer.node for layer in layers[first:]}
        solved: set[ir.Node] = set()
        for layer in counted(evidence.progress, "re-solving the kept weights", layers[first:]):
            open_layers.discard(layer.node)
            if layer.output.name not in known or len(list(layer.constant.uses())) > 1:
                continue
            is_solved = layer.node in as_before or layer.node in solved
            if is_solved and layer.node not in ready:
                continue
            aim = _aim_of(evidence, layer, new, open_layers, known)
            twin = pairs.get((layer.output.name, _expert(layer)))
            new.advance(aim.reads)
            old.advance([*aim.targets, *(twin.reads if isinstance(twin, Gathered) else ())])
            if not is_solved:
                self._solve(evidence, keeps, pruned, aim, twin, old, new)
            couple = ready.get(layer.node)
            if couple is not None and self._solve_couple(
                evidence, keeps, pruned, couple, old, new, open_layers, known
            ):
                solved.add(couple.consumer.node)
        return pruned

    def _solve_couple(
        self,
        evidence: Evidence,
        keeps: Keeps,
        pruned: Model,
        couple: Couple,
        old: Segments,
        new: Segments,
        open_layers: set[ir.Node],
        known: Mapping[str | None, ir.Value],
    ) -> bool:
        aim = _aim_of(evidence, couple.consumer, new, open_layers, known)
        sources = [layer.source for layer in couple.producers]
        others = [value for value in aim.reads if value is not couple.consumer.source]
        if any(new.pending([side]) & open_layers for side in (*couple.sides, *others)):
            return False
        if not {x.node for x in couple.producers} <= new.pending([x.output for x in couple.producers]):
            return False  # one was an operand of another's sum: what follows has seen it already
        new.advance([*sources, *couple.sides, *others])
        old.advance(aim.targets)

        def wanted(b: int) -> npt.NDArray[np.float32]:
            found = {v.name or "": new.values(v.name or "")[b] for v in others}
            total, inner, outer = _sums(aim, keeps, found, b, old)
            return np.asarray(total - inner - outer)

        return Joint(evidence, pruned, couple, new, self.grows).solve(wanted)

    def _solve(
        self,
        evidence: Evidence,
        keeps: Keeps,
        pruned: Model,
        aim: Aim,
        twin: Linear | None,
        old: Segments,
        new: Segments,
    ) -> None:
        sums = NormalEquations()
        layer, landing = aim.layer, aim.landing
        weight = read(layer.constant)
        matrices = layer.matrices(weight)
        if matrices.shape[1] > MAX_FEATURES:
            return
        slot = bias_slot(layer, landing, grows=self.grows)
        for b in range(len(new)):
            found = {v.name or "": new.values(v.name or "")[b] for v in aim.reads}
            wanted, inner, outer = _sums(aim, keeps, found, b, old)
            weights = weights_of(layer, landing, found, wanted.shape)
            if weights is not None and isinstance(twin, Gathered):
                # A row that another expert takes over has another target.
                tensors = {v.name or "": old.values(v.name or "")[b] for v in twin.reads}
                weights = weights.only(twin.own_rows(tensors, wanted.shape))
            pick, valid = None, valid_rows(evidence.masks[b], wanted.shape, layer)
            if weights is None and valid is None:
                sampler = replace(evidence.sampler, per_feature=ROWS_PER_FEATURE)
                pick = sampler.pick(layer, matrices.shape[1], wanted.shape, b)
            data = spread(layer, found[layer.source.name or ""], wanted.shape)
            rows, aims = layer.rows(data, pick), layer.targets(wanted, pick)
            if rows.shape[1] != aims.shape[1]:
                return  # which rows there are depends on the data, and the two models differ there
            inner, outer = layer.targets(inner, pick), layer.targets(outer, pick)
            if weights is not None:
                rows, aims, inner, outer = (weights.take(x) for x in (rows, aims, inner, outer))
            elif valid is not None:
                rows, aims, inner, outer = (x[:, valid] for x in (rows, aims, inner, outer))
            now = rows @ matrices.astype(np.float32) + inner
            if weights is not None:
                rows, now = weights.scaled(rows), weights.scaled(now)
                aims = aims if landing.gate is not None else weights.scaled(aims)
            sums.add(rows, aims - now - outer, held_out=evidence.held_out[b])
            slot = slot if weights is None else None
        if sums.is_empty:
            return
        change, shift, _ = sums.solve(centred=slot is not None)
        if not np.isfinite(change).all() or not np.isfinite(shift).all():
            return
        write(pruned.ir.graph, *layer.place, layer.updated(weight, matrices + change))
        if slot is not None:
            add_bias(pruned.ir.graph, layer, slot, shift.reshape(-1))


def _cut_layers(evidence: Evidence, keeps: Keeps) -> set[str | None]:
    return {c.layer.output.name for c in evidence.consumers if keeps.of(c.axis) is not None}


def _aim_of(
    evidence: Evidence,
    layer: Linear,
    new: Segments,
    open_layers: set[ir.Node],
    known: Mapping[str | None, ir.Value],
) -> Aim:
    """The landing, without those operands of the sum that wait for layers that are not solved yet."""

    def is_ready(value: ir.Value) -> bool:
        needed = new.pending([value])
        return not needed & open_layers and layer.node not in needed

    landing = evidence.landing(layer.output)
    biases = tuple((n, i) for n, i in landing.biases if n.outputs[0].name in known)
    gate = landing.importance
    gate = gate if gate is not None and is_ready(gate) else None
    end = biases[-1][0].outputs[0] if biases else layer.output
    plain = Aim(layer, Landing(end, biases, importance=gate), (known[end.name],))
    ready = tuple(other for other in landing.others if is_ready(other))
    if not ready or (landing.gate is not None and gate is None):
        return plain
    if ready == landing.others:
        return Aim(layer, landing, (known[landing.value.name],)) if landing.value.name in known else plain
    names = [landing.term.name if landing.term is not None else None, *(other.name for other in ready)]
    if not all(name in known for name in names):
        return plain
    return Aim(layer, replace(landing, others=ready), tuple(known[name] for name in names))


def _sums(
    aim: Aim, keeps: Keeps, found: Mapping[str, npt.NDArray[np.generic]], batch: int, old: Segments
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """What a layer's sum should be, what its biases add to it, and what other operands do."""
    before = [_kept(old.values(v.name or "")[batch], keeps, v) for v in aim.targets]
    wanted = sum(before, np.zeros((), np.float32))
    inner, outer = np.zeros_like(wanted) + _own_bias(aim.layer, found), np.zeros_like(wanted)
    for other in aim.landing.others:
        outer = outer + np.asarray(found[other.name or ""], np.float32)
    for node, index in aim.landing.biases:
        inner = inner + read(node.inputs[index]).astype(np.float32)  # type: ignore[arg-type]
    return wanted, inner, outer


def _expert(layer: Linear) -> int:
    return layer.expert if isinstance(layer, Gathered) else 0


def _kept(array: npt.NDArray[np.generic], keeps: Keeps, value: ir.Value) -> npt.NDArray[np.float32]:
    axes = keeps.analysis.axes.get(value.name or "", [])
    for d, mask in enumerate(keeps.of(axis) for axis in axes):
        if mask is not None and array.shape[d] == len(mask):
            array = np.compress(mask, array, axis=d)
    return np.asarray(array, np.float32)


def _bias_of(layer: Linear) -> ir.Value | None:
    """What the node itself adds."""
    return layer.node.inputs[2] if len(layer.node.inputs) > 2 else None


def _is_known(value: ir.Value | None) -> bool:
    return value is None or value.const_value is not None


def _own_bias(layer: Linear, found: Mapping[str, npt.NDArray[np.generic]]) -> npt.NDArray[np.float32]:
    """What the node itself adds, in a form that its output takes."""
    value = _bias_of(layer)
    if value is None:
        return np.zeros((), np.float32)
    bias = np.asarray(read(value) if _is_known(value) else found[value.name or ""], np.float32)
    return bias if layer.window is None else bias.reshape(-1, *(1 for _ in layer.window.kernel))
