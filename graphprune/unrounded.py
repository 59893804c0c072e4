"""A quantized model in real numbers: the same scales, zero points and clipping, but nothing is rounded.

Two models that are equal up to the order of their sums differ in the last bit before they round to 8 bits.
A few numbers then fall to the other side, and some layers later every output differs by a percent.
Without the rounding they can be compared as sharply as any other model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphprune.compare import session
from graphprune.foreign import runnable
from graphprune.model import Model
from graphprune.names import unique_name
from graphprune.quantization import INTEGER_RANGES, MOVING
from graphprune.realnumbers.copying import real_copy
from graphprune.shapes.shape_values import reads
from graphprune.storage.constants import is_constant
from graphprune.tolerance import in_single_precision

_INTEGER_SUMS = ("MatMulInteger", "ConvInteger")
_QUANTIZERS = ("QuantizeLinear", "DynamicQuantizeLinear")
#: A step of the quantization here and there, by the time it comes to the outputs.
_ROUNDED = 5e-2
#: Against 0 / 0 where all that is to be quantized is zero.
_TINY = 1e-30


def without_rounding(pair: tuple[Model, Model], accepted: float) -> tuple[tuple[Model, Model], float]:
    """Two models to compare, and how far apart they may be.

    Those in 16 bits are compared in float32, quantized ones as they are without the rounding.  Where that
    can't be had, sums of other lengths may move some numbers by one step of the quantization.
    """
    wide = in_single_precision(pair[0]), in_single_precision(pair[1])
    if wide[1] is not pair[1] or rounds(pair[0]):
        session(runnable(pair[1]))  # what is written has to load as well
    if not rounds(pair[0]):
        return wide, accepted
    for smooth in (unrounded, _real):
        first, second = (smooth(model) for model in wide)
        if first is not None and second is not None:
            return (first, second), accepted
    return wide, max(accepted, _ROUNDED)


def _real(model: Model) -> Model | None:
    found = real_copy(model)
    return None if found is None else found[0]


def rounds(model: Model) -> bool:
    """Does the model round activations to a few bits?"""
    return any(
        n.op_type in _QUANTIZERS or n.op_type.startswith("QLinear") for n in model.ir.graph.all_nodes()
    )


def unrounded(model: Model) -> Model | None:
    """A copy that works on real numbers; None if some operator needs the integers.

    Quantized tensors hold ``x / scale + zero_point``, clipped.
    """
    copy = model.clone()
    graph = copy.ir.graph
    real: set[ir.Value] = set()
    for node in list(graph):
        touched = [value for value in reads(node) if value in real]
        edit = _Edit(graph, node, real)
        if node.domain == "" and node.op_type == "QuantizeLinear":
            done = edit.quantize()
        elif node.domain == "" and node.op_type == "DynamicQuantizeLinear":
            done = edit.quantize_dynamically()
        elif not touched:
            done = not node.op_type.startswith("QLinear")
        elif node.domain == "" and node.op_type == "DequantizeLinear":
            done = edit.dequantize()
        elif node.domain == "" and node.op_type in _INTEGER_SUMS:
            done = edit.sum_products()
        elif node.op_type == "Cast":  # from numbers to numbers of the type that it names
            done = ir.DataType(node.attributes.get_int("to", 0)).is_floating_point()
        else:
            done = _moves(node, touched)
            real.update(node.outputs)
            _retype(node.outputs, touched[0].dtype)
        if not done:
            return None
        if not any(value.uses() for value in node.outputs) and edit.is_replaced:
            graph.remove(node, safe=True)
    return None if any(v in real for v in graph.outputs) else copy


def _moves(node: ir.Node, touched: Sequence[ir.Value]) -> bool:
    """Does the node only move what it is given, all of which is real (Pad: with zeros)?"""
    if node.op_type not in MOVING or node.domain != "":
        return False
    if node.op_type == "Concat":
        return len(touched) == len(node.inputs)
    is_data = len(touched) == 1 and node.inputs[0] is touched[0]
    return is_data and (node.op_type != "Pad" or len(node.inputs) == 2)


def _retype(values: Sequence[ir.Value], dtype: ir.DataType | None) -> None:
    for value in values:
        value.type = None if dtype is None else ir.TensorType(dtype)


class _Edit:
    """Takes the place of one node."""

    def __init__(self, graph: ir.Graph, node: ir.Node, real: set[ir.Value]) -> None:
        self._graph, self._node, self._real = graph, node, real
        self.is_replaced = False

    def quantize(self) -> bool:
        """``clip(x / scale + zero_point)``."""
        x, scale = self._node.inputs[:2]
        point = self._node.inputs[2] if len(self._node.inputs) > 2 else None
        dtype = _type_of(scale)
        kind = point.dtype if point is not None else None
        if point is None:
            code = self._node.attributes.get_int("output_dtype", 0)
            kind = ir.DataType(code) if code else ir.DataType.UINT8
        if x is None or scale is None or dtype is None or kind not in INTEGER_RANGES or not _is_scalar(scale):
            return False
        y = self._add("Div", [x, scale])
        if point is not None:
            if not _is_scalar(point):
                return False
            y = self._add("Add", [y, self._number(point, dtype)])
        low, high = (self._constant(np.asarray(n, dtype.numpy())) for n in INTEGER_RANGES[kind])
        self._replace(0, self._add("Min", [self._add("Max", [y, low]), high]), dtype)
        return True

    def quantize_dynamically(self) -> bool:
        """The same, with scale and zero point from the range of x and zero."""
        x = self._node.inputs[0]
        if x is None:
            return False
        flat = {"keepdims": 0}
        zero, steps, tiny = (self._constant(np.asarray(n, np.float32)) for n in (0.0, 255.0, _TINY))
        high = self._add("Max", [self._add("ReduceMax", [x], flat), zero])
        low = self._add("Min", [self._add("ReduceMin", [x], flat), zero])
        span = self._add("Div", [self._add("Sub", [high, low]), steps])
        scale = self._add("Max", [span, tiny])
        point = self._add("Neg", [self._add("Div", [low, scale])])
        y = self._add("Add", [self._add("Div", [x, scale]), point])
        for i, value in enumerate((y, scale, point)):
            if i < len(self._node.outputs):
                self._replace(i, value, ir.DataType.FLOAT, is_real=i != 1)
        return True

    def dequantize(self) -> bool:
        """``(x - zero_point) * scale``."""
        x, scale = self._node.inputs[:2]
        point = self._node.inputs[2] if len(self._node.inputs) > 2 else None
        dtype = _type_of(scale)
        if x is None or scale is None or dtype is None or x not in self._real:
            return False
        if not _is_scalar(scale) or (point is not None and not _is_scalar(point)):
            return False
        y = x if point is None else self._add("Sub", [x, self._number(point, dtype)])
        self._replace(0, self._add("Mul", [y, scale]), dtype, is_real=False)
        return True

    def sum_products(self) -> bool:
        """MatMul or Conv of what is left once the zero points are subtracted."""
        operands = []
        for i in (0, 1):
            value = self._node.inputs[i]
            point = self._node.inputs[i + 2] if len(self._node.inputs) > i + 2 else None
            if value is None:
                return False
            number = self._number(value, ir.DataType.FLOAT)
            if point is not None:
                shifted = self._number(point, ir.DataType.FLOAT)
                if not _is_scalar(point):
                    if not is_constant(point) or i == 0:
                        return False
                    shifted = self._along_weights(point)
                number = self._add("Sub", [number, shifted])
            operands.append(number)
        op_type = "Conv" if self._node.op_type == "ConvInteger" else "MatMul"
        result = ir.node(op_type, operands, dict(self._node.attributes))
        result.outputs[0].name = unique_name(self._graph, f"{self._node.outputs[0].name}/sum")
        self._graph.insert_before(self._node, result)
        self._replace(0, result.outputs[0], ir.DataType.FLOAT)
        return True

    def _along_weights(self, point: ir.Value) -> ir.Value:
        """A zero point per output channel: the first axis of a convolution's weight, the last of a matrix."""
        assert point.const_value is not None
        weight = self._node.inputs[1]
        array = point.const_value.numpy().astype(np.float32)
        if self._node.op_type == "ConvInteger" and weight is not None and weight.const_value is not None:
            array = array.reshape(-1, *[1] * (len(weight.const_value.shape) - 1))
        return self._constant(array)

    def _number(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """An integer tensor as real numbers."""
        return value if value in self._real else self._add("Cast", [value], {"to": int(dtype)})

    def _constant(self, array: np.ndarray) -> ir.Value:
        name = unique_name(self._graph, f"{self._node.outputs[0].name}/number")
        tensor = ir.tensor(array, name=name)
        value = ir.Value(
            name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
        )
        self._graph.register_initializer(value)
        return value

    def _add(
        self, op_type: str, inputs: Sequence[ir.Value], attributes: dict[str, int] | None = None
    ) -> ir.Value:
        node = ir.node(op_type, list(inputs), attributes or {})
        node.outputs[0].name = unique_name(self._graph, f"{self._node.outputs[0].name}/real")
        self._graph.insert_before(self._node, node)
        return node.outputs[0]

    def _replace(self, i: int, value: ir.Value, dtype: ir.DataType, *, is_real: bool = True) -> None:
        old, self.is_replaced = self._node.outputs[i], True
        old.replace_all_uses_with(value, replace_graph_outputs=True)
        name, old.name = old.name, unique_name(self._graph, f"{old.name}/rounded")
        value.name = name
        _retype([value], dtype)
        value.shape = old.shape
        if is_real:
            self._real.add(value)


def _is_scalar(value: ir.Value | None) -> bool:
    """One number; a computed value of unknown shape is the result of DynamicQuantizeLinear."""
    if value is None:
        return False
    if value.const_value is not None:
        return value.const_value.size == 1
    return value.shape is None or all(n == 1 for n in value.shape)


def _type_of(value: ir.Value | None) -> ir.DataType | None:
    """Floating-point type of a scale."""
    if value is None:
        return None
    return value.const_value.dtype if value.const_value is not None else value.dtype
