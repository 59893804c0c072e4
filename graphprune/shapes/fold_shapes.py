"""Partial evaluation of shape arithmetic: what depends on fixed sizes alone becomes a constant.

Exporters compute head sizes, window counts and ``1/sqrt(d)`` from Shape at run time. Once a channel
is cut such a number would change with it, although the network was trained with the original one.
Here every element of such a value is marked as known or open, from Shape on: an element is known
when it depends on axes of fixed size only. Wholly known values become initializers of the same
name. What depends on a symbolic dim stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from graphprune.model import Model
from graphprune.shapes.permutations import gather_permutations
from graphprune.shapes.shape_ops import slices
from graphprune.shapes.shape_values import structural_nodes
from graphprune.shapes.trace import Trace, trace
from graphprune.storage.branches import inline_known_branches
from graphprune.storage.constants import drop_unused, is_constant, replace_by_constant

Mask = np.ndarray

ELEMENTWISE = frozenset({
    "Abs", "Add", "And", "Cast", "CastLike", "Ceil", "Clip", "Div", "Equal", "Exp", "Floor",
    "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Log", "Max", "Min", "Mod",
    "Mul", "Neg", "Not", "Or", "Pow", "Reciprocal", "Round", "Sign", "Sqrt", "Sub", "Sum", "Where",
    "Xor",
})  # fmt: skip

# These keep the elements of their first input in order.
RESHAPING = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})


def prepare(
    model: Model, dims: Mapping[str, int] | None = None, *, in_place: bool = False
) -> tuple[Model, Trace]:
    """A copy of ``model`` for analysis, and the trace of both.

    Static shape arithmetic is folded, and chains that only permute an axis are one Gather each.

    Args:
        model: in canonical form; unchanged.
        dims: nominal sizes for symbolic dims.
        in_place: change ``model`` itself: nobody else has it.
    """
    copy = model if in_place else model.clone()
    found = trace(copy, dims)
    fold_static_shapes(copy, found)
    inline_known_branches(copy.ir.graph)
    return copy, gather_permutations(copy.ir, found)


def fold_static_shapes(model: Model, trace: Trace) -> None:
    """Replace shape arithmetic on fixed sizes by initializers of the same name, in place.

    The trace stays valid for every value that is left.
    """
    graph = model.ir.graph
    nodes = structural_nodes(graph)
    masks = _Masks(model.ir, trace)
    for node in nodes:
        masks.visit(node)
    for node in nodes:
        for value in node.outputs:
            name = value.name or ""
            if value.is_graph_output() or not masks.is_known(name):
                continue
            readers = {use.node for use in value.uses()}
            if all(reader in nodes and masks.covers(reader) for reader in readers):
                continue  # every reader becomes a constant as well
            replace_by_constant(graph, value, ir.Tensor(trace.values[name], name=name))
    drop_unused(graph, nodes)


class _Masks:
    """For every value of shape arithmetic, which of its elements are known for every input size."""

    def __init__(self, model: ir.Model, trace: Trace) -> None:
        self._model = model
        self._trace = trace
        self._masks: dict[str, Mask] = {}

    def is_known(self, name: str) -> bool:
        """Whether every element of this value of shape arithmetic is known."""
        return name in self._masks and bool(self._masks[name].all())

    def covers(self, node: ir.Node) -> bool:
        """Whether every output of ``node`` becomes a constant."""
        return all(
            self.is_known(value.name or "") and not value.is_graph_output()
            for value in node.outputs
            if value.uses() or value.is_graph_output()
        )

    def visit(self, node: ir.Node) -> None:
        """Work out the masks of a node's outputs."""
        names = [value.name for value in node.outputs if value.name]
        if not all(name in self._trace.values for name in names):
            return
        is_size = node.op_type in {"Shape", "Size"}
        masks = self._of_sizes(node) if is_size else self._of_arithmetic(node)
        for value, mask in zip(node.outputs, masks, strict=False):
            # Where the length itself is open, "element 7" is not the same element at another size.
            if value.name and not self._is_open(value.name):
                self._masks[value.name] = mask

    def _is_open(self, name: str) -> bool:
        return any(self._trace.is_dynamic(name, axis) for axis in range(self._rank(name)))

    def _rank(self, name: str) -> int:
        return len(self._trace.shapes.get(name, ()))

    def _of_sizes(self, node: ir.Node) -> list[Mask]:
        source = node.inputs[0].name if node.inputs[0] is not None else None
        if source is None or source not in self._trace.shapes:
            return []
        axes = range(self._rank(source))
        fixed = np.asarray([not self._trace.is_dynamic(source, axis) for axis in axes], bool)
        if node.op_type == "Size":
            return [np.asarray(fixed.all())]
        end = node.attributes.get_int("end", len(fixed))
        return [fixed[node.attributes.get_int("start", 0) : end]]

    def _of_arithmetic(self, node: ir.Node) -> list[Mask]:
        inputs = [self._mask(value) for value in node.inputs if value is not None]
        shapes = [self._trace.shapes[value.name] for value in node.outputs if value.name]
        if all(mask is not None and mask.all() for mask in inputs):
            return [np.ones(shape, bool) for shape in shapes]
        known = [mask for mask in inputs if mask is not None]
        if len(known) < len(inputs):
            return []
        if node.op_type in ELEMENTWISE:
            return [np.logical_and.reduce(np.broadcast_arrays(*known))]
        if node.op_type == "Concat":
            return [np.concatenate(known, axis=node.attributes.get_int("axis", 0))]
        if all(mask.all() for mask in known[1:]):
            return self._moved(node, known[0], shapes)
        return []

    def _mask(self, value: ir.Value) -> Mask | None:
        """Mask of an input; None where nothing is known about it."""
        if is_constant(value):
            return None if value.shape is None else np.ones(value.shape.numpy(), bool)
        name = value.name or ""
        shape = self._trace.shapes.get(name)
        return self._masks.get(name, None if shape is None else np.zeros(shape, bool))

    def _moved(self, node: ir.Node, mask: Mask, shapes: list[tuple[int, ...]]) -> list[Mask]:
        """Masks of the outputs of an op that moves the elements of its first input."""
        if node.op_type in RESHAPING:
            return [mask.reshape(shapes[0])]
        if node.op_type == "Expand":
            return [np.broadcast_to(mask, shapes[0])]
        if node.op_type == "Transpose":
            perm = node.attributes.get_ints("perm", tuple(reversed(range(mask.ndim))))
            return [mask.transpose(perm)]
        if node.op_type == "Gather":
            return [np.take(mask, self._indices(node), axis=node.attributes.get_int("axis", 0))]
        if node.op_type == "Slice":
            return [mask[self._slices(node, mask.ndim)]]
        if node.op_type == "Split":
            axis = node.attributes.get_int("axis", 0)
            cuts = np.cumsum([shape[axis] for shape in shapes])[:-1]
            return np.split(mask, cuts, axis)
        return []

    def _indices(self, node: ir.Node) -> np.ndarray:
        value = node.inputs[1]
        return self._trace.values[value.name or "" if value is not None else ""]

    def _slices(self, node: ir.Node, rank: int) -> tuple[slice, ...]:
        starts, ends = self._ints(node, 1), self._ints(node, 2)
        axes = self._ints(node, 3) if _has(node, 3) else range(len(starts))
        steps = self._ints(node, 4) if _has(node, 4) else [1] * len(starts)
        return slices(rank, starts, ends, axes, steps)

    def _ints(self, node: ir.Node, index: int) -> list[int]:
        """An index input, every element of which is known."""
        value = node.inputs[index]
        array = self._trace.values[value.name or ""] if value is not None else np.empty(0, np.int64)
        return [int(i) for i in array.reshape(-1)]


def _has(node: ir.Node, index: int) -> bool:
    return index < len(node.inputs) and node.inputs[index] is not None
