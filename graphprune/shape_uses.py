"""Where sizes become numbers.

A value computed from ``Shape`` may go to a shape (Reshape, Expand, ...), which follows the cut if the
result has the same units, or into arithmetic on data (a mean's divisor, ``1/sqrt(d)``), which must keep what
it was.  Sizes known beforehand were made constants already (:mod:`graphprune.shapes.fold_shapes`); what is
left mixes in a runtime size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx_ir as ir

from graphprune.algebra import Algebra, Axis
from graphprune.rules.context import Reason
from graphprune.shapes.shape_values import SHAPE_INPUTS
from graphprune.storage.constants import is_constant

#: Operators through which a size stays a size (integers only).
SHAPE_ARITHMETIC = {
    "Gather", "Slice", "Concat", "Unsqueeze", "Squeeze", "Cast", "Identity", "Reshape", "Add", "Sub", "Mul",
    "Div", "Mod", "Neg", "Abs", "Max", "Min", "Floor", "Ceil", "ReduceProd", "ReduceSum", "ReduceMax",
    "ReduceMin", "Where", "Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Not", "And", "Or",
    "Flatten", "Split", "ConstantOfShape", "Expand", "Size", "Shape", "Range",
}  # fmt: skip

_INTEGERS = {ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL}


def numeric_shape_uses(
    graph: ir.Graph, axes: Mapping[str, list[Axis]], algebra: Algebra
) -> Iterator[tuple[Axis, Reason]]:
    """Axes whose size turns into a number that a cut would change, with the node where it does.

    Args:
        graph: the graph.
        axes: of its values, by name.
        algebra: with all that the rules stated.
    """
    for node in graph.all_nodes():
        if node.op_type not in ("Shape", "Size") or node.domain not in ("", "ai.onnx"):
            continue
        value = node.inputs[0]
        measured = axes.get(value.name or "", []) if value is not None else []
        if all(axis.is_plain for axis in measured):
            continue
        if node.op_type == "Shape":
            first = node.attributes["start"].as_int() if "start" in node.attributes else 0
            last = node.attributes["end"].as_int() if "end" in node.attributes else None
            measured = measured[first:last]
        if node.outputs[0].is_graph_output():
            for axis in measured:
                yield axis, Reason("its size is an output", node.name or "", node.op_type)
        for reader, index in node.outputs[0].uses():
            for axis in _read(node, reader, index, measured):
                reason = _first_wrong_use([(reader, index)], _units(algebra, [axis]), axes, algebra)
                if reason is not None:
                    yield axis, reason


def _read(node: ir.Node, reader: ir.Node, index: int, measured: list[Axis]) -> list[Axis]:
    """The axes whose sizes this reader of a Shape looks at."""
    picked = measured
    if node.op_type == "Shape" and index == 0 and reader.op_type in ("Gather", "Slice"):
        numbers = [_ints(value) for value in reader.inputs[1:]]
        if reader.op_type == "Gather" and numbers[0] is not None:
            picked = [measured[i] for i in numbers[0]]
        elif reader.op_type == "Slice" and len(known := [n for n in numbers if n]) == len(numbers) >= 2:
            step = known[3][0] if len(known) > 3 else 1
            if step > 0:
                picked = measured[known[0][0] : known[1][0] : step]
    return [axis for axis in picked if not axis.is_plain]


def _ints(value: ir.Value | None) -> list[int] | None:
    if value is None or value.const_value is None or not is_constant(value):
        return None
    return [int(i) for i in value.const_value.numpy().reshape(-1)]


def _units(algebra: Algebra, axes: Iterable[Axis]) -> set[int]:
    return {int(unit) for axis in axes for unit in np.unique(algebra.live(axis))} - {0}


def _first_wrong_use(
    uses: list[tuple[ir.Node, int]],
    units: set[int],
    axes: Mapping[str, list[Axis]],
    algebra: Algebra,
) -> Reason | None:
    """Where the size of an axis with these units becomes a number, or shapes what does not follow it."""
    seen: set[ir.Value] = set()
    todo = list(uses)
    while todo:
        node, index = todo.pop()
        if index in SHAPE_INPUTS.get(node.op_type, ()):
            made = (axis for value in node.outputs for axis in axes.get(value.name or "", []))
            if units <= _units(algebra, made):
                continue
            return Reason("its size shapes another tensor", node.name or "", node.op_type)
        out = node.outputs[0]
        is_integer = out.dtype is None or out.dtype in _INTEGERS
        if node.op_type not in SHAPE_ARITHMETIC or not is_integer or out.is_graph_output():
            return Reason("its size becomes a number", node.name or "", node.op_type)
        if out not in seen:
            seen.add(out)
            todo.extend(out.uses())
    return None
