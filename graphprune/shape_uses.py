"""Where sizes become numbers.

A value computed from ``Shape`` may go to a shape (Reshape, Expand, ...), which follows the cut, or into
arithmetic on data (a mean's divisor, ``1/sqrt(d)``), which must keep what it was.  Sizes known beforehand
were made constants already (:mod:`graphprune.fold_shapes`); what is left mixes in a runtime size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx_ir as ir

from graphprune.algebra import Axis
from graphprune.rules.context import Reason

#: (operator, input index) that take a shape, size, position or axis.
SHAPE_INPUTS = {
    ("Reshape", 1), ("Expand", 1), ("ConstantOfShape", 0), ("Slice", 1), ("Slice", 2), ("Slice", 3),
    ("Slice", 4), ("Tile", 1), ("Pad", 1), ("Pad", 3), ("Resize", 1), ("Resize", 3), ("Upsample", 1),
    ("Split", 1), ("Unsqueeze", 1), ("Squeeze", 1), ("Range", 0), ("Range", 1), ("Range", 2),
    ("RandomUniform", 0), ("RandomNormal", 0),
}  # fmt: skip

#: Operators through which a size stays a size (integers only).
SHAPE_ARITHMETIC = {
    "Gather", "Slice", "Concat", "Unsqueeze", "Squeeze", "Cast", "Identity", "Reshape", "Add", "Sub", "Mul",
    "Div", "Mod", "Neg", "Abs", "Max", "Min", "Floor", "Ceil", "ReduceProd", "ReduceSum", "ReduceMax",
    "ReduceMin", "Where", "Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Not", "And", "Or",
    "Flatten", "Split", "ConstantOfShape", "Expand", "Size", "Shape", "Range",
}  # fmt: skip

_INTEGERS = {ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL}


def numeric_shape_uses(graph: ir.Graph, axes: Mapping[str, list[Axis]]) -> Iterator[tuple[Axis, Reason]]:
    """Axes whose size turns into a number that a cut would change, with the node where it does."""
    for node in graph:
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
        taken = _entries(node, measured)
        for entry, value_read in taken:
            culprit = _first_numeric_use(value_read)
            if culprit is not None:
                reason = Reason("its size becomes a number", culprit.name or "", culprit.op_type)
                for axis in entry:
                    yield axis, reason


def _entries(node: ir.Node, measured: list[Axis]) -> Iterator[tuple[list[Axis], ir.Value]]:
    """The axes each reader of this Shape looks at, and the value in which it holds them."""
    out = node.outputs[0]
    if out.is_graph_output():
        yield [axis for axis in measured if not axis.is_plain], out
    for reader, index in out.uses():
        picked = measured
        followed = out
        if node.op_type == "Shape" and reader.op_type == "Gather" and index == 0:
            chosen = reader.inputs[1].const_value if reader.inputs[1] is not None else None
            if chosen is not None:
                picked = [measured[int(i)] for i in chosen.numpy().reshape(-1)]
                followed = reader.outputs[0]
        picked = [axis for axis in picked if not axis.is_plain]
        if picked:
            yield picked, followed


def _first_numeric_use(value: ir.Value) -> ir.Node | None:
    seen: set[ir.Value] = set()
    todo = [value]
    while todo:
        current = todo.pop()
        if current in seen:
            continue
        seen.add(current)
        if current.is_graph_output():
            return current.producer()
        for node, index in current.uses():
            if (node.op_type, index) in SHAPE_INPUTS:
                continue
            out = node.outputs[0]
            is_integer = out.dtype is None or out.dtype in _INTEGERS
            if node.op_type in SHAPE_ARITHMETIC and is_integer:
                todo.append(out)
            else:
                return node
    return None
