"""How much each row of a layer's output counts: the router's weight of the expert that the layer is part of.

A model that runs all experts on all tokens multiplies most of their rows by zero, so errors there are none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

#: Sizes of tensors by name; equal names have sizes that agree in the original and in the pruned model.
Shapes = Mapping[str, Sequence[int]]
#: Each row of the result comes from the same row of the operands.
_BY_ROW = {
    "Add", "Sub", "Mul", "Div", "Pow", "Sigmoid", "Tanh", "Erf", "Relu", "LeakyRelu", "Elu", "Selu", "Gelu",
    "Softplus", "HardSigmoid", "HardSwish", "Mish", "Clip", "Min", "Max", "Neg", "Exp", "Sqrt", "Cast",
    "Identity", "Squeeze", "Unsqueeze", "Split", "Slice", "Dropout", "Swish", "FastGelu", "QuickGelu",
}  # fmt: skip
#: An expert has fewer nodes than this.
_MOST_NODES = 40


def row_gate(node: ir.Node, value: ir.Value, shapes: Shapes) -> ir.Value | None:
    """The factor of a Mul that has one number for each row of ``value``, None if it has not."""
    if node.op_type != "Mul" or node.domain not in ("", "ai.onnx"):
        return None
    gate = node.inputs[1] if node.inputs[0] is value else node.inputs[0]
    if gate is None or gate is value or gate.const_value is not None:
        return None
    here, there = tuple(shapes.get(value.name or "", ())), tuple(shapes.get(gate.name or "", ()))
    if len(here) != len(there) or len(here) < 2:
        return None
    if _is_left(value):  # a weight on the left makes columns
        if here[-1] != 1 or there[-1] != 1:
            return None
        here, there = here[:-1], there[:-1]
    return gate if there[-1] == 1 and here[-1] != 1 and here[:-1] == there[:-1] else None


def importance_of(output: ir.Value, shapes: Shapes) -> ir.Value | None:
    """The one factor per row that all ways from ``output`` lead to, None if there is no such factor."""
    producer = output.producer()
    if producer is None or producer.op_type == "Conv":
        return None
    inside, todo, nodes = {output}, [output], 0
    gates: dict[ir.Node, ir.Value] = {}
    while todo:
        value = todo.pop()
        if value.is_graph_output():
            return None
        for node, _ in value.uses():
            if node.graph is not producer.graph:
                return None
            found = row_gate(node, value, shapes)
            if found is not None:
                gates[node] = found
                continue
            nodes += 1
            if nodes > _MOST_NODES or not (node.op_type in _BY_ROW or _is_layer(node, value)):
                return None
            for made in node.outputs:
                if made not in inside:
                    inside.add(made)
                    todo.append(made)
    if len(gates) != 1:
        return None
    gate = next(iter(gates.values()))
    here, there = shapes.get(output.name or "", ()), shapes.get(gate.name or "", ())
    features = len(here) - (2 if _is_left(output) else 1)
    rows = sorted(n for d, n in enumerate(here) if d != features and n != 1)
    if rows != sorted(n for n in there if n != 1):
        return None  # rows were taken away or put together on the way
    return None if gate in inside else gate


def _is_left(value: ir.Value) -> bool:
    """Are the features of a product not on its last axis?"""
    node = value.producer()
    if node is None or node.op_type != "MatMul":
        return False
    return len(node.inputs) == 2 and _is_weight(node.inputs[0])


def _is_layer(node: ir.Node, value: ir.Value) -> bool:
    if node.op_type not in ("MatMul", "Gemm"):
        return False
    return all(v is value or _is_weight(v) for v in node.inputs if v is not None)


def _is_weight(value: ir.Value | None) -> bool:
    """A constant, or rows that are looked up in one."""
    for _ in range(3):
        if value is None:
            return False
        if value.const_value is not None:
            return not value.is_graph_input()
        node = value.producer()
        if node is None or node.op_type not in ("Gather", "GatherND", "Transpose"):
            return False
        value = node.inputs[0]
    return False
