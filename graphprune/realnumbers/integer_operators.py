"""What operators on integers are in real numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphprune.storage.constants import is_constant


@dataclass(frozen=True)
class Plain:
    """An operator that reads quantized operands and quantizes its result.

    Attributes:
        op_type: in real numbers.
        inputs: that are data or weights.
        scale: input that holds the scale of the result; the next one is its zero point.
        dropped: attributes that the operator in real numbers does not have.
    """

    op_type: str
    inputs: tuple[int, ...]
    scale: int
    dropped: tuple[str, ...] = ()

    def operands(self, node: ir.Node) -> list[int]:
        """Inputs that are data or weights and are there; of a Concat every third."""
        found = range(2, len(node.inputs), 3) if self.op_type == "Concat" else self.inputs
        return [i for i in found if i < len(node.inputs) and node.inputs[i] is not None]

    def is_followed(self, node: ir.Node) -> bool:
        """Does it mean what the operator in real numbers means?"""
        if node.attributes.get_int("channels_last", 0):
            return False
        return self.op_type != "Softmax" or node.attributes.get_int("opset", 0) >= 13


PLAIN: dict[str, Plain] = {
    "QLinearConv": Plain("Conv", (0, 3, 8), 6),
    "QLinearMatMul": Plain("MatMul", (0, 3), 6),
    "QLinearAdd": Plain("Add", (0, 3), 6),
    "QLinearMul": Plain("Mul", (0, 3), 6),
    "QLinearConcat": Plain("Concat", (), 0),
    "QLinearLeakyRelu": Plain("LeakyRelu", (0,), 3),
    "QLinearSigmoid": Plain("Sigmoid", (0,), 3),
    "QLinearSoftmax": Plain("Softmax", (0,), 3, ("opset",)),
    "QLinearGlobalAveragePool": Plain("GlobalAveragePool", (0,), 3, ("channels_last",)),
    "QLinearAveragePool": Plain("AveragePool", (0,), 3, ("channels_last",)),
    "QGemm": Plain("Gemm", (0, 3, 6), 7),
}


#: Under which scale and zero point integers stand for numbers, so that it can be compared; None: unknown.
Code = tuple[object, ...]


def code_of(node: ir.Node, scale: int, point: int) -> Code:
    """The scale and the zero point at two inputs of a node: their numbers, or who computes them."""
    found: list[object] = []
    for i in (scale, point):
        value = node.inputs[i] if i < len(node.inputs) else None
        if value is None:
            found.append(0.0)
        elif not is_constant(value) or value.const_value is None:
            found.append(value)
        else:
            array = value.const_value.numpy().astype(np.float64).ravel()
            same = array.size > 0 and bool((array == array[0]).all())
            found.append(float(array[0]) if same else (array.tobytes(), node.attributes.get_int("axis", 1)))
    return tuple(found)


def is_along_an_axis(code: Code) -> bool:
    """Do positions of one axis have scales or zero points of their own?"""
    return any(isinstance(part, tuple) for part in code)


def scaled(node: ir.Node, original: ir.Node) -> ir.Value | None:
    """The value that holds a product of integers times its scales, behind a Cast; None if that is not there.

    Of data that are quantized while the model runs, the scale is one of the factors.
    """
    quantizer = original.inputs[0].producer() if original.inputs[0] is not None else None
    if quantizer is None or quantizer.op_type != "DynamicQuantizeLinear":
        return None
    if len(original.inputs) < 3 or original.inputs[2] is not quantizer.outputs[2]:
        return None
    cast = _only_reader(original.outputs[0], "Cast")
    product = _only_reader(cast.outputs[0], "Mul") if cast is not None else None
    if cast is None or product is None:
        return None
    other = next((v for v in product.inputs if v is not cast.outputs[0]), None)
    if other is None:
        return None
    factors: set[ir.Value | None] = {other}
    if (scales := other.producer()) is not None and scales.op_type == "Mul":
        factors = set(scales.inputs)
    if quantizer.outputs[1] not in factors or len(factors) > 2:
        return None
    if any(v is not quantizer.outputs[1] and (v is None or not is_constant(v)) for v in factors):
        return None
    end = node.outputs[0]
    for _ in range(2):
        end = next(iter(end.uses()))[0].outputs[0]
    return end


def _only_reader(value: ir.Value, op_type: str) -> ir.Node | None:
    readers = [node for node, _ in value.uses()]
    is_one = len(readers) == 1 and readers[0].op_type == op_type and not value.is_graph_output()
    return readers[0] if is_one else None
