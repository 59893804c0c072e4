"""How much the outputs change when units go: measured, on the samples, after quick compensation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import numpy.typing as npt
from graphprune.passes.compensators.parallel import Parallel

from graphprune.calibration.by_parts import values_of
from graphprune.calibration.evidence import Evidence
from graphprune.calibration.pieces import exposing
from graphprune.model import Model
from graphprune.parts import is_big
from graphprune.rewrite import cut

Removed = npt.NDArray[np.bool_]
Outputs = list[npt.NDArray[np.generic]]
#: Samples that are run; more make a measurement slower, and hardly ever change a ranking.
SAMPLES = 128

#: Numbers that the outputs of these samples have at most, all together.
NUMBERS = 1 << 22


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
        batches, samples = self._evidence.judges
        model, shapes = self._evidence.graph.model, self._evidence.graph.analysis.trace.nominal
        outputs = [v.name or "" for v in model.ir.graph.outputs]
        numbers = sum(int(np.prod(shapes[name][1:])) for name in outputs if name in shapes)
        wanted = min(self._samples, NUMBERS // max(numbers, 1))
        return list(batches[: max(1, -(-wanted * len(batches) // max(samples, 1)))])

    @cached_property
    def _dense(self) -> Outputs:
        return self._run(self._evidence.graph.model)

    @cached_property
    def _scale(self) -> list[float]:
        return [_scale_of(y) if y.dtype.kind == "f" else 1.0 for y in self._dense]

    def __call__(self, removed: Removed) -> float:
        """0 for no change; 1 when the outputs say no more than their means over the samples do."""
        _ = self._batches  # made-up ones change what is cut: see calibration/substitutes.py
        pruned = cut(self._evidence.graph.analysis, removed)
        return self.of(Parallel()(self._evidence, removed, pruned))

    def of(self, pruned: Model) -> float:
        """The same for a model that is cut already."""
        errors = [
            _error(old, new) / scale
            for old, new, scale in zip(self._dense, self._run(pruned), self._scale, strict=True)
            if new.shape == old.shape and old.size
        ]
        if not errors:  # nothing that could be compared
            return float("nan")
        found = float(np.mean(errors))
        return found if np.isfinite(found) else float("inf")

    def _run(self, model: Model) -> Outputs:
        outputs = [v for v in model.ir.graph.outputs if v.producer() is not None and v.dtype is not None]
        # Numbers that are no measure, as a class or a token, count only if there are no others.
        values = [v for v in outputs if v.dtype is not None and v.dtype.is_floating_point()] or outputs
        if not values:
            return []
        batches = self._batches  # before the session: see above
        if is_big(self._evidence.graph.model):
            shapes = self._evidence.graph.analysis.trace.nominal
            runs = list(values_of(model, shapes, values, batches, self._evidence.threads))
            return [_joined([_flat(run[i]) for run in runs]) for i in range(len(values))]
        session = exposing(model, values, self._evidence.threads)
        names = [output.name for output in session.get_outputs()]
        read = [value.name for value in session.get_inputs()]
        runs = [session.run(names, {k: batch[k] for k in read}) for batch in batches]
        return [_joined([_flat(run[i]) for run in runs]) for i in range(len(names))]


def _flat(output: object) -> npt.NDArray[np.generic]:
    """One array; of a sequence, all numbers of its tensors in a row; none of what holds no tensors."""
    if isinstance(output, np.ndarray):
        return output
    entries = [np.ravel(_flat(entry)) for entry in output] if isinstance(output, list) else []
    return np.concatenate(entries) if entries else np.zeros(0)


def _joined(pieces: list[npt.NDArray[np.generic]]) -> npt.NDArray[np.generic]:
    """All batches' values, samples along the first axis if there is one."""
    if len({np.shape(piece)[1:] for piece in pieces}) > 1 or not np.ndim(pieces[0]):
        pieces = [np.ravel(piece) for piece in pieces]
    joined = np.concatenate(pieces)
    return joined.astype(np.float64) if joined.dtype.kind not in "iubUSO" else joined


def _scale_of(output: npt.NDArray[np.generic]) -> float:
    known = np.where(np.isfinite(output), output, 0)
    size = float(np.mean(np.square(known), axis=0).sum())
    spread = float(np.var(known, axis=0).sum())
    # An output that is constant over the samples has no spread.
    return max(spread if spread > 1e-9 * size else size, 1e-12)


def _error(old: npt.NDArray[np.generic], new: npt.NDArray[np.generic]) -> float:
    """Squared distance per sample; the share that differs, of values that are no measure."""
    if old.dtype.kind != "f":
        return float(np.mean(new != old))
    known = np.isfinite(old)  # a masked score is minus infinity, and stays so
    gaps = np.subtract(new, old, where=known, out=np.zeros(old.shape))
    return float(np.square(gaps).sum(axis=tuple(range(1, old.ndim))).mean())
