"""What criteria, allocators and compensators may look at: the graph, the samples, and what follows from both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from graphprune.algebra import Axis
from graphprune.analysis import Use
from graphprune.calibration.landing import Landing, landing_of
from graphprune.calibration.linear import Linear, linear_of
from graphprune.calibration.moments import Moments, Sampler, gather
from graphprune.graph import DependencyGraph

if TYPE_CHECKING:
    from graphprune.calibration.samples import Samples


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
        samples: real ones or synthetic ones; None: only the weights are there to be looked at.
        is_synthetic: were the samples made up?
        seed: of everything random.
        batch: samples per run.
        threads: of onnxruntime; 0 leaves it to onnxruntime.
    """

    def __init__(
        self,
        graph: DependencyGraph,
        samples: Samples | None = None,
        *,
        is_synthetic: bool = False,
        seed: int = 0,
        batch: int = 64,
        threads: int = 0,
    ) -> None:
        self.graph = graph
        self.samples = samples
        self.is_synthetic = is_synthetic
        self.seed = seed
        self.threads = threads
        self._batch = batch

    @cached_property
    def batches(self) -> list[dict[str, npt.NDArray[np.generic]]]:
        """The samples, as they are run."""
        assert self.samples is not None
        return list(self.samples.batches(self._batch))

    @cached_property
    def masks(self) -> Sequence[npt.NDArray[np.bool_] | None]:
        """Per batch, ``[samples, positions]`` of what is no padding; None where nothing says so."""
        return [padding_mask(batch) for batch in self.batches]

    @cached_property
    def sampler(self) -> Sampler:
        """Which rows of a layer's input are looked at."""
        return Sampler(self.seed, len(self.samples) if self.samples is not None else 0)

    @cached_property
    def consumers(self) -> list[Consumer]:
        """Layers in topological order."""
        uses = self.graph.analysis.uses
        found = []
        for node in self.graph.model.ir.graph:
            layer = linear_of(node)
            if layer is not None and (node, layer.weight) in uses:
                use = uses[node, layer.weight]
                if len(use.axes) > max(layer.contracted, layer.made):
                    found.append(Consumer(layer, use, landing_of(layer.output)))
        return found

    @cached_property
    def moments(self) -> dict[Linear, Moments]:
        """Of the input of each consumer that can lose features."""
        layers = {c.layer: c.landing for c in self.consumers if not c.axis.is_plain}
        return gather(self.graph.model, layers, self.batches, self.masks, self.sampler, self.threads)


def padding_mask(batch: dict[str, npt.NDArray[np.generic]]) -> npt.NDArray[np.bool_] | None:
    """The input that marks padding: whole numbers 0 and 1, both of them, beside another of the same shape."""
    for name, array in batch.items():
        if array.ndim != 2 or array.dtype.kind not in "iub" or not np.isin(array, (0, 1)).all():
            continue
        mask = array.astype(bool)
        partners = [k for k, v in batch.items() if k != name and v.shape == array.shape]
        if partners and mask.any(axis=1).all() and not mask.all():
            return mask
    return None
