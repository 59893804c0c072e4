"""Two layers with nothing but elementwise operators between them, which can be solved together.

``y = φ(x V) U``: a hidden width, its activation and the layer that reads it; with a gate, two layers make it.
All that is found here holds position by position, so that a sample of positions is enough to fit both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir
from graphprune.passes.compensators.slots import sizes_of

from graphprune.calibration.evidence import Evidence
from graphprune.calibration.gathered import Gathered, linears_of
from graphprune.calibration.linear import Linear
from graphprune.calibration.rows import is_weighted
from graphprune.model import Model
from graphprune.rules.elementwise import NOT_ZERO_TO_ZERO, ZERO_TO_ZERO

#: Outputs at one position depend on inputs at that position only.
_ELEMENTWISE = frozenset({
    *ZERO_TO_ZERO, *NOT_ZERO_TO_ZERO, "Add", "Clip", "Div", "Max", "Mean", "Min", "Mul", "Pow", "PRelu",
    "Sub", "Sum", "SwiGLU",
}) - {"Cast", "BitCast", "BitwiseNot", "IsInf", "IsNaN", "Not"}  # fmt: skip
_CONTRIB = frozenset({"BiasGelu", "FastGelu", "Gelu", "QuickGelu"})


@dataclass(frozen=True, eq=False)
class Couple:
    """Layers that make a hidden tensor, and the one that reads it.

    Attributes:
        producers: in topological order; nothing else reads what they make.
        path: elementwise nodes between them and the consumer, in topological order.
        sides: what else these nodes read that is no constant, shaped like the hidden tensor.
        consumer: the layer that reads the hidden tensor.
    """

    producers: tuple[Linear, ...]
    path: tuple[ir.Node, ...]
    sides: tuple[ir.Value, ...]
    consumer: Linear


def couples_of(evidence: Evidence, pruned: Model) -> Iterator[Couple]:
    """The couples of a pruned model, in the order of their consumers."""
    shapes = evidence.graph.analysis.trace.shapes
    layers = {n: found[0] for n in pruned.ir.graph if len(found := linears_of(n)) == 1}
    order = {node: i for i, node in enumerate(pruned.ir.graph)}
    for consumer in layers.values():
        if not _is_plain(evidence, consumer):
            continue
        couple = _couple_of(consumer, layers, order, shapes)
        if couple is not None and all(_is_plain(evidence, layer) for layer in couple.producers):
            yield couple


def _is_plain(evidence: Evidence, layer: Linear) -> bool:
    """Does each of its rows count once, and has it a weight of its own, in single precision?"""
    constant = layer.constant
    return (
        not isinstance(layer, Gathered)
        and not is_weighted(layer, evidence.landing(layer.output))
        and len(list(constant.uses())) == 1
        and constant.const_value is not None
        and constant.const_value.dtype == ir.DataType.FLOAT
    )


def _couple_of(
    consumer: Linear,
    layers: Mapping[ir.Node, Linear],
    order: Mapping[ir.Node, int],
    shapes: Mapping[str, tuple[int, ...]],
) -> Couple | None:
    hidden = consumer.source
    form = shapes.get(hidden.name or "")
    if form is None or len(form) < 2 or consumer.node.graph is not hidden.graph:
        return None  # without an axis for rows there is nothing to sample
    inside: set[ir.Node] = {consumer.node}
    path: list[ir.Node] = []
    producers: list[Linear] = []
    sides: list[ir.Value] = []
    todo = {hidden}
    while todo:
        # The last one first: by then all its readers are known.
        value = max(todo, key=lambda v: order.get(v.producer(), -1))  # type: ignore[arg-type]
        todo.discard(value)
        if shapes.get(value.name or "") != form:
            return None
        node = value.producer()
        is_private = not value.is_graph_output() and all(user in inside for user, _ in value.uses())
        if node is None or node not in order or not is_private:
            sides.append(value)
        elif node in layers:
            if (layers[node].feature_axis - consumer.feature_axis) % len(form):
                return None
            producers.append(layers[node])
        elif _is_elementwise(node, consumer.feature_axis % len(form)):
            inside.add(node)
            path.append(node)
            for operand in node.inputs:
                if operand is None:
                    continue
                if operand.const_value is None or operand.is_graph_input():
                    todo.add(operand)
                elif node.op_type != "BatchNormalization" and not _is_per_feature(
                    operand, consumer.feature_axis, len(form)
                ):
                    return None
        else:
            sides.append(value)
    if not producers:
        return None
    producers.sort(key=lambda layer: order[layer.node])
    path.sort(key=lambda node: order[node])
    return Couple(tuple(producers), tuple(path), tuple(sides), consumer)


def _is_elementwise(node: ir.Node, feature_axis: int) -> bool:
    if len(node.outputs) != 1:
        return False
    if node.domain == "com.microsoft":
        return node.op_type in _CONTRIB
    if node.op_type == "BatchNormalization":
        return feature_axis == 1 and not node.attributes.get_int("training_mode", 0)
    return node.domain in ("", "ai.onnx") and node.op_type in _ELEMENTWISE


def _is_per_feature(value: ir.Value, feature_axis: int, rank: int) -> bool:
    """Is a constant the same at all positions?"""
    shape = sizes_of(value)
    lead = (1,) * (rank - len(shape)) + shape
    return all(n == 1 for d, n in enumerate(lead) if d != feature_axis % rank)
