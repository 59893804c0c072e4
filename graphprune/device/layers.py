"""The layers of a model whose time is worth a table, at any widths; and what the other nodes work on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from graphprune.algebra import Axis
from graphprune.axis_counts import AxisCounts
from graphprune.cost import Factor
from graphprune.device.pieces import Attributes, Operand, Piece
from graphprune.graph import DependencyGraph
from graphprune.storage.constants import is_constant

#: Operators that are timed on their own.
TIMED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_CONVOLUTIONS = ("Conv", "ConvTranspose")
#: Operators that move nothing, or that a runtime folds into the layer before.
_FREE = frozenset({
    "BatchNormalization", "Cast", "Constant", "ConstantOfShape", "Dropout", "Flatten", "Identity", "Reshape",
    "Shape", "Squeeze", "Unsqueeze",
})  # fmt: skip
#: Activations that go into the kernel before; a clipped one costs what a plain one does.
_FUSED = {"Relu": "Relu", "Clip": "Relu"}
_TYPES = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
#: Widths that a table is made for; with more, time goes with multiply-adds.
MOST_AXES = 2

Removed = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Size:
    """One size of an operand: ``size`` while ``axis`` has all its positions, its share then.

    Attributes:
        size: nominal.
        axis: place among the layer's axes; None: stays.
        full: positions of that axis.
    """

    size: int
    axis: int | None = None
    full: int = 1

    def at(self, widths: Sequence[int]) -> int:
        """The size when the layer's axes keep so many positions."""
        return self.size if self.axis is None else max(round(widths[self.axis] * self.size / self.full), 1)


@dataclass(frozen=True)
class Layer:
    """A node that is timed.

    Attributes:
        node: in the analysed graph.
        axes: that can shrink, distinct.
        operands: sizes, is it constant, and element type.
        attributes: but for the number of groups of a convolution.
        tail: what follows it in place.
        rank: axes of its result.
    """

    node: ir.Node
    axes: tuple[Axis, ...]
    operands: tuple[tuple[tuple[Size, ...], bool, int], ...]
    attributes: Attributes
    tail: tuple[str, ...]
    rank: int

    @property
    def name(self) -> str:
        """Of the node."""
        return self.node.name or self.node.outputs[0].name or self.node.op_type

    @property
    def has_groups(self) -> bool:
        """Is it a convolution of several groups, each of more than one channel in and one out?"""
        if self.node.op_type not in _CONVOLUTIONS or self._groups == 1:
            return False
        first, second = (size.size for size in self.operands[1][0][:2])
        return (first, second) != (self._groups, 1)

    @property
    def _groups(self) -> int:
        return self.node.attributes.get_int("group", 1)

    @property
    def is_tabled(self) -> bool:
        """Has it few enough widths for a table?"""
        return len(self.axes) <= MOST_AXES and not self.has_groups

    def piece(self, widths: Sequence[int]) -> Piece:
        """The layer when its axes keep so many positions."""
        operands = tuple(
            Operand(tuple(size.at(widths) for size in sizes), constant, dtype)
            for sizes, constant, dtype in self.operands
        )
        attributes = dict(self.attributes)
        if self.node.op_type in _CONVOLUTIONS:
            is_depthwise = self._groups > 1 and not self.has_groups
            attributes["group"] = operands[0].shape[1] if is_depthwise else self._groups
        return Piece(self.node.op_type, operands, tuple(sorted(attributes.items())), self.tail, self.rank)


@dataclass(frozen=True)
class Layers:
    """What a model's time is made of.

    Attributes:
        timed: layers with tables.
        others: for each other node, the sizes whose product is what it works on.
    """

    timed: list[Layer]
    others: list[tuple[ir.Node, list[Factor]]]


def find_layers(graph: DependencyGraph, shapes: Mapping[str, tuple[int, ...]], may_go: Removed) -> Layers:
    """The layers of a model.

    Args:
        graph: of the model.
        shapes: of every value, at the sizes that it will be run with.
        may_go: ``[len(algebra)]`` units that can be removed; axes without any are fixed.
    """
    reader = _Reader(graph, shapes, may_go)
    timed: list[Layer] = []
    swallowed: set[ir.Node] = set()
    others = []
    for node in graph.model.ir.graph:
        layer = reader.layer(node, swallowed)
        if layer is not None:
            timed.append(layer)
        elif node.op_type not in _FREE and node not in swallowed and node.outputs:
            factors = reader.factors(node.outputs[0], (node, None))
            if factors:
                others.append((node, factors))
    return Layers(timed, others)


class _Reader:
    def __init__(
        self, graph: DependencyGraph, shapes: Mapping[str, tuple[int, ...]], may_go: Removed
    ) -> None:
        self._analysis, self._shapes, self._may_go = graph.analysis, shapes, may_go
        self._shrinks: dict[int, bool] = {}

    def factors(self, value: ir.Value, place: tuple[ir.Node, int | None]) -> list[Factor]:
        """Axes of a value where a node has it, with their sizes."""
        node, index = place
        name = value.name or ""
        use = self._analysis.uses.get((node, index)) if index is not None else None
        shape = self._shapes.get(name, ())
        axes = use.axes if use is not None else self._analysis.axes.get(name)
        if axes is None or len(axes) != len(shape):
            axes = [self._analysis.algebra.plain(n) for n in shape]
        return [Factor(a, n) for a, n in zip(axes, shape, strict=True)]

    def layer(self, node: ir.Node, swallowed: set[ir.Node]) -> Layer | None:
        """The layer that a node is; None if it is none that is timed."""
        if node.domain not in ("", "ai.onnx") or node.op_type not in TIMED:
            return None
        inputs = [(v, i) for i, v in enumerate(node.inputs) if v is not None]
        factors = [self.factors(v, (node, i)) for v, i in inputs]
        types = [int(v.dtype) if v.dtype is not None else _TYPES[0] for v, _ in inputs]
        rank = len(self._shapes.get(node.outputs[0].name or "", ()))
        if not all(factors) or not rank or any(t not in _TYPES for t in types):
            return None
        constants = [is_constant(v) for v, _ in inputs]
        tail = self._tail(node, swallowed)
        if tail.bias is not None:
            factors.append(self.factors(*tail.bias))
            constants.append(True)
            types.append(types[0])
        cut = [f for operand in factors for f in operand if self._can_shrink(f.axis)]
        counts = AxisCounts(self._analysis.algebra, [f.axis for f in cut]) if cut else None
        axes = {counts.index(f.axis): f.axis for f in cut} if counts is not None else {}
        place = {index: k for k, index in enumerate(axes)}
        operands = []
        for operand, constant, dtype in zip(factors, constants, types, strict=True):
            sizes = tuple(
                Size(f.size, place[counts.index(f.axis)], f.axis.size)
                if counts is not None and self._can_shrink(f.axis)
                else Size(f.size)
                for f in operand
            )
            operands.append((sizes, constant, dtype))
        return Layer(node, tuple(axes.values()), tuple(operands), _attributes(node), tail.ops, rank)

    def _can_shrink(self, axis: Axis) -> bool:
        if axis.is_plain:
            return False
        key = id(axis.labels)
        if key not in self._shrinks:
            self._shrinks[key] = bool(self._may_go[self._analysis.algebra.live(axis)].any())
        return self._shrinks[key]

    def _tail(self, node: ir.Node, swallowed: set[ir.Node]) -> _Tail:
        """A bias and an activation that run in the layer's own kernel."""
        ops: list[str] = []
        bias, value = None, node.outputs[0]
        outputs = set(self._analysis.model.ir.graph.outputs)
        while len(value.uses()) == 1 and value not in outputs:
            follower, index = next(iter(value.uses()))
            if follower.op_type == "BatchNormalization" and index == 0:
                value = follower.outputs[0]
                continue
            if node.op_type == "MatMul" and not ops and follower.op_type == "Add":
                other = follower.inputs[1 - index]
                if (
                    other is None
                    or not is_constant(other)
                    or len(self._shapes.get(other.name or "", ())) != 1
                ):
                    break
                bias = (other, (follower, 1 - index))
                ops.append("Add")
            elif follower.op_type in _FUSED and index == 0:
                ops.append(_FUSED[follower.op_type])
            else:
                break
            swallowed.add(follower)
            value = follower.outputs[0]
            if ops[-1] != "Add":
                break
        return _Tail(tuple(ops), bias)


@dataclass(frozen=True)
class _Tail:
    ops: tuple[str, ...]
    bias: tuple[ir.Value, tuple[ir.Node, int]] | None


def _attributes(node: ir.Node) -> Attributes:
    found: list[tuple[str, int | float | str | tuple[int, ...]]] = []
    for name, attribute in sorted(node.attributes.items()):
        if name == "group":
            continue
        if attribute.type == ir.AttributeType.INT:
            found.append((name, attribute.as_int()))
        elif attribute.type == ir.AttributeType.INTS:
            found.append((name, tuple(attribute.as_ints())))
        elif attribute.type == ir.AttributeType.FLOAT:
            found.append((name, attribute.as_float()))
        elif attribute.type == ir.AttributeType.STRING:
            found.append((name, attribute.as_string()))
    return tuple(found)
