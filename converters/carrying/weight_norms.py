"""Weights that a network stores as a direction and a length, and that an exporter computed.

``W = gain * v / ||v||``, the norm over all axes but one (https://arxiv.org/abs/1602.07868).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from graphprune.converters.carrying.hints import module_of
from graphprune.converters.carrying.layouts import orders

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]
_ROUNDING = 1e-5


@dataclass(frozen=True)
class WeightNorm:
    """A weight in two arrays.

    Attributes:
        gain: name of the lengths: one per position of ``axis``, the other axes are 1.
        direction: name of the array that is brought to these lengths.
        axis: of the direction.
    """

    gain: str
    direction: str
    axis: int

    def lengths(self, arrays: Mapping[str, Array]) -> Doubles:
        """Of the direction as it is."""
        v = np.asarray(arrays[self.direction], np.float64)
        return np.asarray(np.sqrt((v * v).sum(axis=tuple(d for d in range(v.ndim) if d != self.axis))))

    def factor(self, arrays: Mapping[str, Array]) -> Doubles:
        """What each position of the direction is multiplied with."""
        with np.errstate(all="ignore"):
            return np.asarray(np.asarray(arrays[self.gain], np.float64).reshape(-1) / self.lengths(arrays))


def find_weight_norms(arrays: Mapping[str, Array]) -> Iterator[WeightNorm]:
    """Pairs of arrays of one module that may be a gain and a direction."""
    modules: dict[str, list[str]] = {}
    for name, array in arrays.items():
        if array.ndim > 1 and array.dtype.kind not in "iub":
            modules.setdefault(module_of(name), []).append(name)
    for names in modules.values():
        for gain in names:
            for direction in names:
                shape, target = arrays[gain].shape, arrays[direction].shape
                long = [d for d, n in enumerate(shape) if n > 1]
                if gain != direction and len(shape) == len(target) and len(long) == 1:
                    axis = long[0]
                    if shape[axis] == target[axis]:
                        yield WeightNorm(gain, direction, axis)


def orders_in(norm: WeightNorm, arrays: Mapping[str, Array], constant: Array) -> Iterator[tuple[int, ...]]:
    """Orders of the direction's axes in which a constant holds the weight."""
    v = np.asarray(arrays[norm.direction], np.float64)
    factor = norm.factor(arrays)
    weight = v * factor.reshape([-1 if d == norm.axis else 1 for d in range(v.ndim)])
    wanted = np.asarray(constant, np.float64)
    for order in orders(v.shape, wanted.shape):
        made = weight.transpose(order)
        if made.shape == wanted.shape and np.abs(made - wanted).max() <= _ROUNDING * np.abs(wanted).max():
            yield order
