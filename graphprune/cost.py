"""What a model costs, before and after a cut: multiply-adds, parameters, bytes.

The cut model's cost is computed from its exact sizes (how many positions of each axis stay), not estimated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.algebra import Axis
from graphprune.analysis import Analysis
from graphprune.fold_shapes import prepare
from graphprune.model import Model

Removed = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Cost:
    """Cost at the nominal input sizes.

    Attributes:
        macs: multiply-adds of Conv, ConvTranspose, Gemm and MatMul.
        params: elements of floating-point and integer weights.
        bytes: size of the file (with external data).
    """

    macs: int
    params: int
    bytes: int

    def ratio(self, other: Cost) -> dict[str, float]:
        """This cost as fractions of another."""
        return {
            "macs": self.macs / max(other.macs, 1),
            "params": self.params / max(other.params, 1),
            "bytes": self.bytes / max(other.bytes, 1),
        }


@dataclass(frozen=True)
class _Factor:
    """One size in a product: an axis, and its size while nothing is cut."""

    axis: Axis
    size: int


class CostModel:
    """Evaluates the cost of a model for any set of removed units.

    Args:
        analysis: the analysed model.
        file_bytes: size of the model as a file.
    """

    def __init__(self, analysis: Analysis, file_bytes: int) -> None:
        self._algebra = analysis.algebra
        self._rows: dict[int, npt.NDArray[np.int32]] = {}
        self._axes: list[Axis] = []  # keeps the labels alive, whose ids are keys above
        self.nodes: dict[ir.Node, list[_Factor]] = {}
        for node in analysis.model.ir.graph:
            factors = _macs(analysis, node)
            if factors is not None:
                self.nodes[node] = factors
        self._tensors: list[tuple[list[_Factor], float, bool]] = []
        stored = 0.0
        for value in analysis.model.ir.graph.initializers.values():
            tensor = value.const_value
            if tensor is None:
                continue
            use = next((u for u in _uses(analysis, value)), None)
            sizes = [int(n) for n in tensor.shape.numpy()]
            axes = use or [analysis.algebra.plain(n) for n in sizes]
            item = tensor.nbytes / max(tensor.size, 1)
            is_weight = tensor.dtype.is_floating_point() or use is not None
            self._tensors.append(([_Factor(a, n) for a, n in zip(axes, sizes, strict=True)], item, is_weight))
            stored += tensor.nbytes
        self._overhead = max(file_bytes - stored, 0.0)
        for factors in [*self.nodes.values(), *(t for t, _, _ in self._tensors)]:
            for factor in factors:
                self._remember(factor.axis)

    def _remember(self, axis: Axis) -> None:
        if not axis.is_plain and id(axis.labels) not in self._rows:
            self._rows[id(axis.labels)] = self._algebra.live(axis)
            self._axes.append(axis)

    def evaluate(self, removed: Removed | None = None) -> Cost:
        """Cost when the units in ``removed`` (``[len(algebra)]``) are gone."""
        if removed is None:
            removed = np.zeros(len(self._algebra), bool)
        sizes = {key: int((~removed[rows].any(axis=1)).sum()) for key, rows in self._rows.items()}
        macs = sum(_product(factors, sizes) for factors in self.nodes.values())
        params, stored = 0, self._overhead
        for factors, item, is_weight in self._tensors:
            count = _product(factors, sizes)
            params += count if is_weight else 0
            stored += count * item
        return Cost(macs, params, round(stored))

    def node_macs(self, node: ir.Node) -> int:
        """Multiply-adds of one node before the cut."""
        return _product(self.nodes.get(node, [_Factor(self._algebra.plain(0), 0)]), {})


def _product(factors: list[_Factor], sizes: Mapping[int, int]) -> int:
    total = 1
    for factor in factors:
        total *= sizes.get(id(factor.axis.labels), factor.size)
    return total


def _uses(analysis: Analysis, value: ir.Value) -> list[list[Axis]]:
    found = [(node, i) for node, i in value.uses() if (node, i) in analysis.uses]
    return [analysis.uses[key].axes for key in found]


def _factors(analysis: Analysis, node: ir.Node, index: int | None) -> list[_Factor]:
    """Axes of input ``index`` (None: of the first output) with their nominal sizes."""
    value = node.outputs[0] if index is None else node.inputs[index]
    if value is None:
        return []
    name = value.name or ""
    shape = analysis.trace.nominal.get(name) or analysis.trace.shapes.get(name, ())
    use = analysis.uses.get((node, index)) if index is not None else None
    axes = use.axes if use is not None else analysis.axes.get(name)
    if axes is None:
        axes = [analysis.algebra.plain(n) for n in shape]
    return [_Factor(a, n) for a, n in zip(axes, shape, strict=False)]


def _macs(analysis: Analysis, node: ir.Node) -> list[_Factor] | None:
    """Sizes whose product is the node's multiply-adds; None for an operator that has none."""
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "Conv":  # every output element sums over the weight's inner axes
        return _factors(analysis, node, None) + _factors(analysis, node, 1)[1:]
    if node.op_type == "ConvTranspose":  # every input element meets the weight's inner axes
        return _factors(analysis, node, 0) + _factors(analysis, node, 1)[1:]
    if node.op_type == "MatMul":
        return _factors(analysis, node, None) + _factors(analysis, node, 0)[-1:]
    if node.op_type == "Gemm":
        inner = 0 if node.attributes.get("transA") and node.attributes["transA"].as_int() else 1
        return _factors(analysis, node, None) + _factors(analysis, node, 0)[inner : inner + 1]
    return None


def measure(model: Model, dims: Mapping[str, int] | None = None) -> Cost:
    """Cost of a model as it is, from its traced shapes alone."""
    prepared, trace = prepare(model, dims)
    return CostModel(Analysis(prepared, trace), model.file_bytes).evaluate()
