"""From gradients of weights to scores of units; torch differentiates, and is needed for nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from graphprune.passes.criteria.members import finite_numbers_of, slices_of, whole_weights

from graphprune.analysis import Use
from graphprune.calibration.evidence import Evidence
from graphprune.errors import CalibrationError, ModelError
from graphprune.graph import DependencyGraph

if TYPE_CHECKING:
    from graphprune.converters.torch_graph.gradients import Gradients

Scores = npt.NDArray[np.float64]
#: Samples that run at once at most, and bytes that what they leave for the way back may take.
_BATCH, _BYTES = 64, 1 << 28


def require_torch() -> None:
    """Says what to install where torch is missing.

    Raises:
        ModelError: it is.
    """
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        what = "torch is not installed, and this criterion needs gradients"
        raise ModelError(what, hint="pip install 'graphprune[torch]', or another --criterion") from error


def gradients_of(evidence: Evidence, seed: int) -> Gradients:
    """The model with the samples, ready to be differentiated.

    Raises:
        ModelError: torch is missing, or can't run the model, or a weight holds NaN.
        CalibrationError: there are labels, and every one of them says that there is none.
    """
    require_torch()
    from graphprune.converters.torch_graph.gradients import Gradients

    require_numbers(evidence.graph)
    _ = evidence.batches  # made-up samples first: with them the norms get other statistics
    _require_labels(evidence.samples.labels)
    return Gradients(evidence.graph.model, evidence.samples, seed, evidence.progress)


def _require_labels(labels: npt.NDArray[np.generic] | None) -> None:
    """A loss on no label at all has no gradient, and would score every unit alike."""
    if labels is not None and labels.size and labels.dtype.kind == "i" and labels.max() < 0:
        what = "no calibration sample has a label"
        because = f"all {labels.size} labels are negative, which says that there is none"
        raise CalibrationError(what, because=because, hint="labels from 0 on, or samples without labels")


def require_numbers(graph: DependencyGraph) -> None:
    """Refuses weights that are no numbers.

    Raises:
        ModelError: with the weight's name.
    """
    for part in slices_of(graph):
        finite_numbers_of(part.use)


def batch_size(evidence: Evidence) -> int:
    """So many samples that all tensors of the graph fit the memory."""
    trace = evidence.graph.analysis.trace
    each = sum(4 * prod(shape[1:]) for shape in trace.nominal.values())
    return int(np.clip(_BYTES // max(each, 1), 1, _BATCH))


class UnitSums:
    """Adds numbers that belong to weights up to numbers of units.

    Args:
        graph: says which slices of which weights go with a unit.
        module: says which parameter a use of a constant is.
    """

    def __init__(self, graph: DependencyGraph, module: Any) -> None:
        self._size = len(graph.analysis.algebra)
        self._key = module.parameter_key
        self._slices = list(slices_of(graph))
        self._wholes = list(whole_weights(graph))

    def __call__(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Scores:
        """Sums ``[len(algebra)]`` over all member slices; what is no parameter adds nothing."""
        total = np.zeros(self._size)
        for part in self._slices:
            array = self._of(part.use, arrays)
            if array is None:
                continue
            for d, rows in part.rows.items():
                others = tuple(i for i in range(array.ndim) if i != d)
                local = array.sum(axis=others, dtype=np.float64)
                for column in rows.T:
                    np.add.at(total, column, local)
        for unit, uses in self._wholes:
            found = (self._of(use, arrays) for use in uses)
            total[unit] += sum(float(a.sum(dtype=np.float64)) for a in found if a is not None)
        total[0] = 0.0
        return total

    def _of(self, use: Use, arrays: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any] | None:
        key = self._key(use.value.name or "", use.node.outputs[0].name or "", use.index)
        return arrays.get(key) if key is not None else None


def summed(parts: Iterator[Mapping[str, npt.NDArray[Any]]]) -> dict[str, npt.NDArray[Any]]:
    """The sum of all parts, by key."""
    total: dict[str, npt.NDArray[Any]] = {}
    for arrays in parts:
        for key, array in arrays.items():
            total[key] = total[key] + array if key in total else array
    return total
