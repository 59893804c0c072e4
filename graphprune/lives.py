"""Dead branches: tensors that die when a unit goes, and the operators that can do without them.

One position picked from an axis (``weights[..., e]`` of expert *e*) makes a tensor that stands or falls with
that position's units.  What is computed from it falls as well, until an operator drops it: a sum or a Concat
works without the operand, a Scatter returns its data.  Depth pruning and unrolled experts are this
one mechanism.

The **life** of a tensor is a set of rows like those of an axis: the tensor is alive while any row is, and a
row while all its units are.  Dropping changes nothing only where a dead tensor is all zeros in the original
(or has no elements), so that is followed too.  What reaches an output, or an operator that can't do without,
keeps its units alive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import onnx_ir as ir

from graphprune.algebra import Algebra, Axis, concat, merge
from graphprune.rules.context import EMPTY, ZEROS, Context
from graphprune.rules.elementwise import ZERO_TO_ZERO
from graphprune.storage.constants import is_constant

#: Nothing is known about what a dead tensor holds in the original.
ANYTHING = ""

#: The result is zero (or empty) as soon as the first input is.
ZERO_IF_FIRST = {
    *ZERO_TO_ZERO, "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Tile", "Slice",
    "Split", "Gather", "GatherElements", "GatherND", "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin",
    "ReduceL1",
    "ReduceL2", "ReduceSumSquare", "AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool", "Div",
}  # fmt: skip
#: The result is zero (or empty) as soon as any input is.
ZERO_IF_ANY = {"Mul", "And", "MatMul", "Einsum"}
#: One input without elements leaves none in the result, though zeros would not make zeros.
_EMPTY_FIRST = {"Sigmoid", "Exp", "Softplus", "HardSigmoid", "NonZero", "Not", "Log", "Reciprocal", "Softmax"}
_EMPTY_ANY = {
    "Mul",
    "And",
    "Add",
    "Sub",
    "Equal",
    "Where",
    "Greater",
    "Less",
    "GreaterOrEqual",
    "LessOrEqual",
    "Or",
    "Pow",
}
_REDUCES = {"ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare"}
#: More rows than this are not followed.
_MOST_ROWS = 4096


@dataclass(frozen=True)
class Life:
    """When a tensor is alive, and what it holds in the original when it is not."""

    axis: Axis
    void: str


class Lives:
    """The lives of a model's values.

    Attributes:
        of: by value name; what is not in it lives for ever.
        drops: (node, input) -> the life of an operand that the node works without once it is dead.
    """

    def __init__(self, algebra: Algebra) -> None:
        self._algebra = algebra
        self.of: dict[str, Life] = {}
        self.drops: dict[tuple[ir.Node, int], Axis] = {}

    def mortal(self, node: ir.Node) -> dict[int, Life]:
        """Inputs of a node that may die."""
        if not self.of:
            return {}
        names = [v.name or "" if v is not None else "" for v in node.inputs]
        return {i: self.of[name] for i, name in enumerate(names) if name in self.of}

    def visit(self, node: ir.Node, said: Context) -> list[Life]:
        """Follows one node.

        Returns:
            Lives that can't be followed any further, whose units have to stay.
        """
        self.drops.update({(node, i): piece for i, piece in said.pieces.items()})
        mortal = self.mortal(node)
        if not mortal and not said.singles:
            return []
        dropped = {i: life for i, life in mortal.items() if life.void in said.droppable.get(i, ())}
        kept = {i: life for i, life in mortal.items() if i not in dropped}
        for i, life in dropped.items():
            self.drops[node, i] = life.axis
        present = [i for i, value in enumerate(node.inputs) if value is not None]
        if not kept and dropped and said.dies and set(present) == set(dropped):
            every = concat([life.axis for life in dropped.values()])
            self._set(node, Life(every, ZEROS))
        elif kept:
            axes = list({id(life.axis.labels): life.axis for life in kept.values()}.values())
            if prod(axis.size for axis in axes) > _MOST_ROWS:
                return list(kept.values())
            axis = axes[0] if len(axes) == 1 else self._distinct(merge(axes))
            self._set(node, Life(axis, _void(node, kept)))
        for output, piece in said.singles:
            self._add_single(node.outputs[output].name or "", piece)
        return []

    def _distinct(self, axis: Axis) -> Axis:
        """The same rows, each once and with each unit once: operands often hang on the same units."""
        rows = self._algebra.live(axis)
        return replace(axis, labels=np.unique(rows, axis=0) if rows.shape[1] else rows[:1])

    def _set(self, node: ir.Node, life: Life) -> None:
        for value in node.outputs:
            self.of[value.name or ""] = life

    def _add_single(self, name: str, piece: Axis) -> None:
        if not np.any(self._algebra.live(piece)):
            return
        void = ZEROS if piece.zero else ANYTHING
        inherited = self.of.get(name)
        if inherited is not None:
            both = inherited.void if inherited.void == void else ANYTHING
            self.of[name] = Life(merge([inherited.axis, piece]), both)
        else:
            self.of[name] = Life(replace(piece, why=0), void)


def _void(node: ir.Node, kept: Mapping[int, Life]) -> str:
    """What the result holds once one of its mortal inputs is dead."""
    found = {_void_of(node, i, life.void) for i, life in kept.items()}
    return found.pop() if len(found) == 1 else ANYTHING


def _void_of(node: ir.Node, i: int, void: str) -> str:
    op_type = node.op_type
    if void == ZEROS:
        if op_type == "NonZero":
            return EMPTY
        return ZEROS if op_type in ZERO_IF_ANY or (op_type in ZERO_IF_FIRST and i == 0) else ANYTHING
    if void != EMPTY or op_type in _REDUCES:
        return ANYTHING
    if op_type == "MatMul":  # rows that are not there, and not an empty sum
        other = node.inputs[1]
        return EMPTY if i == 0 and other is not None and is_constant(other) else ANYTHING
    stays = i == 0 and (op_type in ZERO_IF_FIRST or op_type in _EMPTY_FIRST)
    chosen = i == 1 and op_type in ("Gather", "GatherElements", "GatherND")
    return EMPTY if stays or chosen or op_type in _EMPTY_ANY else ANYTHING
