"""Values whose sizes two traced runs can't settle: equal in both, and still not fixed.

A size may depend on what a tensor holds (NonZero, a shape that is an input), or be clamped
(``x[:, :512]``): it stands still between the two runs although the input moves, and will move when the
input is shorter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphprune.shapes.shape_values import SHAPE_INPUTS, structural_nodes
from graphprune.storage.constants import is_constant


@dataclass(frozen=True)
class Run:
    """Shapes and small values under one assignment of the symbolic dims."""

    sizes: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]]
    values: Mapping[str, np.ndarray]


#: Their output sizes depend on what the inputs hold.
_DATA_DEPENDENT = frozenset({
    "Compress", "If", "Loop", "NonMaxSuppression", "NonZero", "Scan", "StringSplit", "Unique",
})  # fmt: skip

#: An axis keeps its place, and its size may come from elsewhere than the input.
_CLAMPING = frozenset({
    "AveragePool", "Conv", "ConvTranspose", "LpPool", "MaxPool", "Pad", "Resize", "Slice", "TopK", "Upsample",
})  # fmt: skip

#: The same among numbers.
_CLAMPING_NUMBERS = frozenset({"Clip", "Max", "Min", "Mod"})


def unsettled(graph: ir.Graph, first: Run, second: Run) -> set[str]:
    """Names of values whose sizes, though equal in both runs, may depend on data or on a symbolic dim."""
    structural = structural_nodes(graph)
    found: set[ir.Value] = set()
    for node in graph:
        if (
            node.op_type in _DATA_DEPENDENT
            or any(value in found for value in node.inputs)
            or any(not is_constant(v) and v.producer() not in structural for v in _shape_inputs(node))
            or _clamps(node, first, second)
        ):
            found.update(node.outputs)
    return {value.name for value in found if value.name}


def _shape_inputs(node: ir.Node) -> list[ir.Value]:
    indices = SHAPE_INPUTS.get(node.op_type, ()) if node.domain == "" else ()
    values = [node.inputs[i] for i in indices if i < len(node.inputs)]
    return [value for value in values if value is not None]


def _clamps(node: ir.Node, first: Run, second: Run) -> bool:
    """Does an output stand still where an input moves?"""
    source, out = node.inputs[0] if node.inputs else None, node.outputs[0]
    if source is None:
        return False
    if node.op_type in _CLAMPING:
        return _stands_still(
            *(run.shapes.get(value.name or "", ()) for value in (source, out) for run in (first, second))
        )
    if node.op_type in _CLAMPING_NUMBERS:
        moved = any(_differ(value, first, second) is True for value in node.inputs if value is not None)
        return moved and _differ(out, first, second) is False
    return False


def _differ(value: ir.Value, first: Run, second: Run) -> bool | None:
    """Does a small value hold other numbers in the second run?  None if it is not known."""
    a, b = first.values.get(value.name or ""), second.values.get(value.name or "")
    return None if a is None or b is None else not np.array_equal(a, b)


def _stands_still(
    in_first: tuple[int, ...],
    in_second: tuple[int, ...],
    out_first: tuple[int, ...],
    out_second: tuple[int, ...],
) -> bool:
    if not len(in_first) == len(in_second) == len(out_first) == len(out_second):
        return False
    sizes = zip(in_first, in_second, out_first, out_second, strict=True)
    return any(a != b and c == d for a, b, c, d in sizes)
