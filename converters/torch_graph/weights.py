"""Which constants of a graph are weights, and which uses of one are parameters of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphprune.errors import ModelError
from graphprune.shapes.shape_values import subgraphs
from graphprune.storage.constants import is_matrix

#: Inputs at which an operator reads weights, biases or scales.
WEIGHTS: dict[str, tuple[int, ...]] = {
    "Attention": (0, 1, 2),
    "BatchNormalization": (1, 2),
    "Conv": (0, 1, 2),
    "ConvTranspose": (0, 1, 2),
    "Einsum": tuple(range(8)),
    "GRU": (1, 2, 3),
    "Gemm": (0, 1, 2),
    "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LSTM": (1, 2, 3, 7),
    "LayerNormalization": (1, 2),
    "MatMul": (0, 1),
    "PRelu": (1,),
    "RMSNormalization": (1,),
    "RNN": (1, 2, 3),
}
#: Operators that add to or scale a tensor: biases and scales, if there is more than one number.
ELEMENTWISE = frozenset({"Add", "Mul", "Sub", "Div", "Sum", "Max", "Min"})
#: Tables that are looked up, and tokens that are joined to a sequence.
TABLES: dict[str, tuple[int, ...]] = {"Gather": (0,), "GatherND": (0,), "GatherElements": (0,)}
#: What only moves numbers: a constant before it is what it is behind it.
MOVES = frozenset({
    "Cast", "CastLike", "Concat", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Resize",
    "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
})  # fmt: skip
#: What stands between the frequencies of a position table and its sines.
PHASES = MOVES | {"MatMul", "Mul", "Einsum", "Div", "Add"}
#: Larger numbers block positions; no layer learns them.
LARGEST = 1e4
#: Axes of more than one position that a table has, and how many numbers a mask holds.
_TABLE, _CHOICES = 2, 2


@dataclass(frozen=True)
class Weight:
    """One parameter.

    Attributes:
        key: its name in the module: the initializer's, or ``NAME@OUTPUT:INDEX`` for one use of several.
        name: of the initializer.
        uses: ``(first output of the node, input index)``; None for all of them.
    """

    key: str
    name: str
    uses: tuple[tuple[str, int], ...] | None


def constants_of(graph: ir.Graph) -> Iterator[ir.Value]:
    """All constants, those of bodies included."""
    yield from (v for v in graph.initializers.values() if v.const_value is not None)
    for node in graph:
        for body in subgraphs(node):
            yield from constants_of(body)


def weights_of(value: ir.Value) -> list[Weight]:
    """The parameters that a constant is: none, one, or one per use."""
    tensor = value.const_value
    name = value.name or ""
    if tensor is None or not tensor.dtype.is_floating_point() or not tensor.size:
        return []
    uses = [(node, i) for node, i in value.uses() if _is_weight_use(value, node, i)]
    if not uses or not _are_learnable(value):
        return []
    if len(value.uses()) == 1 or is_matrix(value) or value.is_graph_output() or value.is_graph_input():
        return [Weight(name, name, None)]
    return [Weight(f"{name}@{_first(n)}:{i}", name, ((_first(n), i),)) for n, i in uses]


def _first(node: ir.Node) -> str:
    return node.outputs[0].name or ""


def _are_learnable(value: ir.Value) -> bool:
    """Finite numbers of a size that layers learn."""
    tensor = value.const_value
    assert tensor is not None
    array = np.asarray(tensor.numpy(), np.float32)
    return bool(np.abs(array).max() < LARGEST)  # NaN and infinity are not below anything


def _is_mask(value: ir.Value) -> bool:
    """At most two numbers all over a table: 0 and -100 to block positions, or 0 and 1 to choose them.

    Vectors are not asked: biases begin as zeros, scales as ones, and some have two entries.
    """
    if value.const_value is None or _rank(value) < _TABLE:
        return False
    array = np.asarray(value.const_value.numpy(), np.float32)
    return sum(size > 1 for size in array.shape) >= _TABLE and len(np.unique(array)) <= _CHOICES


def _is_weight_use(value: ir.Value, node: ir.Node, index: int) -> bool:
    if node.domain not in ("", "ai.onnx"):
        return False
    if index in WEIGHTS.get(node.op_type, ()):
        return not _only_waves(node)
    size = value.const_value.size if value.const_value is not None else 0
    if node.op_type in ELEMENTWISE:
        others = [v for i, v in enumerate(node.inputs) if i != index and v is not None]
        is_of_data = any(v.is_graph_input() and v.const_value is None for v in others)
        return size > 1 and not is_of_data and not _only_waves(node) and not _is_mask(value)
    if index in TABLES.get(node.op_type, ()):
        return _rank(value) > 1 and not _only_waves(node)
    if node.op_type == "Concat":
        return _rank(value) > 1 and size > 1 and not _only_waves(node)
    if node.op_type in MOVES and index == 0:
        return size > 1 and any(_is_weight_use(value, n, i) for out in node.outputs for n, i in out.uses())
    return False


def _rank(value: ir.Value) -> int:
    return len(value.const_value.shape) if value.const_value is not None else 0


def _only_waves(node: ir.Node) -> bool:
    """Is what this node makes read by sines and cosines alone?"""
    if node.op_type not in PHASES:
        return False
    users = [n for out in node.outputs for n, _ in out.uses()]
    if not users or any(out.is_graph_output() for out in node.outputs):
        return False
    return all(n.op_type in ("Sin", "Cos") or _only_waves(n) for n in users)


def require_unique(weights: list[Weight]) -> None:
    """No two parameters of one name.

    Raises:
        ModelError: a body holds a constant of the same name as the graph around it.
    """
    seen: set[str] = set()
    for weight in weights:
        if weight.key in seen:
            what = f"two constants are named '{weight.key}'"
            raise ModelError(what, because="a parameter is found by its name", hint="rename one")
        seen.add(weight.key)
