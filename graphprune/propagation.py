"""Carry concrete shapes through a graph where onnx's own data propagation gives up.

It gives up at the first op on sizes that it doesn't follow (Range, a division, a Where), and
everything behind that stays unknown. Here such shape arithmetic is computed in onnxruntime, in
waves: as soon as some op needs a value, all that can be computed by then is. The op is then inferred
with these values at hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod

import numpy as np
import onnx
import onnx_ir as ir

from graphprune.constants import is_constant
from graphprune.inference import SMALL_ELEMENTS, Inferred
from graphprune.runtime import Fragment, evaluate
from graphprune.shape_values import structural_nodes


class Propagation:
    """Shapes and small values of a graph, from what inference found on.

    Attributes:
        shapes: of the tensors, by name; complete unless an op can't be inferred.
        types: element types.
        values: what shape arithmetic computes, where that is at most `SMALL_ELEMENTS` elements.
        others: names of values that are no tensors.
    """

    def __init__(self, model: ir.Model, found: Inferred) -> None:
        self.shapes = {n: shape for n in found.axes if (shape := found.shape(n)) is not None}
        self.types = dict(found.types)
        self.values: dict[str, np.ndarray] = {}
        self.others = found.others
        self._model = model
        self._structural = structural_nodes(model.graph)
        self._pending = list(self._structural)
        self._fresh = True

    def run(self) -> None:
        """Fill in `shapes` and `values` as far as possible.

        Raises:
            EvaluationError: shape arithmetic fails under these sizes.
        """
        for node in self._model.graph:
            if node in self._structural or self._is_done(node):
                continue
            if self._fresh and any(self._is_missing(value) for value in node.inputs):
                self._wave()
            self._infer(node)
        self._wave()

    def constant(self, value: ir.Value) -> ir.TensorProtocol | None:
        """The tensor that ``value`` is known to hold, if any."""
        if is_constant(value):
            return value.const_value
        array = self.values.get(value.name or "")
        return None if array is None else ir.tensor(array, name=value.name)

    def _is_done(self, node: ir.Node) -> bool:
        names = [value.name for value in node.outputs if value.name]
        return all(name in self.shapes or name in self.others for name in names)

    def _is_missing(self, value: ir.Value | None) -> bool:
        """Whether this is a small result of shape arithmetic that hasn't been computed yet."""
        if value is None or value.producer() not in self._structural:
            return False
        shape = self.shapes.get(value.name or "")
        return value.name not in self.values and (shape is None or prod(shape) <= SMALL_ELEMENTS)

    def _wave(self) -> None:
        """Compute all shape arithmetic whose sources are known by now."""
        ready: set[ir.Node] = set()
        waiting: list[ir.Node] = []
        wanted: list[ir.Value] = []
        for node in self._pending:
            if node.op_type in {"Shape", "Size"}:
                if not self._read_size(node):
                    waiting.append(node)
            elif all(self._is_ready(value, ready) for value in node.inputs):
                ready.add(node)
                wanted.extend(value for value in node.outputs if self._is_missing(value))
            else:
                waiting.append(node)
        self._pending, self._fresh = waiting, False
        wanted = [value for value in wanted if value.name]
        results = evaluate(self._fragment(wanted), [v.name or "" for v in wanted], refuse=True)
        for name, array in results.items():
            self.shapes[name] = array.shape
            if self.types.setdefault(name, ir.DataType.from_numpy(array.dtype)) == array.dtype:
                if array.size <= SMALL_ELEMENTS:
                    self.values[name] = array

    def _is_ready(self, value: ir.Value | None, ready: set[ir.Node]) -> bool:
        if value is None or is_constant(value) or value.name in self.values:
            return True
        producer = value.producer()
        return producer in ready or (producer in self._structural and value.name in self.shapes and producer not in self._pending)
