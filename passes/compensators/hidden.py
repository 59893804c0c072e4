"""The elementwise way from what producers make to a hidden tensor, at single positions: value and slope."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
from graphprune.passes.compensators.couples import Couple

from graphprune.calibration.pieces import session_over
from graphprune.model import Model

Array = npt.NDArray[np.float32]
#: Of a central difference, relative to the spread of what is moved.
_STEP = 1e-3


class Hidden:
    """``φ`` of a couple.

    Args:
        model: the pruned model.
        couple: one of its couples.
        rank: of the hidden tensor.
        threads: of onnxruntime.
    """

    def __init__(self, model: Model, couple: Couple, rank: int, threads: int = 0) -> None:
        self._names = [layer.output.name or "" for layer in couple.producers]
        self._sides = [value.name or "" for value in couple.sides]
        axis = couple.consumer.feature_axis % rank
        # Rows go where samples are, so that constants per feature meet their axis.
        self._form = tuple(-1 if d == axis else 1 for d in range(1, rank))
        self._session = None
        if couple.path:
            kind = int(onnx.TensorProto.FLOAT)
            self._session = session_over(
                model, couple.path, dict.fromkeys([*self._names, *self._sides], kind),
                [couple.consumer.source.name or ""], threads,
            )  # fmt: skip

    def value(self, made: Sequence[Array], sides: Sequence[Array]) -> Array:
        """``[n, k]`` for what each producer makes and for the sides, ``[n, k]`` each."""
        if self._session is None:
            return made[0]
        named = zip([*self._names, *self._sides], [*made, *sides], strict=True)
        feeds = {name: array.reshape(len(array), *self._form) for name, array in named}
        known = {value.name for value in self._session.get_inputs()}
        (found,) = self._session.run(None, {k: v for k, v in feeds.items() if k in known})
        return np.asarray(found.reshape(len(found), -1))

    def slope(self, made: Sequence[Array], sides: Sequence[Array], which: int) -> Array:
        """Derivative by one producer's value, ``[n, k]``."""
        if self._session is None:
            return np.ones_like(made[0])
        step = np.float32(_STEP * max(float(made[which].std()), 1e-6))
        around = [[z + sign * step if i == which else z for i, z in enumerate(made)] for sign in (1, -1)]
        above, below = (self.value(z, sides) for z in around)
        return np.asarray((above - below) / (2 * step), np.float32)
