"""Recurrent layers that start from zeros: an initial state of zeros is the same as none.

Exporters make one tensor of zeros, and slice the states of all layers from it. Taken at its word, that would
tie the hidden units of every layer to those of every other.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from graphprune.storage.constants import drop_unused, is_constant

_RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
_STATES = (5, 6)  # initial_h, initial_c
# Operators whose result holds nothing but elements of their first input.
_MOVING = frozenset({
    "Cast", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile",
    "Transpose", "Unsqueeze",
})  # fmt: skip


def drop_zero_states(graph: ir.Graph) -> None:
    """Leave out the initial states that hold zeros whatever the inputs are, in place."""
    zeros: dict[ir.Value, bool] = {}
    dropped: set[ir.Value] = set()
    for node in graph:
        if node.op_type not in _RECURRENT or node.domain != "":
            continue
        for i in _STATES:
            value = node.inputs[i] if i < len(node.inputs) else None
            if value is not None and _is_zero(value, zeros):
                node.replace_input_with(i, None)
                dropped.add(value)
    makers = _makers(dropped)
    drop_unused(graph, [node for node in graph if node in makers])
    for value in dropped:
        if is_constant(value) and not value.uses() and not value.is_graph_output():
            graph.initializers.pop(value.name or "", None)


def _makers(values: Iterable[ir.Value]) -> set[ir.Node]:
    """All nodes that these values are computed by."""
    found: set[ir.Node] = set()
    todo = list(values)
    while todo:
        node = todo.pop().producer()
        if node is not None and node not in found:
            found.add(node)
            todo.extend(value for value in node.inputs if value is not None)
    return found


def _is_zero(value: ir.Value, known: dict[ir.Value, bool]) -> bool:
    if value not in known:
        known[value] = _find(value, known)
    return known[value]


def _find(value: ir.Value, known: dict[ir.Value, bool]) -> bool:
    if is_constant(value) and value.const_value is not None:
        return not value.const_value.numpy().any()
    node = value.producer()
    if node is None or node.domain != "":
        return False
    if node.op_type == "ConstantOfShape":
        fill = node.attributes.get("value")
        return fill is None or not fill.as_tensor().numpy().any()
    if node.op_type not in _MOVING and node.op_type != "Concat":
        return False
    sources = node.inputs if node.op_type == "Concat" else node.inputs[:1]
    return all(source is not None and _is_zero(source, known) for source in sources)
