"""Real numbers as the integers of a file, under scales that fit them.

A weight's scale changes where that makes the error of the new numbers smaller.  Of a bias the scale is the
product of those of the data and of the weight, which kernels rely on: it changes with the weight's.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.passes.compensators.slots import write
from graphprune.quantization import INTEGER_RANGES, QUANTIZED, scale_behind, scales_of, spread
from graphprune.realnumbers.nbits import Packed
from graphprune.realnumbers.places import numbers_at
from graphprune.realnumbers.scales import best_factors
from graphprune.storage.constants import is_constant

Numbers = npt.NDArray[np.float64]
Spot = tuple[ir.Node, int]
_RANGES = {**INTEGER_RANGES, ir.DataType.INT32: (-(2**31), 2**31 - 1)}
#: Weights whose scale is an input of the same node: that input.
_SCALES = {
    ("DequantizeLinear", 0): 1, ("QLinearConv", 3): 4, ("QLinearMatMul", 3): 4, ("QGemm", 3): 4,
}  # fmt: skip
#: Biases whose scale is the product of two others' at the same node.
_BIASES = {"QLinearConv": 8, "QGemm": 6}


def place_is_quantized(node: ir.Node, i: int) -> bool:
    """Does a node read integers, or numbers of eight bits, at this input?"""
    return (node.op_type, i) in QUANTIZED or (node.op_type == "MatMulNBits" and i == 1)


def requantize(graph: ir.Graph, found: Mapping[Spot, Numbers]) -> None:
    """Writes numbers at places of quantized constants.

    Args:
        graph: of the file's model; is changed.
        found: node and input -> numbers.
    """
    todo = dict(found)
    for (node, i), numbers in found.items():
        if node.op_type == "MatMulNBits":
            _repack(graph, node, numbers)
            del todo[node, i]
            continue
        factors = _factors(node, i, numbers)
        if factors is None:
            continue
        bias = _bias_of(node)
        if bias is not None and bias not in todo:
            todo[bias] = np.asarray(numbers_at(*bias), np.float64)
        scale = _scale_of(node, i)
        assert scale is not None
        scales = [scale]
        if bias is not None and bias[0] is not node:
            scales.append((bias[0], 1))
        for reader, index in scales:
            tensor = _tensor(reader, index)
            assert tensor is not None
            write(
                graph,
                reader,
                index,
                tensor.numpy().astype(np.float64) * factors.reshape(_shape(factors, tensor)),
            )
    for (node, i), numbers in todo.items():
        write(graph, node, i, _coded(node, i, numbers))


def _shape(factors: Numbers, tensor: ir.TensorProtocol) -> tuple[int, ...]:
    return tuple(tensor.shape.numpy()) if factors.size == tensor.size else (1,) * len(tensor.shape)


def _factors(node: ir.Node, i: int, numbers: Numbers) -> Numbers | None:
    """What the scales of a weight are multiplied with; None if they stay, or can't change."""
    spot, value = _scale_of(node, i), node.inputs[i]
    if spot is None or value is None or value.const_value is None:
        return None
    scale, limits = _tensor(*spot), INTEGER_RANGES.get(value.const_value.dtype)
    bias = _bias_of(node)
    if scale is None or limits is None or not _is_own(*spot) or _has_other_readers(node):
        return None
    if spot[0] is not node and len(spot[0].outputs[0].uses()) != 1:
        return None
    if bias is not None and bias[0] is not node:
        other = _tensor(bias[0], 1)
        if other is None or not _is_own(bias[0], 1) or scale.size not in (1, other.size):
            return None
    layout = QUANTIZED[node.op_type, i]
    flat = scale.numpy().astype(np.float64).ravel()
    form = (-1,) if spot[0] is not node else tuple(scale.shape.numpy())
    which = spread(node, layout, np.arange(flat.size).reshape(form), numbers.shape)
    points = _points(node, i, numbers.shape)
    kind = scale.dtype.numpy()
    factors = best_factors(numbers, flat, points, np.asarray(which), limits, partial(_rounded, kind=kind))
    return None if (factors == 1.0).all() else factors


def _scale_of(node: ir.Node, i: int) -> Spot | None:
    """Where the scale of a weight stands: at the node, or behind it."""
    key = node.op_type, i
    if key in _SCALES:
        return node, _SCALES[key]
    value = node.inputs[i]
    if key not in (("MatMulInteger", 1), ("ConvInteger", 1)) or value is None or value.const_value is None:
        return None
    return scale_behind(node, QUANTIZED[key], tuple(value.const_value.shape.numpy()))


def _rounded(scales: Numbers, kind: np.dtype[np.generic]) -> Numbers:
    return scales.astype(kind).astype(np.float64)


def _bias_of(node: ir.Node) -> Spot | None:
    """The integers whose scale hangs on that of a node's weight."""
    if node.op_type != "DequantizeLinear":
        index = _BIASES.get(node.op_type, 0)
        value = node.inputs[index] if 0 < index < len(node.inputs) else None
        return (node, index) if value is not None and is_constant(value) else None
    for reader, i in node.outputs[0].uses():
        bias = reader.inputs[2] if i == 1 and len(reader.inputs) > 2 else None
        producer = bias.producer() if bias is not None else None
        if reader.op_type in ("Conv", "ConvTranspose", "Gemm") and producer is not None:
            source = producer.inputs[0]
            if producer.op_type == "DequantizeLinear" and source is not None and is_constant(source):
                return producer, 0
    return None


def _has_other_readers(node: ir.Node) -> bool:
    """Does more than one layer read a weight, or the bias that goes with it?"""
    bias = _bias_of(node)
    made = [
        n.outputs[0] for n in (node, bias[0] if bias is not None else node) if n.op_type == "DequantizeLinear"
    ]
    return any(len(value.uses()) > 1 for value in made)


def _is_own(node: ir.Node, i: int) -> bool:
    value = node.inputs[i]
    return value is not None and len(value.uses()) == 1


def _coded(node: ir.Node, i: int, numbers: Numbers) -> Numbers:
    """Numbers as those that stand for them, not in their type yet; where a scale is zero, the zero point."""
    value = node.inputs[i]
    assert value is not None
    assert value.const_value is not None
    scale, layout = np.ones(numbers.shape), QUANTIZED[node.op_type, i]
    for factor in scales_of(node, layout, numbers.shape):
        scale = scale * spread(node, layout, factor.astype(np.float64), numbers.shape)
    real = np.divide(numbers, scale, out=np.zeros_like(numbers), where=scale != 0)
    real = real + _points(node, i, numbers.shape)
    dtype = value.const_value.dtype
    if dtype.is_floating_point():  # of eight bits
        most = float(ml_dtypes.finfo(dtype.numpy()).max)  # type: ignore[no-untyped-call]
        return np.asarray(np.clip(real, -most, most))
    return np.asarray(np.clip(np.rint(real), *_RANGES[dtype]))


def _points(node: ir.Node, i: int, shape: tuple[int, ...]) -> Numbers:
    index = QUANTIZED[node.op_type, i].zero_point
    if index is None or _tensor(node, index) is None:
        return np.zeros(shape)
    return _spread(node, i, index, shape)


def _spread(node: ir.Node, i: int, index: int, shape: tuple[int, ...]) -> Numbers:
    tensor = _tensor(node, index)
    assert tensor is not None
    values = tensor.numpy().astype(np.float64)
    return np.asarray(spread(node, QUANTIZED[node.op_type, i], values, shape), np.float64)


def _tensor(node: ir.Node, i: int) -> ir.TensorProtocol | None:
    value = node.inputs[i] if i < len(node.inputs) else None
    return value.const_value if value is not None and is_constant(value) else None


def _repack(graph: ir.Graph, node: ir.Node, numbers: Numbers) -> None:
    packed, tensor = Packed.of(node), _tensor(node, 2)
    if packed is None or tensor is None:
        return
    if _is_own(node, 2):
        packed = packed.rescaled(numbers, partial(_rounded, kind=tensor.dtype.numpy()))
        write(graph, node, 2, packed.scales.reshape(tuple(tensor.shape.numpy())))
    write(graph, node, 1, packed.coded(numbers).astype(np.float64))
