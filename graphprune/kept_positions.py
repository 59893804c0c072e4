"""Inputs for a model and for the same model without some positions, and outputs that can be compared.

A cut may change the signature: when the user allows it, and around operators that can't be run, where two
models are compared piece by piece.  The original then gets zeros at the positions that the other lacks
(or anything, where a removed slice would hold anything), and of its outputs only the kept positions count.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from graphprune.axes_kept import Keeps

Arrays = Mapping[str, npt.NDArray[np.generic]]


class KeptPositions:
    """Translates inputs and outputs between a model and its cut.

    Args:
        keeps: masks of the cut.
    """

    def __init__(self, keeps: Keeps) -> None:
        self._keeps = keeps

    def is_runtime_size(self, name: str) -> bool:
        """Does an axis of this value shrink whose size depends on the input sizes?"""
        trace = self._keeps.analysis.trace
        axes = self._keeps.analysis.axes.get(name, [])
        return any(self._keeps.of(a) is not None and trace.is_dynamic(name, d) for d, a in enumerate(axes))

    def whole(self, feeds: Arrays) -> dict[str, npt.NDArray[np.generic]]:
        """What the original is fed."""
        return {name: self._zeroed(name, array) for name, array in feeds.items()}

    def kept(self, arrays: Arrays) -> dict[str, npt.NDArray[np.generic]]:
        """Inputs or outputs of the original as the cut model has them."""
        return {name: self._taken(name, array) for name, array in arrays.items()}

    def _zeroed(self, name: str, array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        for d, axis in enumerate(self._keeps.analysis.axes.get(name, [])):
            mask = self._keeps.of(axis)
            if mask is not None and axis.zero:
                array = array.copy()
                array[(slice(None),) * d + (~mask,)] = 0
        return array

    def _taken(self, name: str, array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        for d, axis in enumerate(self._keeps.analysis.axes.get(name, [])):
            mask = self._keeps.of(axis)
            if mask is not None:
                array = np.compress(mask, array, axis=d)
        return array
