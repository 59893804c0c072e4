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

from graphprune.shapes.bodies import trip_count
from graphprune.shapes.shape_values import SHAPE_INPUTS, subgraphs
from graphprune.storage.constants import is_constant


@dataclass(frozen=True)
class Run:
    """Shapes and small values under one assignment of the symbolic dims."""

    sizes: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]]
    values: Mapping[str, np.ndarray]


#: Their output sizes depend on what the inputs hold.
_DATA_DEPENDENT = frozenset({
    "Compress", "NonMaxSuppression", "NonZero", "StringSplit", "Unique",
})  # fmt: skip

#: An axis keeps its place, and its size may come from elsewhere than the input.
_CLAMPING = frozenset({
    "AveragePool", "Conv", "ConvTranspose", "LpPool", "MaxPool", "Pad", "Resize", "Slice", "TopK", "Upsample",
})  # fmt: skip

#: The same among numbers.
_CLAMPING_NUMBERS = frozenset({"Clip", "Max", "Min", "Mod"})


def unsettled(graph: ir.Graph, structural: Mapping[ir.Node, None], first: Run, second: Run) -> set[str]:
    """Names of values whose sizes, though equal in both runs, may depend on data or on a symbolic dim."""
    search = _Search(structural, first, second)
    search.visit(graph)
    return {value.name for value in search.found if value.name}


class _Search:
    def __init__(self, structural: Mapping[ir.Node, None], first: Run, second: Run) -> None:
        self._structural, self._first, self._second = structural, first, second
        self.found: set[ir.Value] = set()

    def visit(self, graph: ir.Graph) -> None:
        for node in graph:
            if subgraphs(node):
                self._visit_bodies(node)
            elif (
                node.op_type in _DATA_DEPENDENT
                or any(value in self.found for value in node.inputs)
                or any(self._is_data(value) for value in _shape_inputs(node))
                or _clamps(node, self._first, self._second)
            ):
                self.found.update(node.outputs)

    def _is_data(self, value: ir.Value) -> bool:
        return not is_constant(value) and value.producer() not in self._structural

    def _visit_bodies(self, node: ir.Node) -> None:
        bodies = subgraphs(node)
        if node.op_type == "If" and node.domain == "":
            for body in bodies:
                self.visit(body)
            for value, *results in zip(node.outputs, *(body.outputs for body in bodies), strict=False):
                if any(result in self.found or not self._agree(value, result) for result in results):
                    self.found.add(value)
        elif node.op_type in ("Loop", "Scan") and node.domain == "":
            self._visit_loop(node, bodies[0])
        else:
            for body in bodies:
                self.found.update(body.inputs)
                self.visit(body)
            self.found.update(node.outputs)

    def _visit_loop(self, node: ir.Node, body: ir.Graph) -> None:
        is_loop = node.op_type == "Loop"
        sources, inner = (node.inputs[2:], body.inputs[2:]) if is_loop else (node.inputs, body.inputs)
        results = body.outputs[1:] if is_loop else body.outputs
        scanned = 0 if is_loop else node.attributes["num_scan_inputs"].as_int()
        carried = inner[: len(inner) - scanned]
        for source, value in zip(sources, inner, strict=False):
            if source in self.found or not self._is_known(value):
                self.found.add(value)
        while True:  # what the body makes of a carried value goes in again
            self.visit(body)
            pairs = zip(carried, results, strict=False)
            again = [v for v, r in pairs if r in self.found and v not in self.found]
            if not again:
                break
            self.found.update(again)
        for value, state in zip(node.outputs, carried, strict=False):
            if state in self.found or not self._agree(value, state):
                self.found.add(value)
        stacked = zip(node.outputs[len(carried) :], results[len(carried) :], strict=False)
        is_open = is_loop and trip_count(node, self._array) is None
        self.found.update(value for value, result in stacked if is_open or result in self.found)

    def _array(self, value: ir.Value) -> np.ndarray | None:
        """What a value holds in both runs."""
        array = self._first.values.get(value.name or "")
        return array if _differ(value, self._first, self._second) is False else None

    def _is_known(self, value: ir.Value) -> bool:
        return all((value.name or "") in run.shapes for run in (self._first, self._second))

    def _agree(self, value: ir.Value, inner: ir.Value) -> bool:
        """Have both the same shape in each run?"""
        if not (self._is_known(value) and self._is_known(inner)):
            return False
        runs = (self._first, self._second)
        return all(run.shapes[value.name or ""] == run.shapes[inner.name or ""] for run in runs)


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
