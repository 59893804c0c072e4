"""Sizes in the cut model: of its tensors, and what its own shape arithmetic computes from them."""

from __future__ import annotations

from math import prod

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.axes_kept import Keeps
from graphprune.shapes.shape_ops import compute
from graphprune.shapes.trace import Trace
from graphprune.storage.constants import is_constant


class CutSizes:
    """Shapes after the cut, under the analysis sizes."""

    def __init__(self, trace: Trace, keeps: Keeps) -> None:
        self.trace, self._keeps = trace, keeps
        self._values: dict[ir.Value, npt.NDArray[np.generic] | None] = {}

    def before(self, name: str) -> tuple[int, ...] | None:
        """Shape of a value before the cut."""
        return self.trace.shapes.get(name)

    def after(self, name: str) -> tuple[int, ...] | None:
        """Shape of a value after the cut."""
        shape = self.trace.shapes.get(name)
        axes = self._keeps.analysis.axes.get(name)
        if shape is None or axes is None:
            return shape
        masks = [self._keeps.of(axis) for axis in axes]
        return tuple(n if m is None else int(m.sum()) for n, m in zip(shape, masks, strict=True))

    def computed(self, value: ir.Value) -> npt.NDArray[np.generic] | None:
        """What a value of shape arithmetic holds once its tensors have shrunk; None if unknown."""
        if value not in self._values:
            self._values[value] = self._compute(value)
        return self._values[value]

    def _compute(self, value: ir.Value) -> npt.NDArray[np.generic] | None:
        if value.const_value is not None and is_constant(value):
            return value.const_value.numpy()
        node = value.producer()
        if node is None or len(node.outputs) != 1:
            return None
        if node.op_type in ("Shape", "Size"):
            source = node.inputs[0]
            shape = self.after(source.name or "") if source is not None else None
            if shape is None:
                return None
            if node.op_type == "Size":
                return np.asarray(prod(shape), np.int64)
            start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", None)
            return np.asarray(shape[start:end], np.int64)
        arrays = [None if v is None else self.computed(v) for v in node.inputs]
        if any(v is not None and a is None for v, a in zip(node.inputs, arrays, strict=True)):
            return None
        results = compute(node, arrays)
        return results[0] if results else None
