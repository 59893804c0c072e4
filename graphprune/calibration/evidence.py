"""What criteria, allocators and compensators may look at: the graph, samples, and what follows from both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.algebra import Axis
from graphprune.analysis import Use
from graphprune.calibration.gathered import linears_of
from graphprune.calibration.landing import Landing, landing_of
from graphprune.calibration.linear import Linear
from graphprune.calibration.moments import MAX_FEATURES, MOMENTS_BYTES, Moments, Sampler, gather
from graphprune.calibration.padding import batches_of, padding_mask
from graphprune.calibration.samples import Samples, SampleSource, load_samples
from graphprune.calibration.synthetic import synthetic_samples
from graphprune.graph import DependencyGraph
from graphprune.groups import Group

#: ``progress(stage, done, total)``.
Progress: TypeAlias = Callable[[str, int, int], None]
#: Samples per run at most, and bytes of what they expose.
BATCH, BATCH_BYTES = 64, 1 << 28
#: Samples that are made up where the user gives none and no number.
SYNTHETIC = 512


@dataclass(frozen=True, eq=False)
class Consumer:
    """A layer of the original whose weight the analysis knows.

    Attributes:
        layer: how it multiplies.
        use: its weight.
        landing: where its output goes.
    """

    layer: Linear
    use: Use
    landing: Landing

    @property
    def axis(self) -> Axis:
        """The contracted axis of the weight."""
        return self.use.axes[self.layer.contracted]

    @cached_property
    def matrices(self) -> npt.NDArray[np.float64]:
        """Weight ``[groups, d, o]``."""
        tensor = self.use.value.const_value
        assert tensor is not None
        return self.layer.matrices(tensor.numpy())


class Evidence:
    """A dependency graph with samples to judge it by.

    Args:
        graph: the analysed model.
        calibration: samples, as :func:`~graphprune.calibration.samples.load_samples` takes them; None: they
            are made up as soon as somebody asks for them.
        limit: how many samples are used; None: all, or a moderate number of made-up ones.
        seed: of everything random.
        dims: sizes for symbolic dimensions of made-up samples.
        threads: of onnxruntime; 0 leaves it to onnxruntime.
        progress: is told how far which stage is: ``progress("calibrating", 3, 16)``.

    Raises:
        CalibrationError: the samples don't fit the model.
    """

    def __init__(
        self,
        graph: DependencyGraph,
        calibration: SampleSource | None = None,
        *,
        limit: int | None = None,
        seed: int = 0,
        dims: Mapping[str, int] | None = None,
        threads: int = 0,
        progress: Progress | None = None,
    ) -> None:
        self.graph = graph
        self.groups = [group for group in graph.groups if group.prunable]
        self.seed = seed
        self.threads = threads
        self.progress: Progress = progress if progress is not None else _silent
        self._dims, self._limit = dims, limit
        self._given = load_samples(calibration, graph.model, limit) if calibration is not None else None

    def admit(self, groups: Sequence[Group]) -> None:
        """Only these groups are in question: nothing is gathered for the others."""
        if not {g.id for g in groups} <= {g.id for g in self.groups}:
            self.__dict__.pop("moments", None)
        self.groups = list(groups)

    @property
    def is_synthetic(self) -> bool:
        """Are the samples made up?"""
        return self._given is None

    @cached_property
    def samples(self) -> Samples:
        """The user's samples, or made-up ones."""
        if self._given is not None:
            return self._given
        return synthetic_samples(self.graph.model, self._dims, count=self._limit or SYNTHETIC, seed=self.seed)

    @cached_property
    def batches(self) -> list[dict[str, npt.NDArray[np.generic]]]:
        """The samples, as they are run: so many at a time that what they expose fits the memory."""
        shapes = self.graph.analysis.trace.nominal
        values = (v for c in self.consumers for v in (c.layer.source, c.layer.output, c.landing.value))
        names = {v.name or "" for v in values}
        bytes_each = sum(4 * int(np.prod(shapes[n][1:])) for n in names if n in shapes)
        many = int(np.clip(BATCH_BYTES // max(bytes_each, 1), 1, BATCH))
        return batches_of(self.samples, self.graph.model, many, self.seed)

    @cached_property
    def masks(self) -> Sequence[npt.NDArray[np.bool_] | None]:
        """Per batch, ``[samples, positions]`` of what is no padding; None where nothing says so."""
        return [padding_mask(batch) for batch in self.batches]

    @cached_property
    def sampler(self) -> Sampler:
        """Which rows of a layer's input are looked at."""
        return Sampler(self.seed, len(self.samples))

    @cached_property
    def consumers(self) -> list[Consumer]:
        """Layers in topological order."""
        uses = self.graph.analysis.uses
        found = []
        for node in self.graph.model.ir.graph:
            for layer in linears_of(node):
                use = uses.get(layer.place)
                if use is not None and len(use.axes) > max(layer.contracted, layer.made):
                    found.append(Consumer(layer, use, self.landing(layer.output)))
        return found

    @property
    def thin(self) -> int:
        """Layers whose moments come from fewer rows than they have features."""
        known = self.__dict__.get("moments", {})
        return sum(found.count < layer.features for layer, found in known.items())

    def streams(self) -> set[str]:
        """Ids of groups that several layers make and several read: the widths of residual streams.

        An error there reaches every layer behind it, so that errors of single layers say too little.
        """
        makers: dict[str, set[int]] = {}
        readers: dict[str, set[int]] = {}
        for consumer in self.consumers:
            made = consumer.use.axes[consumer.layer.made]
            for axis, found in ((made, makers), (consumer.axis, readers)):
                for group in self.graph.groups_of(axis):
                    found.setdefault(group.id, set()).add(id(consumer.use.value))
        return {name for name, found in makers.items() if len(found) > 1 and len(readers.get(name, ())) > 1}

    def landing(self, output: ir.Value) -> Landing:
        """Where a layer's output goes, in the original or in a pruned model."""
        return landing_of(output, self.graph.analysis.trace.shapes)

    @cached_property
    def moments(self) -> dict[Linear, Moments]:
        """Of the input of each consumer that can lose features."""
        units = np.zeros(len(self.graph.analysis.algebra), bool)
        for group in self.groups:
            units[group.units] = True
        live = self.graph.analysis.algebra.live
        judged = [c for c in self.consumers if not c.axis.is_plain and units[live(c.axis)].any()]
        layers, left = {}, MOMENTS_BYTES
        for consumer in sorted(judged, key=lambda c: c.layer.features):
            left -= 8 * consumer.layer.groups * consumer.layer.features**2
            if consumer.layer.features <= MAX_FEATURES and left >= 0:
                layers[consumer.layer] = consumer.landing
        return gather(
            self.graph.model, layers, self.batches, self.masks, self.sampler, self.threads, self.progress
        )


def _silent(stage: str, done: int, total: int) -> None:
    """Nobody looks on."""
