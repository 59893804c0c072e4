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
from graphprune.model import Model
from graphprune.shapes.fold_shapes import prepare

Removed = npt.NDArray[np.bool_]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Cost:
    """Cost at the nominal input sizes.

    Attributes:
        macs: multiply-adds of Conv, ConvTranspose, Gemm and MatMul.
        params: elements of floating-point and quantized (8 bits and fewer) constants.
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
    """One size in a product: an axis, and its nominal size while nothing is cut.

    The axis was analysed at other sizes of the symbolic dims, so that a merged one (batch times heads)
    may be longer there; the nominal size shrinks by the same share.
    """

    axis: Axis
    size: int


@dataclass(frozen=True)
class _Tensor:
    """A constant as its uses see it; uses that keep different positions get copies of their own."""

    uses: list[list[_Factor]]
    item_bytes: float
    is_weight: bool


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
        self._tensors: list[_Tensor] = []
        stored = 0.0
        for value in analysis.model.ir.graph.initializers.values():
            tensor = value.const_value
            if tensor is None:
                continue
            sizes = [int(n) for n in tensor.shape.numpy()]
            uses = [_paired(axes, sizes) for axes in _distinct_uses(analysis, value)]
            self._tensors.append(_Tensor(uses, tensor.nbytes / max(tensor.size, 1), _is_weight(tensor)))
            stored += tensor.nbytes
        self._overhead = max(file_bytes - stored, 0.0)
        for factors in [*self.nodes.values(), *(use for t in self._tensors for use in t.uses)]:
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
        masks = {key: np.asarray(~removed[rows].any(axis=1)) for key, rows in self._rows.items()}
        sizes = {key: int(mask.sum()) for key, mask in masks.items()}
        macs = sum(_product(factors, sizes) for factors in self.nodes.values())
        params, stored = 0, self._overhead
        for tensor in self._tensors:
            count: int = sum(_product(use, sizes) for use in _copies(tensor.uses, masks))
            params += count if tensor.is_weight else 0
            stored += count * tensor.item_bytes
        return Cost(macs, params, round(stored))

    def node_macs(self, node: ir.Node) -> int:
        """Multiply-adds of one node before the cut."""
        return _product(self.nodes.get(node, [_Factor(self._algebra.plain(0), 0)]), {})


def _product(factors: list[_Factor], sizes: Mapping[int, int]) -> int:
    total = 1
    for factor in factors:
        alive = sizes.get(id(factor.axis.labels))
        if alive is None or alive == factor.axis.size:
            total *= factor.size
        elif factor.size == factor.axis.size:
            total *= alive
        else:
            total *= round(alive * factor.size / factor.axis.size)
    return total


def _copies(uses: list[list[_Factor]], masks: Mapping[int, Mask]) -> list[list[_Factor]]:
    """One of each set of uses that keep the same positions."""
    if len(uses) == 1:
        return uses
    kept = {}
    for use in uses:
        found = [masks.get(id(factor.axis.labels)) for factor in use]
        kept[tuple(b"" if m is None or m.all() else m.tobytes() for m in found)] = use
    return list(kept.values())


def _paired(axes: list[Axis], sizes: list[int]) -> list[_Factor]:
    return [_Factor(axis, n) for axis, n in zip(axes, sizes, strict=True)]


def _distinct_uses(analysis: Analysis, value: ir.Value) -> list[list[Axis]]:
    """Axes of a constant at each of its uses; a use that is no parameter keeps all positions."""
    assert value.const_value is not None
    plain = [analysis.algebra.plain(int(n)) for n in value.const_value.shape.numpy()]
    found = [analysis.uses[key].axes if key in analysis.uses else plain for key in _keys(value)]
    return list({id(axes): axes for axes in found}.values()) or [plain]


def _keys(value: ir.Value) -> list[tuple[ir.Node, int]]:
    return [(node, i) for node, i in value.uses()]


def _is_weight(tensor: ir.TensorProtocol) -> bool:
    """Floating-point or quantized; wider integers are shapes and indices."""
    dtype = tensor.dtype
    return dtype.is_floating_point() or (dtype.is_integer() and dtype.bitwidth <= 8)


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
