"""Samples through a large model, part by part: a part's weights are read once, whatever the samples.

Between two parts only what later ones read is kept, in temporary files where memory has no room for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.calibration.landing import Landing
from graphprune.calibration.linear import Linear
from graphprune.calibration.moments import Sampler, landed_rows, valid_rows
from graphprune.calibration.rows import spread, weights_of
from graphprune.calibration.segments import Feeds, Segments
from graphprune.calibration.spreads import LayerSums, Spread, packed, unpacked
from graphprune.journal import NOTHING, Journal
from graphprune.model import Model
from graphprune.parts import Part, parts_of
from graphprune.progress import Progress, counted, silent

#: Bytes of constants in a part.
PART_BYTES = 1 << 27
#: Bytes of activations that stay in memory between two parts.
ROOM = 1 << 26
Array = npt.NDArray[np.generic]
Shapes = Mapping[str, tuple[int, ...]]


def spreads_of(
    model: Model,
    shapes: Shapes,
    layers: Mapping[Linear, Landing],
    batches: Sequence[Feeds],
    masks: Sequence[npt.NDArray[np.bool_] | None],
    sampler: Sampler,
    threads: int = 0,
    progress: Progress = silent,
    journal: Journal = NOTHING,
) -> dict[Linear, Spread]:
    """Means and powers of what these layers of ``model`` read, over all batches.

    ``journal`` keeps what each part has given, and where the samples stand behind the last one.
    """
    parts = parts_of(model, PART_BYTES, shapes)
    stages = _Stages(parts, layers)
    found: dict[Linear, Spread] = {}
    segments = Segments(model, batches, threads, ROOM)
    first = _known(journal, stages, len(parts), segments, found)
    for number, part in enumerate(counted(progress, "calibrating, part by part", parts)):
        if number < first:
            continue
        sums = {layer: LayerSums.empty() for layer in stages.ending(number)}

        def look(b: int, values: Feeds, sums: Mapping[Linear, LayerSums] = sums) -> None:
            for layer, own in sums.items():
                _add(own, layer, layers[layer], {**values, **batches[b]}, masks[b], sampler, b)

        segments.advance(stages.wanted(number, part), look, stages.open(number))
        own = {layer: each.spread() for layer, each in sums.items()}
        found |= own
        if number + 1 < len(parts):
            journal.put(f"spreads up to {number}", segments.state())
        journal.put(f"spreads of {number}", packed(list(own.values())))
        journal.forget(f"spreads up to {number - 1}")
    return found


def _known(
    journal: Journal, stages: _Stages, many: int, segments: Segments, found: dict[Linear, Spread]
) -> int:
    """How many parts a run before this one has done; takes over what it found of them."""
    entries: list[dict[str, Array]] = []
    while len(entries) < many and (entry := journal.get(f"spreads of {len(entries)}")) is not None:
        entries.append(entry)
    state = journal.get(f"spreads up to {len(entries) - 1}") if 0 < len(entries) < many else {}
    if not entries or state is None:
        return 0
    if state:
        segments.restore(state)
    for number, entry in enumerate(entries):
        found |= dict(zip(stages.ending(number), unpacked(entry), strict=True))
    return len(entries)


class _Stages:
    """Which layers have been seen whole behind which part, and what of them is needed until then."""

    def __init__(self, parts: Sequence[Part], layers: Mapping[Linear, Landing]) -> None:
        self._layers = layers
        self._made = {v: i for i, part in enumerate(parts) for node in part.nodes for v in node.outputs}
        self._last = {
            layer: max((self._made.get(v, 0) for v in self._values(layer)), default=0) for layer in layers
        }

    def _values(self, layer: Linear) -> set[ir.Value]:
        landing = self._layers[layer]
        values = {*layer.reads, layer.output, landing.value, landing.importance}
        return {v for v in values if v is not None and v.producer() is not None}

    def ending(self, number: int) -> dict[Linear, Landing]:
        """Layers whose last value this part makes."""
        return {layer: landing for layer, landing in self._layers.items() if self._last[layer] == number}

    def open(self, number: int) -> set[ir.Value]:
        """Values that are known behind this part, of layers that end later."""
        layers = [layer for layer, last in self._last.items() if last > number]
        return {v for layer in layers for v in self._values(layer) if self._made.get(v, number + 1) <= number}

    def wanted(self, number: int, part: Part) -> set[ir.Value]:
        """What has to be computed by this part."""
        ends = {
            v for v in part.end if any(self._made.get(o, -1) > number for n, _ in v.uses() for o in n.outputs)
        }
        here = {v for layer in self.ending(number) for v in self._values(layer)}
        return ends | here | self.open(number)


def _add(
    sums: LayerSums,
    layer: Linear,
    landing: Landing,
    found: Feeds,
    mask: npt.NDArray[np.bool_] | None,
    sampler: Sampler,
    b: int,
) -> None:
    """One batch's rows of one layer."""
    data, output = found[layer.source.name or ""], found[layer.output.name or ""]
    weights = weights_of(layer, landing, found, output.shape)
    if weights is not None:
        sums.inputs.add(
            weights.scaled(weights.take(layer.rows(spread(layer, data, output.shape)))), len(weights.factors)
        )
        sums.outputs.add(weights.scaled(weights.take(layer.targets(output))), len(weights.factors))
        sums.landed.add(landed_rows(layer, landing, found)[None])
        return
    valid = valid_rows(mask, output.shape, layer)
    pick = sampler.pick(layer, layer.features, output.shape, b) if valid is None else None
    rows, made = layer.rows(data, pick), layer.targets(output, pick)
    landed = layer.targets(found[landing.value.name or ""], pick)
    if valid is not None:
        rows, made, landed = rows[:, valid], made[:, valid], landed[:, valid]
    sums.inputs.add(rows)
    sums.outputs.add(made)
    sums.landed.add(landed)


def values_of(
    model: Model, shapes: Shapes, values: Sequence[ir.Value], batches: Sequence[Feeds], threads: int = 0
) -> Iterator[list[Array]]:
    """These values of ``model``, batch by batch."""
    segments = Segments(model, batches, threads, ROOM)
    for part in parts_of(model, PART_BYTES, shapes):
        segments.advance([v for v in part.end if v in values or v.uses()])
    segments.advance(values)
    for found in zip(*(segments.values(v.name or "") for v in values), strict=True):
        yield list(found)
