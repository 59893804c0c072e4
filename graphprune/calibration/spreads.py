"""What is known of each single feature that a layer reads: its mean and its power, and nothing of pairs.

Second moments grow with the square of the features.  Criteria that ask for no pairs can do without, and so
layers of any width can be judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Spread:
    """Of the inputs of one layer.

    Attributes:
        count: rows seen.
        mean: ``[groups, d]``.
        power: ``E[x²]``, ``[groups, d]``.
        own: variance of the layer's output, summed over channels.
        energy: the same of what the output becomes part of; of a sum that never changes, its square.
    """

    count: int
    mean: Matrix
    power: Matrix
    own: float
    energy: float


def packed(spreads: Sequence[Spread]) -> dict[str, npt.NDArray[np.generic]]:
    """As arrays by name."""
    return {
        f"{i}/{field.name}": np.asarray(getattr(spread, field.name))
        for i, spread in enumerate(spreads)
        for field in fields(spread)
    }


def unpacked(arrays: Mapping[str, npt.NDArray[np.generic]]) -> list[Spread]:
    """The inverse."""
    found: list[dict[str, Any]] = []
    for key, array in arrays.items():
        number, _, name = key.partition("/")
        if int(number) == len(found):
            found.append({})
        found[int(number)][name] = array if array.ndim else array.item()
    return [Spread(**each) for each in found]


@dataclass
class SpreadSums:
    """Sums over rows, one layer."""

    count: float = 0
    first: Matrix | float = 0.0
    second: Matrix | float = 0.0

    def add(self, rows: Array, count: int | None = None) -> None:
        """Rows ``[groups, n, d]``; there were ``count``, the others are zero."""
        with np.errstate(over="ignore", invalid="ignore"):
            second = np.einsum("gnd,gnd->gd", rows, rows)
        if not np.isfinite(second).all():  # a run that overflows says nothing
            return
        self.count += rows.shape[1] if count is None else count
        self.first = self.first + rows.sum(axis=1, dtype=np.float64)
        self.second = self.second + np.asarray(second, np.float64)

    @property
    def mean(self) -> Matrix:
        """Per feature."""
        return np.asarray(self.first / max(self.count, 1))

    @property
    def power(self) -> Matrix:
        """Mean square per feature."""
        return np.asarray(self.second / max(self.count, 1))

    @property
    def variance(self) -> float:
        """Summed over features."""
        return max(float(self.power.sum() - np.square(self.mean).sum()), 0.0)

    @property
    def energy(self) -> float:
        """The variance; of what is the same in all rows, the power."""
        size = float(self.power.sum())
        return self.variance if self.variance >= 1e-9 * size else size


@dataclass
class LayerSums:
    """Of a layer's inputs, its outputs, and what these become part of."""

    inputs: SpreadSums
    outputs: SpreadSums
    landed: SpreadSums

    @classmethod
    def empty(cls) -> LayerSums:
        """Nothing seen yet."""
        return cls(SpreadSums(), SpreadSums(), SpreadSums())

    def spread(self) -> Spread:
        """Means over the rows."""
        inputs = self.inputs
        return Spread(int(inputs.count), inputs.mean, inputs.power, self.outputs.variance, self.landed.energy)
