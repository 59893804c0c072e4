"""Where a layer's output goes: biases that are added to it, and the sum that it becomes part of."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir


@dataclass(frozen=True, eq=False)
class Landing:
    """The way from a layer's output to the sum that it is added to.

    Attributes:
        value: the sum; without one, the output with its biases.
        biases: constants that are added on the way: the node and the index of its input.
        other: the other operand of the sum, None without one.
    """

    value: ir.Value
    biases: tuple[tuple[ir.Node, int], ...] = ()
    other: ir.Value | None = None


def landing_of(output: ir.Value) -> Landing:
    """Follows additions, as long as nothing else reads what is added up."""
    value, biases = output, []
    while (node := _only_addition(value)) is not None:
        index = 1 if node.inputs[0] is value else 0
        other = node.inputs[index]
        if other is None or other is value:
            break
        if other.const_value is not None and not other.is_graph_input():
            biases.append((node, index))
            value = node.outputs[0]
            continue
        return Landing(node.outputs[0], tuple(biases), other)
    return Landing(value, tuple(biases))


def _only_addition(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    node = uses[0][0]
    return node if node.op_type == "Add" and node.domain in ("", "ai.onnx") else None
