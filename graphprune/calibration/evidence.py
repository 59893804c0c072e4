"""What criteria, allocators and compensators may look at: the graph, samples, and what follows from both."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort

from graphprune.algebra import Axis
from graphprune.analysis import Use
from graphprune.calibration.by_parts import PART_BYTES, spreads_of
from graphprune.calibration.gathered import linears_of
from graphprune.calibration.hidden_batch import as_run
from graphprune.calibration.known_moments import KnownMoments
from graphprune.calibration.landing import Landing, landing_of
from graphprune.calibration.linear import Linear
from graphprune.calibration.mixtures import mixtures
from graphprune.calibration.moments import MAX_FEATURES, MOMENTS_BYTES, Moments, Sampler, gather
from graphprune.calibration.padding import batches_of, padding_mask
from graphprune.calibration.pieces import exposing
from graphprune.calibration.sample_axes import SampleAxes
from graphprune.calibration.samples import Samples, SampleSource, load_samples
from graphprune.calibration.spreads import Spread
from graphprune.calibration.substitutes import Substitutes
from graphprune.calibration.synthetic import synthetic_samples
from graphprune.graph import DependencyGraph
from graphprune.groups import Group
from graphprune.journal import NOTHING
from graphprune.parts import is_big
from graphprune.progress import Progress, silent

#: Samples per run at most, and bytes of what they expose.
BATCH, BATCH_BYTES = 64, 1 << 28
#: So many batches there are at least, and one in so many is held out.
BATCHES, HELD_OUT = 8, 6
#: Samples that a judgement takes at least.
JUDGES = 16
#: Samples that are made up where the user gives none and no number.
SYNTHETIC = 512


@dataclass(frozen=True, eq=False)
class Consumer:
    """A layer of the original whose weight the analysis knows.

    Attributes:
        layer: how it multiplies.
        use: its weight.
        landing: where its output goes.
        is_kept: may its weight stay in memory once it was asked for?
    """

    layer: Linear
    use: Use
    landing: Landing
    is_kept: bool = True

    @property
    def axis(self) -> Axis:
        """The contracted axis of the weight."""
        return self.use.axes[self.layer.contracted]

    @property
    def matrices(self) -> npt.NDArray[np.float64]:
        """Weight ``[groups, d, o]``."""
        return self._matrices if self.is_kept else self._read()

    @cached_property
    def _matrices(self) -> npt.NDArray[np.float64]:
        return self._read()

    def _read(self) -> npt.NDArray[np.float64]:
        assert self.use.value.const_value is not None
        return self.layer.matrices(self.use.value.const_value.numpy())


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
        self.substitutes = Substitutes(graph.model, threads)
        self.journal = NOTHING
        self.progress: Progress = progress if progress is not None else silent
        self._dims, self._limit = dims, limit
        self._given = load_samples(calibration, graph.model, limit) if calibration is not None else None

    def admit(self, groups: Sequence[Group]) -> None:
        """Only these groups are in question: nothing is gathered for the others."""
        if not {g.id for g in groups} <= {g.id for g in self.groups}:
            self.__dict__.pop("moments", None)
        self.groups = list(groups)

    def exposing(self, values: Collection[ir.Value]) -> ort.InferenceSession:
        """A session from the original's inputs to these values.

        Made-up samples come first: with them the norms get other statistics.
        """
        _ = self.batches
        return exposing(self.graph.model, values, self.threads)

    @property
    def given(self) -> Samples | None:
        """The user's samples."""
        return self._given

    @property
    def is_synthetic(self) -> bool:
        """Are the samples made up?"""
        return self._given is None

    @cached_property
    def samples(self) -> Samples:
        """The user's samples, or made-up ones."""
        if self._given is not None:
            return as_run(self.graph.model, self._given, self.threads, self.graph.analysis.trace.nominal)
        return synthetic_samples(self.graph.model, self._dims, count=self._limit or SYNTHETIC, seed=self.seed)

    @cached_property
    def batches(self) -> list[dict[str, npt.NDArray[np.generic]]]:
        """The samples, as they are run: so many at a time that what they expose fits the memory."""
        shapes = self.graph.analysis.trace.nominal
        values = (v for c in self.consumers for v in (c.layer.source, c.layer.output, c.landing.value))
        names = {v.name or "" for v in values}
        bytes_each = sum(4 * int(np.prod(shapes[n][1:])) for n in names if n in shapes)
        if is_big(self.graph.model):  # which exposes the values of one part at a time
            bytes_each //= max(self.graph.model.weight_bytes // PART_BYTES, 1)
        # Enough batches for some of them to be held out.
        most = min(BATCH, -(-len(self.samples) // BATCHES))
        many = int(np.clip(BATCH_BYTES // max(bytes_each, 1), 1, max(most, 1)))
        found = batches_of(self.samples, self.graph.model, many, self.seed)
        if self.is_synthetic:
            self.substitutes.fit(found)
        return found

    @cached_property
    def held_out(self) -> Sequence[bool]:
        """Per batch: is it kept for judging what is fitted to the others?"""
        many = len(self.batches)
        return [b % HELD_OUT == HELD_OUT - 1 for b in range(many)] if many >= HELD_OUT else [False] * many

    @property
    def judges(self) -> tuple[Sequence[Mapping[str, npt.NDArray[np.generic]]], int]:
        """Batches that nothing is fitted to, and how many samples they hold; all, where these are too few."""
        held = [batch for batch, is_held in zip(self.batches, self.held_out, strict=True) if is_held]
        count = self._count(held)
        return (held, count) if count >= JUDGES else (self.batches, self._count(self.batches))

    @cached_property
    def masks(self) -> Sequence[npt.NDArray[np.bool_] | None]:
        """Per batch, ``[samples, positions]`` of what is no padding; None where nothing says so."""
        return [padding_mask(batch) for batch in self.batches]

    @cached_property
    def sampler(self) -> Sampler:
        """Which rows of a layer's input are looked at."""
        return Sampler(self.seed, self.count)

    @property
    def is_judged_apart(self) -> bool:
        """Are the samples that judge none of those that were fitted to?"""
        return self.judges[0] is not self.batches

    @property
    def count(self) -> int:
        """Samples in all batches."""
        return self._count(self.batches)

    def _count(self, batches: Sequence[Mapping[str, npt.NDArray[np.generic]]]) -> int:
        if self.samples.whole:
            return len(batches)
        alone = [name for name in batches[0] if name not in self.samples.shared] if batches else []
        return sum(len(batch[alone[0]]) if alone else 1 for batch in batches)

    def with_mixtures(self) -> Evidence:
        """The same with mixtures of samples among the batches, to fit weights to; never to judge by."""
        plain = not self.is_synthetic and not self.samples.shared and not self.samples.whole
        kept = [batch for batch, is_held in zip(self.batches, self.held_out, strict=True) if not is_held]
        mixed = mixtures(kept, self.seed) if plain else []
        if not mixed:
            return self
        more = copy(self)
        for name in ("masks", "sampler"):
            more.__dict__.pop(name, None)
        more.__dict__["batches"] = [*self.batches, *mixed]
        more.__dict__["held_out"] = [*self.held_out, *(False for _ in mixed)]
        return more

    @cached_property
    def consumers(self) -> list[Consumer]:
        """Layers in topological order."""
        uses = self.graph.analysis.uses
        found, is_kept = [], not is_big(self.graph.model)
        for node in self.graph.model.ir.graph:
            for layer in linears_of(node, self.graph.analysis.trace.shapes):
                use = uses.get(layer.place)
                if use is not None and len(use.axes) > max(layer.contracted, layer.made):
                    found.append(Consumer(layer, use, self.landing(layer.output), is_kept))
        return found

    def notes(self) -> dict[str, int]:
        """What the plan's options say about the samples, as far as they were used."""
        found = {}
        if "samples" in self.__dict__ and self.samples.size != SampleAxes.of(self.graph.model).size:
            found["samples_at_a_time"] = self.samples.size or 0
        if "moments" in self.__dict__:
            known = self.moments
            found["layers_with_few_rows"] = sum(n < layer.features for layer, n in known.counts.items())
            found["layers_too_large"] = len(self._judged) - len(known)
            found["calibration_passes"] = known.passes if known.passes > 1 else 0
        return {name: number for name, number in found.items() if number}

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
    def moments(self) -> KnownMoments:
        """Of the input of each consumer that can lose features; a layer with too many of them has none."""
        layers = {c.layer: c.landing for c in self._judged if c.layer.features <= MAX_FEATURES}

        def run(part: Mapping[Linear, Landing], stage: str) -> dict[Linear, Moments]:
            return gather(
                self.graph.model, part, self.batches, self.masks, self.sampler, self.threads, self.progress,
                stage, self.held_out,
            )  # fmt: skip

        return KnownMoments(layers, run, MOMENTS_BYTES)

    @cached_property
    def spreads(self) -> Mapping[Linear, Spread]:
        """Of the same inputs, means and powers alone; a layer may have any number of features."""
        layers = {c.layer: c.landing for c in self._judged}
        return spreads_of(
            self.graph.model, self.graph.analysis.trace.nominal, layers, self.batches, self.masks,
            self.sampler, self.threads, self.progress, self.journal,
        )  # fmt: skip

    @property
    def _judged(self) -> list[Consumer]:
        """Layers that can lose features."""
        units = np.zeros(len(self.graph.analysis.algebra), bool)
        for group in self.groups:
            units[group.units] = True
        live = self.graph.analysis.algebra.live
        return [c for c in self.consumers if not c.axis.is_plain and units[live(c.axis)].any()]
