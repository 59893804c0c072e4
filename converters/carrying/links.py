"""What a constant is made of: the ways from source arrays to the numbers in an ONNX file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from graphprune.converters.carrying.layouts import Part
from graphprune.converters.carrying.norms import Norm
from graphprune.converters.carrying.weight_norms import WeightNorm

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Function:
    """An elementwise function that an exporter computed beforehand, and its inverse."""

    name: str
    of: Callable[[Array], Array]
    back: Callable[[Array], Array]


SAME = Function("", lambda x: x, lambda y: y)
#: Tried where no array holds the numbers themselves.
FUNCTIONS = (
    Function("1 + x", lambda x: 1 + x, lambda y: y - 1),
    Function("-x", lambda x: -x, lambda y: -y),
    Function("-exp(x)", lambda x: -np.exp(x), lambda y: np.log(-y)),
    Function("exp(x)", np.exp, np.log),
)


def multiple(factor: float) -> Function:
    """Of each number, so much."""
    return Function(f"{factor:.6g} * x", lambda x: factor * x, lambda y: y / factor)


@dataclass(frozen=True, eq=False)
class Link:
    """How one constant is made.

    Attributes:
        shape: of the constant.
        copies: elements of source arrays that stand in it; zeros stand where there is none.
        function: of these elements.
        norm: the batch norm that is folded into it.
        lengths: the weight norm that was computed of it.
        axis: of the constant, along which the norm's channels lie.
        bias: of a folded weight: the layer's own bias, which went into the norm's offset.
        is_offset: is it what the norm adds (of the bias in ``copies``), and not what it multiplies with?
        how: ``name``, ``value``, ``batch norm`` or ``order``.
    """

    shape: tuple[int, ...]
    copies: tuple[Part, ...] = ()
    function: Function = SAME
    norm: Norm | None = None
    lengths: WeightNorm | None = None
    axis: int = 0
    bias: str | None = None
    is_offset: bool = False
    how: str = "value"

    @property
    def vectors(self) -> tuple[str, ...]:
        """Arrays with one number per position of ``axis``."""
        if self.lengths is not None:
            return (self.lengths.gain,)
        names = () if self.norm is None else self.norm.names
        return names if self.bias is None else (*names, self.bias)

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of all arrays that it is made of."""
        return (*(part.source for part in self.copies), *self.vectors)

    def along(self, vector: Doubles) -> Doubles:
        """One number per channel, shaped to multiply the constant."""
        return vector.reshape([-1 if d == self.axis else 1 for d in range(len(self.shape))])

    def copied(self, arrays: Mapping[str, Array]) -> Doubles:
        """The constant without its norm."""
        found = np.zeros(self.shape)
        for part in self.copies:
            index = part.index()
            here = index >= 0
            values = np.asarray(arrays[part.source], np.float64).reshape(-1)
            found[here] = self.function.of(values[index[here]])
        return found

    def forward(self, arrays: Mapping[str, Array]) -> Doubles:
        """The constant, from arrays of the original sizes."""
        if self.lengths is not None:
            return np.asarray(self.copied(arrays) * self.along(self.lengths.factor(arrays)))
        if self.norm is None:
            return self.copied(arrays)
        if self.is_offset:
            bias = self.copied(arrays).reshape(-1) if self.copies else None
            return np.broadcast_to(self.along(self.norm.offset(arrays, bias)), self.shape)
        factor = self.along(self.norm.factor(arrays))
        if not self.copies:
            return np.broadcast_to(factor, self.shape)
        return np.asarray(self.copied(arrays) * factor)
