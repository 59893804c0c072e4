"""The ops that shape arithmetic is made of, on numpy arrays.

A network exported with symbolic sizes has thousands of these on a handful of numbers each; a
runtime session for them takes longer than the numbers are worth. Only ops that numpy computes bit
for bit as onnxruntime does are here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Array = NDArray[Any]
Inputs = Sequence[Array | None]


def compute(node: ir.Node, inputs: Inputs) -> list[Array] | None:
    """Outputs of ``node``; None if the op is not one of these, or these inputs are no use to it.

    Args:
        node: of the default domain.
        inputs: None where an optional one is left out.
    """
    if node.domain != "":
        return None
    function = _OPS.get(node.op_type)
    if function is None or not inputs or inputs[0] is None:
        return None
    try:
        with np.errstate(all="ignore"):
            return function(node, inputs)
    except (ValueError, IndexError, TypeError, ZeroDivisionError):  # the runtime says what is wrong
        return None


def _ints(node: ir.Node, inputs: Inputs, index: int, name: str) -> tuple[int, ...] | None:
    """Axes and the like, which moved from an attribute to an input in the course of the opsets."""
    if index < len(inputs) and (given := inputs[index]) is not None:
        return tuple(int(i) for i in given.reshape(-1))
    ints: Sequence[int] | None = node.attributes.get_ints(name, None)
    return None if ints is None else tuple(ints)


def _unary(function: Callable[[Array], Array]) -> Callable[[ir.Node, Inputs], list[Array]]:
    return lambda node, inputs: [np.asarray(function(_given(inputs)[0])).astype(_dtype(inputs))]


def _given(inputs: Inputs) -> list[Array]:
    return [array for array in inputs if array is not None]


def _dtype(inputs: Inputs) -> np.dtype[Any]:
    return _given(inputs)[0].dtype


def _binary(function: Callable[[Array, Array], Array]) -> Callable[[ir.Node, Inputs], list[Array]]:
    def apply(node: ir.Node, inputs: Inputs) -> list[Array]:
        result = _given(inputs)[0]
        for other in _given(inputs)[1:]:
            result = np.asarray(function(result, other))
        return [result]

    return apply


def _div(node: ir.Node, inputs: Inputs) -> list[Array] | None:
    left, right = _given(inputs)
    if left.dtype.kind == "f":
        return [np.asarray(np.divide(left, right))]
    if not right.all():
        return None
    quotient = np.asarray(np.floor_divide(np.abs(left), np.abs(right)))  # integers truncate
    return [np.asarray(quotient * (np.sign(left) * np.sign(right))).astype(left.dtype)]


def _mod(node: ir.Node, inputs: Inputs) -> list[Array] | None:
    left, right = _given(inputs)
    if left.dtype.kind == "f" or node.attributes.get_int("fmod", 0) != 0 or not right.all():
        return None
    return [np.asarray(np.mod(left, right))]


def _cast(node: ir.Node, inputs: Inputs) -> list[Array] | None:
    (source,) = _given(inputs)
    target = ir.DataType(node.attributes.get_int("to"))
    plain = {ir.DataType.BOOL, ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT}
    if target not in plain or not np.isfinite(source.astype(np.float64)).all():
        return None
    return [source.astype(target.numpy())]


def _constant_of_shape(node: ir.Node, inputs: Inputs) -> list[Array] | None:
    shape = tuple(int(i) for i in _given(inputs)[0])
    value = node.attributes.get_tensor("value", None)
    fill = np.zeros(1, np.float32) if value is None else value.numpy()
    return [np.full(shape, fill.reshape(-1)[0])] if np.prod(shape) <= _MOST else None


def _expand(node: ir.Node, inputs: Inputs) -> list[Array] | None:
    source, shape = _given(inputs)
    target = np.broadcast_shapes(source.shape, tuple(int(i) for i in shape.reshape(-1)))
    return [np.broadcast_to(source, target).copy()] if np.prod(target) <= _MOST else None


def _range(node: ir.Node, inputs: Inputs) -> list[Array] | None:
    start, limit, step = (array.reshape(-1)[0] for array in _given(inputs))
    if start.dtype.kind != "i" or step == 0:
        return None
    count = max(0, -(-(int(limit) - int(start)) // int(step)))
    if count > _MOST:
        return None
    return [(int(start) + np.arange(count) * int(step)).astype(start.dtype)]


def _gather(node: ir.Node, inputs: Inputs) -> list[Array]:
    source, indices = _given(inputs)
    axis = node.attributes.get_int("axis", 0)
    return [np.asarray(np.take(source, indices.astype(np.int64), axis=axis))]


def _reshape(node: ir.Node, inputs: Inputs) -> list[Array]:
    source, target = _given(inputs)
    keeps_zero: int = node.attributes.get_int("allowzero", 0)
    shape = [source.shape[i] if size == 0 and not keeps_zero else int(size) for i, size in enumerate(target)]
    return [source.reshape(shape)]


def _slice(node: ir.Node, inputs: Inputs) -> list[Array] | None:
    source = _given(inputs)[0]
    starts, ends = _ints(node, inputs, 1, "starts"), _ints(node, inputs, 2, "ends")
    if starts is None or ends is None:
        return None
    axes = _ints(node, inputs, 3, "axes") or tuple(range(len(starts)))
    steps = _ints(node, inputs, 4, "steps") or (1,) * len(starts)
    return [source[slices(source.ndim, starts, ends, axes, steps)]]


def slices(
    rank: int, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int], steps: Sequence[int]
) -> tuple[slice, ...]:
    """What ONNX's Slice takes, as numpy indices."""
    found = [slice(None)] * rank
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        # Going backwards, "past the first element" is written as a huge negative number.
        stop = None if step < 0 and end <= -(2**31) else end
        found[axis] = slice(start, stop, step)
    return tuple(found)


def _squeeze(node: ir.Node, inputs: Inputs) -> list[Array]:
    return [np.squeeze(_given(inputs)[0], axis=_ints(node, inputs, 1, "axes"))]


def _unsqueeze(node: ir.Node, inputs: Inputs) -> list[Array]:
    axes = _ints(node, inputs, 1, "axes") or ()
    return [np.expand_dims(_given(inputs)[0], axis=axes)]


def _split(node: ir.Node, inputs: Inputs) -> list[Array] | None:
    sizes = _ints(node, inputs, 1, "split")
    axis = node.attributes.get_int("axis", 0)
    source = _given(inputs)[0]
    if sizes is None:
        each = -(-source.shape[axis] // len(node.outputs))
        sizes = (each,) * (len(node.outputs) - 1)
        cuts = list(np.cumsum(sizes))
    else:
        cuts = list(np.cumsum(sizes))[:-1]
    return [np.asarray(part) for part in np.split(source, cuts, axis)]


def _reduce_prod(node: ir.Node, inputs: Inputs) -> list[Array]:
    source = _given(inputs)[0]
    axes = _ints(node, inputs, 1, "axes")
    if not axes and node.attributes.get_int("noop_with_empty_axes", 0) != 0:
        return [source]
    keep: int = node.attributes.get_int("keepdims", 1)
    return [np.asarray(np.prod(source, axis=axes or None, keepdims=bool(keep), dtype=source.dtype))]


def _transpose(node: ir.Node, inputs: Inputs) -> list[Array]:
    source = _given(inputs)[0]
    return [source.transpose(node.attributes.get_ints("perm", None))]


# Larger results are never sizes.
_MOST = 1 << 12

_OPS: dict[str, Callable[[ir.Node, Inputs], list[Array] | None]] = {
    "Abs": _unary(np.abs),
    "Add": _binary(np.add),
    "And": _binary(np.logical_and),
    "Cast": _cast,
    "Ceil": _unary(np.ceil),
    "Concat": lambda node, i: [np.concatenate(_given(i), node.attributes.get_int("axis"))],
    "ConstantOfShape": _constant_of_shape,
    "Div": _div,
    "Equal": _binary(np.equal),
    "Expand": _expand,
    "Floor": _unary(np.floor),
    "Gather": _gather,
    "Greater": _binary(np.greater),
    "GreaterOrEqual": _binary(np.greater_equal),
    "Identity": _unary(np.asarray),
    "Less": _binary(np.less),
    "LessOrEqual": _binary(np.less_equal),
    "Max": _binary(np.maximum),
    "Min": _binary(np.minimum),
    "Mod": _mod,
    "Mul": _binary(np.multiply),
    "Neg": _unary(np.negative),
    "Not": _unary(np.logical_not),
    "Or": _binary(np.logical_or),
    "Range": _range,
    "ReduceProd": _reduce_prod,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Sqrt": _unary(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _binary(np.subtract),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": lambda node, i: [np.where(*_given(i))],
}
