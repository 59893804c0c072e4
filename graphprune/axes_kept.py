"""Which positions of which axes stay, given the removed units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.algebra import Axis
from graphprune.analysis import Analysis, Use

Mask = npt.NDArray[np.bool_]
Keep = tuple["Mask | None", ...]


class Keeps:
    """Masks of kept positions for every axis.

    Args:
        analysis: of the model.
        removed: ``[len(algebra)]`` mask over units.
    """

    def __init__(self, analysis: Analysis, removed: Mask) -> None:
        self.analysis, self.removed = analysis, removed
        self._masks: dict[int, Mask | None] = {}

    def of(self, axis: Axis) -> Mask | None:
        """Mask ``[n]`` of kept positions; None when all stay."""
        if axis.is_plain:
            return None
        key = id(axis.labels)
        if key not in self._masks:
            mask = self.analysis.algebra.alive(axis, self.removed)
            self._masks[key] = None if mask.all() else mask
        return self._masks[key]

    def of_use(self, use: Use) -> Keep:
        """Masks of a parameter's axes."""
        return tuple(self.of(axis) for axis in use.axes)

    def of_input(self, node: ir.Node, i: int) -> Keep:
        """Masks of an input's axes (an input that no rule treats as a parameter has none)."""
        use = self.analysis.uses.get((node, i))
        if use is not None:
            return self.of_use(use)
        value = node.inputs[i]
        if value is None:
            return ()
        axes = self.analysis.axes.get(value.name or "")
        if axes is None:
            rank = len(self.analysis.trace.shapes.get(value.name or "", ()))
            return (None,) * rank
        return tuple(self.of(axis) for axis in axes)

    def of_index(self, node: ir.Node, i: int) -> Mask | None:
        """Mask of the axis whose positions input ``i`` holds as numbers; None if all stay."""
        value = node.inputs[i]
        axis = self.analysis.facts.indexes.get(value.name or "") if value is not None else None
        return self.of(axis) if axis is not None else None

    def of_output(self, node: ir.Node, i: int) -> Keep:
        """Masks of an output's axes."""
        axes = self.analysis.axes.get(node.outputs[i].name or "", [])
        return tuple(self.of(axis) for axis in axes)


def touches(keep: Sequence[Mask | None]) -> bool:
    """Does any axis shrink?"""
    return any(mask is not None for mask in keep)
