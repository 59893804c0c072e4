"""Solves the layers of a couple together, inside the walk along the graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
from graphprune.passes.compensators.couples import Couple
from graphprune.passes.compensators.gauss_newton import Fit, Patches, Weights
from graphprune.passes.compensators.hidden import Hidden
from graphprune.passes.compensators.patches import patches
from graphprune.passes.compensators.slots import Slot, add_bias, bias_slot, read, write

from graphprune.calibration.evidence import Evidence
from graphprune.calibration.linear import Linear
from graphprune.calibration.moments import valid_rows
from graphprune.calibration.segments import Segments
from graphprune.model import Model

Array = npt.NDArray[np.float32]
Matrices = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
#: What the consumer's output should be, for a batch, without what its bias adds already.
Wanted = Callable[[int], Array]
#: Outputs per feature that are looked at.
ROWS_PER_FEATURE = 192
#: Of what producers read and make, and of the windows of it, at most.
BYTES = 1 << 28
#: Wider hidden tensors cost more than they are worth.
MAX_HIDDEN = 4096
#: Errors on rows that were held out have to fall by this part, or nothing is changed.
_WORTH_IT = 0.01


@dataclass(frozen=True)
class Joint:
    """One couple of a pruned model.

    Attributes:
        evidence: samples.
        pruned: the model.
        couple: one of its couples; its producers were solved for themselves.
        new: the pruned model on its way; what the producers read is known.
        grows: the consumer gets a bias if it has none.
    """

    evidence: Evidence
    pruned: Model
    couple: Couple
    new: Segments
    grows: bool = True

    def solve(self, wanted: Wanted) -> bool:
        """Changes the weights of the couple if rows that were held out say that it helps; did it?"""
        couple, consumer = self.couple, self.couple.consumer
        landing = self.evidence.landing
        slots = [bias_slot(layer, landing(layer.output), grows=False) for layer in couple.producers]
        slot = bias_slot(consumer, landing(consumer.output), grows=self.grows)
        if any(s is None and _has_bias(layer) for s, layer in zip(slots, couple.producers, strict=True)):
            return False
        weights = [read(layer.constant) for layer in couple.producers]
        matrices = [layer.matrices(w) for layer, w in zip(couple.producers, weights, strict=True)]
        last = read(consumer.constant)
        reading = consumer.matrices(last)
        if max(m.shape[1] for m in (*matrices, reading)) > MAX_HIDDEN:
            return False
        biases = [_bias(s, layer, m) for s, layer, m in zip(slots, couple.producers, matrices, strict=True)]
        made = [_with_bias(m, b) for m, b in zip(matrices, biases, strict=True)]
        taps = prod(consumer.window.kernel) if consumer.window is not None else 1
        rows = self._rows(wanted, [s is not None for s in slots], taps, made, reading)
        if rows is None:
            return False
        rank = np.ndim(self.new.values(couple.producers[0].source.name or "")[0])
        hidden = Hidden(self.pruned, couple, max(rank, 2), self.evidence.threads)
        start = Weights(made, _by_window(reading, taps), np.zeros(rows[0].wanted.shape[1], np.float32))
        fit = Fit(hidden, *rows, start, centred=slot is not None)
        alone, together = fit.run()
        if not together < (1.0 - _WORTH_IT) * alone:
            return False
        graph, found = self.pruned.ir.graph, fit.weights
        for layer, weight, own, bias, new in zip(
            couple.producers, weights, slots, biases, found.made, strict=True
        ):
            if own is not None and bias is not None:
                add_bias(graph, layer, own, new[:, -1].reshape(-1) - bias.reshape(-1))
                new = new[:, :-1]
            write(graph, *layer.place, layer.updated(weight, new.astype(np.float64)))
        write(graph, *consumer.place, consumer.updated(last, _by_channel(found.read, taps)))
        if slot is not None:
            add_bias(graph, consumer, slot, found.shift)
        return True

    def _rows(
        self, wanted: Wanted, biased: Sequence[bool], taps: int, made: Sequence[Array], reading: Matrices
    ) -> tuple[Patches, Patches] | None:
        """Patches to fit and to judge by."""
        rng = np.random.default_rng([self.evidence.seed, *(self.couple.consumer.output.name or "").encode()])
        overlap = 1 if taps == 1 else 2
        hidden = len(reading) * reading.shape[1]  # values in all windows of an output
        inputs = sum(m.shape[0] * m.shape[1] for m in made)
        # Outputs, what is wanted of them, what is missing, and a trial.
        outputs = 4 * len(reading) * reading.shape[2]
        per_output = 4 * (overlap * (inputs + 2 * hidden // taps) + hidden + outputs)
        many = ROWS_PER_FEATURE * max(*(m.shape[1] for m in made), reading.shape[1])
        many = min(many, BYTES // per_output)
        # Where positions were folded into the first axis, it is longer than the samples are many.
        samples = sum(len(array) for array in self.new.values(self.couple.producers[0].source.name or ""))
        parts: dict[bool, list[Patches]] = {False: [], True: []}
        for b in range(len(self.new)):
            found = self._batch(b, wanted(b), biased, (many, samples), rng)
            if found is None:
                return None
            if _is_finite(found):  # a run that overflows says nothing
                parts[self.evidence.held_out[b]].append(found)
        if not all(any(len(part.wanted) for part in parts[is_held]) for is_held in (False, True)):
            return None
        return _joined(parts[False]), _joined(parts[True])

    def _batch(
        self, b: int, wanted: Array, biased: Sequence[bool], of: tuple[int, int], rng: np.random.Generator
    ) -> Patches | None:
        """Some outputs of one batch: so many of so many samples in all."""
        couple, consumer = self.couple, self.couple.consumer
        sources = [self.new.values(layer.source.name or "")[b] for layer in couple.producers]
        sample, position = patches(consumer, wanted.shape, *of, rng)
        valid = valid_rows(self.evidence.masks[b], wanted.shape, consumer)
        if valid is not None:
            chosen = valid[sample * consumer.positions(wanted.shape) + position]
            sample, position = sample[chosen], position[chosen]
        aims = consumer.at(wanted, sample, position)
        if consumer.window is None:
            places, reads = np.stack([sample, position]), np.arange(len(sample))[:, None]
        else:
            sizes = _hidden_sizes(couple.producers[0], sources[0])
            if consumer.window.out_sizes(sizes) != wanted.shape[2:]:
                return None
            there = prod(sizes)
            taken = consumer.window.sources(position, sizes)
            flat = np.where(taken < 0, -1, sample[:, None] * there + taken)
            if flat.shape[1] == 1:
                if (flat < 0).any():
                    return None
                unique, reads = flat[:, 0], np.arange(len(flat))[:, None]
            else:
                unique, reads = np.unique(flat, return_inverse=True)
                reads = reads.reshape(flat.shape)
                if len(unique) and unique[0] < 0:
                    unique, reads = unique[1:], np.where(reads == 0, len(unique) - 1, reads - 1)
            places = np.stack(np.divmod(unique, there))
        inputs = []
        for layer, source, has_bias in zip(couple.producers, sources, biased, strict=True):
            rows = layer.rows_at(source, places[0], places[1])
            ones = np.ones((*rows.shape[:2], 1), np.float32)
            inputs.append(np.concatenate([rows, ones], axis=2) if has_bias else rows)
        sides = [
            consumer.at(self.new.values(side.name or "")[b], places[0], places[1]) for side in couple.sides
        ]
        return Patches(tuple(inputs), tuple(sides), reads.astype(np.int64), aims)


def _joined(parts: Sequence[Patches]) -> Patches:
    """The rows of all batches; padding stays behind the last row."""
    counts = [part.inputs[0].shape[1] for part in parts]
    total, before, reads = sum(counts), 0, []
    for part, count in zip(parts, counts, strict=True):
        reads.append(np.where(part.reads == count, total, part.reads + before))
        before += count
    inputs = (np.concatenate(arrays, axis=1) for arrays in zip(*(p.inputs for p in parts), strict=True))
    sides = (np.concatenate(arrays) for arrays in zip(*(p.sides for p in parts), strict=True))
    wanted = np.concatenate([part.wanted for part in parts])
    return Patches(tuple(inputs), tuple(sides), np.concatenate(reads), wanted)


def _is_finite(rows: Patches) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        return all(np.isfinite(np.vdot(a, a)) for a in (*rows.inputs, *rows.sides, rows.wanted))


def _hidden_sizes(layer: Linear, source: npt.NDArray[np.generic]) -> tuple[int, ...]:
    """Sizes behind the channels of what a convolution, or a weight on the left, makes."""
    sizes = source.shape[2:]
    return sizes if layer.window is None else layer.window.out_sizes(sizes)


def _has_bias(layer: Linear) -> bool:
    return len(layer.node.inputs) > 2 and layer.node.inputs[2] is not None


def _bias(slot: Slot | None, layer: Linear, matrices: npt.NDArray[np.float64]) -> Array | None:
    """What the layer itself adds, ``[groups, 1, o]``; None if no bias can change."""
    if slot is None:
        return None
    groups, _, per_group = matrices.shape
    own = np.zeros(groups * per_group)
    if _has_bias(layer):
        own = own + read(layer.node.inputs[2]).reshape(-1)  # type: ignore[arg-type]
    return own.reshape(groups, 1, per_group).astype(np.float32)


def _with_bias(matrices: npt.NDArray[np.float64], bias: Array | None) -> Array:
    parts = [matrices.astype(np.float32)]
    return np.concatenate(parts if bias is None else [*parts, bias], axis=1)


def _by_window(matrices: npt.NDArray[np.floating], taps: int) -> Array:
    """Features ``[groups, channels * taps, o]`` in the order taps, channels."""
    groups, d, o = matrices.shape
    turned = matrices.reshape(groups, d // taps, taps, o).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(turned.reshape(groups, d, o), np.float32)


def _by_channel(matrices: Array, taps: int) -> npt.NDArray[np.float64]:
    """The inverse of :func:`_by_window`."""
    groups, d, o = matrices.shape
    turned = matrices.reshape(groups, taps, d // taps, o).transpose(0, 2, 1, 3)
    return np.asarray(turned.reshape(groups, d, o), np.float64)
