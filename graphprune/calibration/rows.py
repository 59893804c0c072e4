"""The rows of a layer's input and output that count, and how much each does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphprune.calibration.gathered import Gathered
from graphprune.calibration.landing import Landing
from graphprune.calibration.linear import Linear

Tensors = Mapping[str, npt.NDArray[np.generic]]
Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Weights:
    """One factor per row of a layer's output.

    Attributes:
        factors: ``[rows]``.
        chosen: rows whose factor is not zero.
    """

    factors: Array
    chosen: npt.NDArray[np.int64]

    def take(self, rows: Array) -> Array:
        """The chosen ones of ``[groups, rows, features]``."""
        return np.asarray(rows[:, self.chosen])

    def scaled(self, chosen: Array) -> Array:
        """Chosen rows, each times its factor."""
        return np.asarray(chosen * self.factors[self.chosen, None])

    def only(self, rows: npt.NDArray[np.bool_]) -> Weights:
        """Without all other rows."""
        return Weights(self.factors, self.chosen[rows[self.chosen]])


def is_weighted(layer: Linear, landing: Landing) -> bool:
    """Do some rows of this layer count more than others?"""
    return landing.importance is not None or isinstance(layer, Gathered)


def weights_of(
    layer: Linear, landing: Landing, found: Tensors, output: tuple[int, ...], *, own: bool = True
) -> Weights | None:
    """How much each row counts; None where all count the same.

    Args:
        layer: the layer.
        landing: where its output goes.
        found: tensors of a run: ``layer.reads``, ``landing.importance``.
        output: shape of the layer's output.
        own: only the rows of this expert, of a stack.
    """
    if not is_weighted(layer, landing):
        return None
    axis = layer.feature_axis % len(output)
    lead = tuple(n for d, n in enumerate(output) if d != axis)
    factors = np.ones(int(np.prod(lead)), np.float32)
    if landing.importance is not None:
        gate = np.asarray(found[landing.importance.name or ""], np.float32)[..., 0]
        factors *= gate.ravel() if gate.size == factors.size else np.broadcast_to(gate, lead).ravel()
    if own and isinstance(layer, Gathered):
        factors *= layer.own_rows(found, output)
    return Weights(factors, np.flatnonzero(factors))


def spread(layer: Linear, data: npt.NDArray[np.generic], output: tuple[int, ...]) -> npt.NDArray[np.generic]:
    """Data with one row for each row of the output, where the product repeats it."""
    if not isinstance(layer, Gathered):
        return data
    axis = layer.feature_axis % len(output)
    shape = list(output)
    shape[axis] = data.shape[layer.feature_axis]
    return np.broadcast_to(data, shape)
