"""Where a layer's output goes: biases that are added to it, and the sum that it becomes part of."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from graphprune.calibration.importance import Shapes, importance_of, row_gate


@dataclass(frozen=True, eq=False)
class Landing:
    """The way from a layer's output to the sum that it is added to.

    Attributes:
        value: the sum; without one, the output with its biases.
        biases: constants that are added on the way: the node and the index of its input.
        others: the other operands of the sum, the nearest first; none without a sum.
        term: what enters the sum; the same as ``value`` without one.
        gate: multiplies each row of the output (a router's weight of an expert) before the sum.
        importance: how much each row counts for all that follows; the gate, where there is one.
    """

    value: ir.Value
    biases: tuple[tuple[ir.Node, int], ...] = ()
    others: tuple[ir.Value, ...] = ()
    term: ir.Value | None = None
    gate: ir.Value | None = None
    importance: ir.Value | None = None


def landing_of(output: ir.Value, shapes: Shapes) -> Landing:
    """Follows additions, as long as nothing else reads what is added up.

    Args:
        output: of a layer, in the original or in the pruned model.
        shapes: of the original's tensors.
    """
    value, term, gate = output, output, None
    biases: list[tuple[ir.Node, int]] = []
    others: list[ir.Value] = []
    while (node := _only_reader(value)) is not None:
        index = 1 if node.inputs[0] is value else 0
        other = node.inputs[index]
        if other is None or other is value or _is_default(other):
            break
        if shapes.get(node.outputs[0].name or "") != shapes.get(value.name or ""):
            break  # the sum has more rows or features than the layer
        if node.op_type == "Mul":
            # The rows of a convolution are positions, not what stands before the last axis.
            producer = output.producer()
            is_conv = producer is not None and producer.op_type == "Conv"
            found = None if is_conv else row_gate(node, value, shapes)
            if found is None or gate is not None or others:
                break
            gate = found
        elif other.const_value is not None and not other.is_graph_input():
            if gate is not None or others:
                break
            biases.append((node, index))
        else:
            others.append(other)
        value = node.outputs[0]
        term = term if others else value
    importance = gate if gate is not None else importance_of(output, shapes)
    return Landing(value, tuple(biases), tuple(others), term, gate, importance)


def _only_reader(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    node, producer = uses[0][0], value.producer()
    if producer is None or node.graph is not producer.graph:
        return None  # a body reads it, perhaps never or more than once
    return node if node.op_type in ("Add", "Mul") and node.domain in ("", "ai.onnx") else None


def _is_default(value: ir.Value) -> bool:
    """An input that the caller may leave out: no batch has to hold it."""
    return value.const_value is not None and value.is_graph_input()
