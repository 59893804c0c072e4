"""What a model costs, before and after a cut: multiply-adds, parameters, bytes.

The cut model's cost is computed from its exact sizes (how many positions of each axis stay), not estimated.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.algebra import Axis, concat
from graphprune.analysis import Analysis
from graphprune.axis_counts import AxisCounts, Counts
from graphprune.deaths import Deaths
from graphprune.fused_macs import Sizes, fused_terms
from graphprune.loops import nodes_in_loops
from graphprune.model import Model
from graphprune.rules.einsum import parse
from graphprune.rules.recurrent import GATES
from graphprune.shapes.fold_shapes import prepare
from graphprune.shapes.trace import trace

_CONVOLUTIONS = frozenset({"CausalConvWithState", "Conv", "ConvInteger", "DeformConv"})
Removed = npt.NDArray[np.bool_]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Cost:
    """Cost at the nominal input sizes.

    Attributes:
        macs: multiply-adds of Conv, ConvTranspose, Gemm and MatMul, and of their quantized forms, of
            recurrent layers, Einsum, attention and other fused operators.
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
class Factor:
    """One size in a product: an axis, and its nominal size while nothing is cut.

    The axis was analysed at other sizes of the symbolic dims, so that a merged one (batch times heads)
    may be longer there; the nominal size shrinks by the same share.
    """

    axis: Axis
    size: int


@dataclass(frozen=True)
class _Tensor:
    """A constant as its uses see it; uses that keep different positions get copies of their own."""

    uses: list[list[Factor]]
    readers: list[list[ir.Node]]
    item_bytes: float
    is_weight: bool


@dataclass(frozen=True)
class _Use:
    """A constant with axes (as :class:`AxisCounts` numbers them) that some nodes read it with."""

    tensor: _Tensor
    axes: tuple[int, ...]
    factors: list[Factor]
    readers: list[ir.Node]


@dataclass(frozen=True)
class Vector:
    """A constant that the model does not have yet: one number for each position of an axis.

    Attributes:
        axis: the axis.
        reader: goes, and the constant with it.
        item_bytes: of a number.
        head_bytes: of the constant's name and size in the file.
    """

    axis: Axis
    reader: ir.Node
    item_bytes: float
    head_bytes: int


class CostModel:
    """Evaluates the cost of a model for any set of removed units.

    Args:
        analysis: the analysed model.
        file_bytes: size of the model as a file.
        vectors: floating-point constants that are counted too; their heads are part of ``file_bytes``.
    """

    def __init__(self, analysis: Analysis, file_bytes: int, vectors: Sequence[Vector] = ()) -> None:
        self._algebra = analysis.algebra
        self._deaths = Deaths(analysis)
        self.nodes: dict[ir.Node, list[list[Factor]]] = {}  # products of sizes, to be summed
        for node, loops in nodes_in_loops(analysis.trace, analysis.model.ir.graph):
            if terms := _terms(analysis, node):
                times = [Factor(self._algebra.plain(1), n) for n in loops]
                self.nodes[node] = [[*term, *times] for term in terms]
        tensors: list[_Tensor] = []
        stored = 0.0
        for value in analysis.model.ir.graph.initializers.values():
            tensor = value.const_value
            if tensor is None:
                continue
            sizes, nbytes = [int(n) for n in tensor.shape.numpy()], tensor.nbytes
            distinct = _distinct_uses(analysis, value, sizes)
            uses = [_paired(axes, sizes) for axes, _ in distinct]
            readers = [nodes for _, nodes in distinct]
            tensors.append(_Tensor(uses, readers, nbytes / max(prod(sizes), 1), _is_weight(tensor)))
            stored += nbytes
        for vector in vectors:
            factors = [[Factor(vector.axis, vector.axis.size)]]
            tensors.append(_Tensor(factors, [[vector.reader]], vector.item_bytes, True))
        self._overhead = max(file_bytes - stored, 0.0)
        products = [factors for terms in self.nodes.values() for factors in terms]
        self._owners = [node for node, terms in self.nodes.items() for _ in terms]
        every = [*products, *(use for t in tensors for use in t.uses)]
        self._counts = AxisCounts(self._algebra, [factor.axis for use in every for factor in use])
        merged = [use for tensor in tensors for use in self._merged(tensor)]
        self._readers = [use.readers for use in merged]
        self._node_terms = Products(self._counts, products)
        self._use_terms = Products(self._counts, [use.factors for use in merged])
        self._item_bytes = np.array([use.tensor.item_bytes for use in merged])
        self._is_weight = np.array([use.tensor.is_weight for use in merged], bool)
        self._shared = _shared(merged)
        self._dead: dict[int, tuple[Collection[ir.Node], Mask, Mask]] = {}

    def _merged(self, tensor: _Tensor) -> list[_Use]:
        """The uses of a constant, those of equal axes as one."""
        found: dict[tuple[int, ...], _Use] = {}
        for factors, readers in zip(tensor.uses, tensor.readers, strict=True):
            axes = tuple(self._counts.index(factor.axis) for factor in factors)
            found.setdefault(axes, _Use(tensor, axes, factors, [])).readers.extend(readers)
        return list(found.values())

    def evaluate(self, removed: Removed | None = None) -> Cost:
        """Cost when the units in ``removed`` (``[len(algebra)]``) are gone."""
        if removed is None:
            removed = np.zeros(len(self._algebra), bool)
        kept = self._counts.kept(removed)
        elements, macs = self._use_terms.products(kept), self._node_terms.products(kept)
        living = self._deaths.living(removed)
        if living is not None:
            dead_nodes, dead_uses = self._dead_with(living)
            macs[dead_nodes] = 0
            elements[dead_uses] = 0
        elements[self._repeated(kept, removed, elements)] = 0
        return Cost(
            macs=int(macs.sum()),
            params=int(elements[self._is_weight].sum()),
            bytes=round(self._overhead + float(elements @ self._item_bytes)),
        )

    def _dead_with(self, living: set[ir.Node]) -> tuple[Mask, Mask]:
        """Terms of nodes, and uses of constants, that are gone when only these nodes live."""
        if id(living) not in self._dead:
            nodes = np.array([node not in living for node in self._owners], bool)
            # A constant that nobody reads at all stays in the file.
            uses = np.array([bool(r) and living.isdisjoint(r) for r in self._readers], bool)
            self._dead[id(living)] = (living, nodes, uses)  # the set is kept, so that its id stays its own
        return self._dead[id(living)][1:]

    def _repeated(self, kept: Counts, removed: Removed, elements: Counts) -> list[int]:
        """Uses that keep the same positions as an earlier living use of the same constant."""
        masks: dict[int, bytes] = {}
        repeated = []
        for uses in self._shared:
            seen: set[tuple[bytes, ...]] = set()
            for place, axes in uses:
                if not elements[place]:
                    continue
                for i in axes:
                    if i not in masks:
                        is_whole = kept[i] == self._counts.sizes[i]
                        masks[i] = b"" if is_whole else self._counts.mask(i, removed).tobytes()
                key = tuple(masks[i] for i in axes)
                if key in seen:
                    repeated.append(place)
                seen.add(key)
        return repeated

    def node_macs(self, node: ir.Node) -> int:
        """Multiply-adds of one node before the cut."""
        return sum(prod(factor.size for factor in factors) for factors in self.nodes.get(node, []))


def _shared(uses: Sequence[_Use]) -> list[list[tuple[int, tuple[int, ...]]]]:
    """Places and axes of the uses of each constant that has several."""
    places: dict[int, list[tuple[int, tuple[int, ...]]]] = {}
    for place, use in enumerate(uses):
        places.setdefault(id(use.tensor), []).append((place, use.axes))
    return [several for several in places.values() if len(several) > 1]


class Products:
    """Products of sizes, evaluated together."""

    def __init__(self, counts: AxisCounts, terms: list[list[Factor]]) -> None:
        width = max((len(term) for term in terms), default=0)
        self._axis = np.zeros((len(terms), width), np.int64)
        self._size = np.ones((len(terms), width), np.int64)
        self._full = np.zeros((len(terms), width), np.int64)
        for row, term in enumerate(terms):
            for column, factor in enumerate(term):
                self._axis[row, column] = counts.index(factor.axis)
                self._size[row, column] = factor.size
                self._full[row, column] = factor.axis.size

    def products(self, kept: Counts) -> Counts:
        """Each product, when ``kept`` positions of every axis stay."""
        if not self._axis.size:
            return np.ones(len(self._axis), np.int64)
        now, full, size = kept[self._axis], self._full, self._size
        shares = np.rint(now * size / np.maximum(full, 1)).astype(np.int64)
        # The padding has no positions: it counts once.
        factors = np.where((now == full) | (full == 0), size, np.where(size == full, now, shares))
        return np.asarray(factors.prod(axis=1))


def _paired(axes: list[Axis], sizes: list[int]) -> list[Factor]:
    return [Factor(axis, n) for axis, n in zip(axes, sizes, strict=True)]


def _distinct_uses(
    analysis: Analysis, value: ir.Value, sizes: Sequence[int]
) -> list[tuple[list[Axis], list[ir.Node]]]:
    """Axes of a constant at each of its uses, with who reads it so; a use that is no parameter keeps all."""
    plain = [analysis.algebra.plain(n) for n in sizes]
    found: dict[int, tuple[list[Axis], list[ir.Node]]] = {}
    for node, i in value.uses():
        use = analysis.uses.get((node, i))
        axes = use.axes if use is not None else plain
        found.setdefault(id(axes), (axes, []))[1].append(node)
    return list(found.values()) or [(plain, [])]


def _is_weight(tensor: ir.TensorProtocol) -> bool:
    """Floating-point or quantized; wider integers are shapes and indices."""
    dtype = tensor.dtype
    return dtype.is_floating_point() or (dtype.is_integer() and dtype.bitwidth <= 8)


def _factors(analysis: Analysis, node: ir.Node, index: int | None) -> list[Factor]:
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
    return [Factor(a, n) for a, n in zip(axes, shape, strict=False)]


def _terms(analysis: Analysis, node: ir.Node) -> list[list[Factor]]:
    """Products whose sum is the node's multiply-adds; none for an operator that has none."""
    if node.op_type == "Einsum":
        return list(_pairwise(analysis, node))
    fused = fused_terms(node, _sizes(analysis, node))
    if fused is not None:
        return fused
    factors = _macs(analysis, node)
    return [] if factors is None else [factors]


def _sizes(analysis: Analysis, node: ir.Node) -> Sizes[Factor]:
    def of(index: int | None) -> list[Factor]:
        return _factors(analysis, node, index) if index is None or index < len(node.inputs) else []

    return Sizes(
        of=of,
        number=lambda factor: factor.size,
        fixed=lambda n: Factor(analysis.algebra.plain(n), n),
        first=lambda factor, n: Factor(factor.axis.take(np.arange(n)), n),
    )


def _pairwise(analysis: Analysis, node: ir.Node) -> Iterator[list[Factor]]:
    """Einsum takes its operands one after the other; each step runs over all labels of the two at hand.

    Labels that no other operand and no result has are summed before, later ones as soon as possible.
    """
    inputs = [_factors(analysis, node, i) for i in range(len(node.inputs))]
    try:
        equation = node.attributes.get_string("equation", "")
        operands, out = parse(equation, [len(axes) for axes in inputs])
    except ValueError:
        return
    factor: dict[str, Factor] = {}
    for labels, axes in zip(operands, inputs, strict=True):
        for label, axis in zip(labels, axes, strict=True):
            if label not in factor or factor[label].size == 1:
                factor[label] = axis
    here: set[str] = set()
    for i, labels in enumerate(operands):
        elsewhere = {*out, *(label for other in operands[:i] + operands[i + 1 :] for label in other)}
        here |= set(labels) & elsewhere
        if i:
            yield [factor[label] for label in sorted(here)]
        here &= {*out, *(label for later in operands[i + 1 :] for label in later)}


def _macs(analysis: Analysis, node: ir.Node) -> list[Factor] | None:
    """Sizes whose product is the node's multiply-adds; None for an operator that has none."""
    if node.op_type in ("DynamicQuantizeMatMul", "MatMulIntegerToFloat"):
        return _factors(analysis, node, None) + _factors(analysis, node, 0)[-1:]
    if node.domain not in ("", "ai.onnx") and node.op_type != "QGemm":
        return None
    if node.op_type in _CONVOLUTIONS:  # every output element sums over the weight's inner axes
        return _factors(analysis, node, None) + _factors(analysis, node, 1)[1:]
    if node.op_type == "ConvTranspose":  # every input element meets the weight's inner axes
        return _factors(analysis, node, 0) + _factors(analysis, node, 1)[1:]
    if node.op_type == "QLinearConv":
        return _factors(analysis, node, None) + _factors(analysis, node, 3)[1:]
    if node.op_type in ("MatMul", "MatMulInteger", "QLinearMatMul"):
        return _factors(analysis, node, None) + _factors(analysis, node, 0)[-1:]
    if node.op_type in GATES:  # at each step, every gate reads the input and the hidden state
        x, w, r = (_factors(analysis, node, i) for i in range(3))
        read = [concat([a.axis, b.axis]) for a, b in zip(w[2:], r[2:], strict=True)]
        return [*x[:2], *w[:2], *(Factor(axis, axis.size) for axis in read)]
    if node.op_type in ("Gemm", "QGemm"):
        inner = 0 if node.attributes.get("transA") and node.attributes["transA"].as_int() else 1
        return _factors(analysis, node, None) + _factors(analysis, node, 0)[inner : inner + 1]
    return None


def measure(
    model: Model,
    dims: Mapping[str, int] | None = None,
    *,
    is_prepared: bool = False,
    file_bytes: int | None = None,
) -> Cost:
    """Cost of a model as it is, from its traced shapes alone.

    Args:
        model: the model; unchanged.
        dims: sizes for symbolic dimensions.
        is_prepared: its shape arithmetic is folded already, as that of every cut is.
        file_bytes: its size as a file, if that is known.
    """
    prepared, found = (model, trace(model, dims, only_nominal=True)) if is_prepared else prepare(model, dims)
    analysis, graph = Analysis(prepared, found), prepared.ir.graph
    products = [
        prod([*(factor.size for factor in term), *loops])
        for node, loops in nodes_in_loops(found, graph)
        for term in _terms(analysis, node)
    ]
    tensors = [v.const_value for v in graph.initializers.values() if v.const_value is not None]
    params = sum(tensor.size for tensor in tensors if _is_weight(tensor))
    size = model.file_bytes if file_bytes is None else file_bytes
    return Cost(sum(products), params, max(size, sum(tensor.nbytes for tensor in tensors)))
