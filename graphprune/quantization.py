"""Which inputs of the quantized operators hold scales and zero points, and how these run along the numbers.

A quantized tensor stands for ``(q - zero_point) * scale``. So zero is written as the zero point, and a
scale must not be zero where something is divided by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.storage.constants import is_constant


@dataclass(frozen=True)
class Layout:
    """How one input of an operator is quantized.

    Attributes:
        zero_point: input index; None: zero is the number 0.
        scales: input indices of its factors; none when other nodes apply the scale.
        along: axis that a vector of scales or zero points runs along; None: the attribute ``axis``.
        transposed: attribute that says that the last two axes have changed places.
    """

    zero_point: int | None
    scales: tuple[int, ...]
    along: int | None
    transposed: str = ""

    def axis(self, node: ir.Node) -> int:
        """The axis that a vector runs along."""
        if self.along is None:
            return node.attributes.get_int("axis", 1)
        swapped = bool(self.transposed) and bool(node.attributes.get_int(self.transposed, 0))
        return -3 - self.along if swapped else self.along


#: Operators that do to real numbers what they do to integers.
MOVING = frozenset({
    "Concat", "DepthToSpace", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "Reshape", "Slice",
    "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip
#: Least and largest number of each type.
INTEGER_RANGES = {
    ir.DataType.UINT8: (0, 255), ir.DataType.INT8: (-128, 127), ir.DataType.UINT16: (0, 65535),
    ir.DataType.INT16: (-32768, 32767), ir.DataType.UINT4: (0, 15), ir.DataType.INT4: (-8, 7),
}  # fmt: skip
#: Quantized inputs of each operator.
QUANTIZED: dict[tuple[str, int], Layout] = {
    ("DequantizeLinear", 0): Layout(2, (1,), None),
    ("ConvInteger", 0): Layout(2, (), 1),
    ("ConvInteger", 1): Layout(3, (), 0),
    ("MatMulInteger", 0): Layout(2, (), -2),
    ("MatMulInteger", 1): Layout(3, (), -1),
    ("QLinearConv", 0): Layout(2, (1,), 1),
    ("QLinearConv", 3): Layout(5, (4,), 0),
    ("QLinearConv", 8): Layout(None, (1, 4), 0),
    ("QLinearMatMul", 0): Layout(2, (1,), -2),
    ("QLinearMatMul", 3): Layout(5, (4,), -1),
    ("QGemm", 0): Layout(2, (1,), -2, "transA"),
    ("QGemm", 3): Layout(5, (4,), -1, "transB"),
    ("QGemm", 6): Layout(None, (1, 4), -1),
    ("QLinearAdd", 0): Layout(2, (1,), None),
    ("QLinearAdd", 3): Layout(5, (4,), None),
    ("QLinearMul", 0): Layout(2, (1,), None),
    ("QLinearMul", 3): Layout(5, (4,), None),
    ("DynamicQuantizeMatMul", 1): Layout(3, (2,), -1),
    ("MatMulIntegerToFloat", 0): Layout(4, (2,), -2),
    ("MatMulIntegerToFloat", 1): Layout(5, (3,), -1),
    ("QAttention", 0): Layout(6, (3,), -2),
    ("QAttention", 1): Layout(7, (4,), -1),
}
#: Scales and zero points of results: a vector runs along this axis (None: the attribute ``axis``).
RESULTS: dict[str, Layout] = {
    "QuantizeLinear": Layout(2, (1,), None),
    "QLinearConv": Layout(7, (6,), 1),
    "QLinearMatMul": Layout(7, (6,), -2),
}
#: Inputs that are scales or zero points.
PARAMETERS = frozenset(
    (op_type, index)
    for op_type, layout in [*((op, known) for (op, _), known in QUANTIZED.items()), *RESULTS.items()]
    for index in (layout.zero_point, *layout.scales)
    if index is not None
)


def zero_points(node: ir.Node, i: int, shape: tuple[int, ...]) -> npt.NDArray[np.generic] | None:
    """What stands for zero at input ``i``, for arrays of this shape; None: the number 0.

    Only a constant zero point is known here; one that is computed gives None.
    """
    layout = QUANTIZED.get((node.op_type, i))
    if layout is None or layout.zero_point is None:
        return None
    points = _constant(node, layout.zero_point)
    if points is None or not points.any():
        return None
    return spread(node, layout, points, shape)


def real_weights(node: ir.Node, i: int, array: npt.NDArray[np.generic]) -> npt.NDArray[np.float32] | None:
    """The numbers that a quantized constant at input ``i`` stands for; None if it is not quantized there.

    A scale that is found neither at the node nor behind it is taken for 1.
    """
    layout = QUANTIZED.get((node.op_type, i))
    if layout is None:
        return None
    real = array.astype(np.float32)
    points = zero_points(node, i, array.shape)
    if points is not None:
        real = real - points.astype(np.float32)
    for scale in scales_of(node, layout, array.shape):
        real = real * spread(node, layout, scale.astype(np.float32), array.shape)
    return np.asarray(real, np.float32)


def scales_of(node: ir.Node, layout: Layout, shape: tuple[int, ...]) -> list[npt.NDArray[Any]]:
    """The constant factors of the integers at an input: of the node, or behind it; those that are known."""
    if layout.scales:
        found = [_constant(node, i) for i in layout.scales]
    else:
        behind = scale_behind(node, layout, shape)
        factor = _constant(*behind) if behind is not None else None
        found = [factor.reshape(-1) if factor is not None else None]
    return [scale for scale in found if scale is not None]


def spread(
    node: ir.Node, layout: Layout, values: npt.NDArray[Any], shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    """Scales or zero points, broadcast to the shape of the numbers that they belong to."""
    if values.size == 1:
        return np.broadcast_to(values.reshape(-1)[0], shape)
    block = node.attributes.get_int("block_size", 0)
    axis = layout.axis(node)
    if block and values.ndim == len(shape):
        return np.repeat(values, block, axis=axis).take(range(shape[axis]), axis=axis)
    if values.ndim == 1:
        sizes = [1] * len(shape)
        sizes[axis] = values.size
        values = values.reshape(sizes)
    return np.broadcast_to(values, shape)


def scale_behind(node: ir.Node, layout: Layout, shape: tuple[int, ...]) -> tuple[ir.Node, int] | None:
    """Where the constant factor stands that the integers of a node are multiplied with, behind a Cast.

    The factor of the other operand, known at run time only, is often multiplied with it first.
    """
    value = node.outputs[0]
    readers = list(value.uses())
    while len(readers) == 1 and readers[0].node.op_type == "Cast":
        value = readers[0].node.outputs[0]
        readers = list(value.uses())
    if len(readers) != 1 or readers[0].node.op_type != "Mul":
        return None
    factors = [readers[0].node]
    other = readers[0].node.inputs[1 - readers[0].idx]
    producer = other.producer() if other is not None else None
    if producer is not None and producer.op_type == "Mul":
        factors.append(producer)
    for factor in factors:
        for i in range(len(factor.inputs)):
            scale = _constant(factor, i)
            if scale is not None and scale.size in (1, shape[layout.axis(node)]):
                return factor, i
    return None


def _constant(node: ir.Node, i: int) -> npt.NDArray[Any] | None:
    value = node.inputs[i] if i < len(node.inputs) else None
    if value is None or value.const_value is None or not is_constant(value):
        return None
    return value.const_value.numpy()
