"""How often the nodes of a model run."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from graphprune.shapes.bodies import scan_axes, trip_count
from graphprune.shapes.shape_values import subgraphs
from graphprune.shapes.trace import Trace
from graphprune.storage.constants import is_constant


def nodes_in_loops(
    trace: Trace, graph: ir.Graph, loops: tuple[int, ...] = ()
) -> Iterator[tuple[ir.Node, tuple[int, ...]]]:
    """All nodes, those in bodies as well, with how often each loop around them runs at the nominal sizes.

    A loop whose number of iterations is not known counts once, and so does each branch of an If.
    """
    for node in graph:
        yield node, loops
        bodies = subgraphs(node)
        count = _iterations(trace, node) if bodies else None
        for body in bodies:
            yield from nodes_in_loops(trace, body, loops if count is None else (*loops, count))


def _iterations(trace: Trace, node: ir.Node) -> int | None:
    if node.domain != "":
        return None
    if node.op_type == "Scan" and (axes := scan_axes(node)):
        shape = trace.nominal.get(node.inputs[-1].name or "") if node.inputs[-1] is not None else None
        return shape[axes[-1]] if shape else None
    if node.op_type != "Loop":
        return None
    carried = len(node.attributes["body"].as_graph().inputs) - 2
    for value in node.outputs[carried:]:  # as many positions as iterations
        shape = trace.nominal.get(value.name or "")
        if shape:
            return shape[0]
    return trip_count(
        node, lambda v: v.const_value.numpy() if is_constant(v) and v.const_value is not None else None
    )
