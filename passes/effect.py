"""How much the outputs change when units go: measured, on the samples, after quick compensation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import numpy.typing as npt
from graphprune.passes.compensators.parallel import Parallel

from graphprune.calibration.evidence import Evidence
from graphprune.calibration.pieces import exposing
from graphprune.model import Model
from graphprune.rewrite import cut

Removed = npt.NDArray[np.bool_]
Outputs = list[npt.NDArray[np.float64]]
#: Samples that are run; more make a measurement slower, and hardly ever change a ranking.
SAMPLES = 128


class Effect:
    """Relative squared error of a model's outputs when units are removed.

    Args:
        evidence: the model and its samples.
        samples: how many of them are run.
    """

    def __init__(self, evidence: Evidence, samples: int = SAMPLES) -> None:
        self._evidence = evidence
        self._samples = samples

    @cached_property
    def _batches(self) -> list[Mapping[str, npt.NDArray[np.generic]]]:
        batches, left = [], self._samples
        for batch in self._evidence.batches:
            if left <= 0:
                break
            batches.append(batch)
            left -= len(next(iter(batch.values())))
        return batches

    @cached_property
    def _dense(self) -> Outputs:
        return self._run(self._evidence.graph.model)

    @cached_property
    def _scale(self) -> list[float]:
        # An output that is constant over the samples has no scale of its own.
        return [max(float(np.var(y, axis=0).sum()), 1e-12) for y in self._dense]

    def __call__(self, removed: Removed) -> float:
        """0 for no change; 1 when the outputs say no more than their means over the samples do."""
        pruned = cut(self._evidence.graph.analysis, removed)
        return self.of(Parallel()(self._evidence, removed, pruned))

    def of(self, pruned: Model) -> float:
        """The same for a model that is cut already."""
        errors = [
            float(np.square(new - old).sum(axis=tuple(range(1, old.ndim))).mean()) / scale
            for old, new, scale in zip(self._dense, self._run(pruned), self._scale, strict=True)
            if new.shape == old.shape
        ]
        found = float(np.mean(errors)) if errors else 0.0
        return found if np.isfinite(found) else float("inf")

    def _run(self, model: Model) -> Outputs:
        values = [v for v in model.ir.graph.outputs if v.dtype is None or v.dtype.is_floating_point()]
        session = exposing(model, values, self._evidence.threads)
        names = [output.name for output in session.get_outputs()]
        read = [value.name for value in session.get_inputs()]
        runs = [session.run(names, {k: batch[k] for k in read}) for batch in self._batches]
        return [np.concatenate([np.asarray(r[i], np.float64) for r in runs]) for i in range(len(names))]
