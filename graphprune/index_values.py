"""Integers that are positions of an axis, on their way from TopK to whoever looks something up with them."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import onnx_ir as ir

from graphprune.algebra import Axis

#: Operators that move numbers of their first input (Concat: of all inputs) and change none.
_MOVES = {
    "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Cast", "Slice", "Split", "Expand",
    "Tile", "Gather", "Concat",
}  # fmt: skip
_INTEGERS = {ir.DataType.INT64.value, ir.DataType.INT32.value}


def follow_indexes(node: ir.Node, indexes: dict[str, Axis], answered: Collection[int]) -> Iterator[Axis]:
    """Carries index values through one node.

    Args:
        node: any node.
        indexes: by value name, the axis whose positions it holds; outputs are added.
        answered: inputs that the node's rule reads as positions.

    Yields:
        Axes whose positions this node takes for numbers.
    """
    if not indexes:
        return
    found = {
        i: indexes[value.name or ""]
        for i, value in enumerate(node.inputs)
        if value is not None and (value.name or "") in indexes
    }
    if not found:
        return
    axes = [found.get(i) for i in range(len(node.inputs))]
    moved = node.op_type in _MOVES and axes[0] is not None
    if node.op_type == "Cast":
        moved &= node.attributes.get_int("to", 0) in _INTEGERS
    if moved and node.op_type == "Concat":
        moved = all(
            axis is not None and axis.labels is axes[0].labels for axis in axes if axes[0] is not None
        )
    for i, axis in found.items():
        if i in answered:
            continue
        if moved and (i == 0 or node.op_type == "Concat"):
            for value in node.outputs:
                indexes[value.name or ""] = axis
        else:
            yield axis
