"""Weights of experts stacked in one tensor, looked up for each token: one layer for each expert.

``MatMul(x, Gather(W, index))`` multiplies each row by the matrix that its index names.  So it is as many
layers as there are experts, each with the rows that go to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.calibration.linear import Linear, Shapes, linear_of

Tensors = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, eq=False)
class Gathered(Linear):
    """One expert of a stack.

    Attributes:
        holder: the node that looks matrices up.
        index: what it looks up by.
        expert: which matrix.
    """

    holder: ir.Node | None = None
    index: ir.Value | None = None
    expert: int = 0

    @property
    def place(self) -> tuple[ir.Node, int]:
        """The lookup reads the weight."""
        assert self.holder is not None
        return self.holder, 0

    @property
    def reads(self) -> tuple[ir.Value, ...]:
        """The index says which rows are this expert's."""
        assert self.index is not None
        return (self.source, self.index)

    @property
    def features(self) -> int:
        """One expert alone has these."""
        return self._shape[self.contracted]

    def matrices(self, weight: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        """``[1, d, o]`` of this expert."""
        own = np.asarray(weight[self.expert], np.float64)
        return np.ascontiguousarray(own if self.contracted < self.made else own.T)[None]

    def updated(
        self, weight: npt.NDArray[np.floating], matrices: npt.NDArray[np.floating]
    ) -> npt.NDArray[np.floating]:
        """The stack with this expert's matrix replaced."""
        new = weight.copy()
        new[self.expert] = matrices[0] if self.contracted < self.made else matrices[0].T
        return new

    def features_of(self, channels: npt.NDArray[np.int64], shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
        """One feature per channel."""
        return np.asarray(channels)[:, None]

    def own_rows(self, found: Tensors, output: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        """``[rows]``: which rows of the output this expert makes."""
        assert self.holder is not None
        assert self.index is not None
        index = np.asarray(found[self.index.name or ""], np.int64)
        if self.holder.op_type == "GatherND":
            index = index[..., 0]
        index = np.where(index < 0, index + self._shape[0], index)
        # Before the two axes of the matrices come those of the index; each holds a few rows.
        rows = output[-1] if self.data == 1 else output[-2]
        return np.asarray(np.broadcast_to((index == self.expert)[..., None], (*output[:-2], rows)).ravel())


def linears_of(node: ir.Node, shapes: Shapes | None = None) -> list[Linear]:
    """The layers that a node is: one, or one for each expert of a stack.

    Args:
        node: the node.
        shapes: of the model's tensors by name, for those whose shape the file does not give.
    """
    layer = linear_of(node, shapes)
    return [layer] if layer is not None else _stack(node, shapes or {})


def _stack(node: ir.Node, shapes: Shapes) -> list[Linear]:
    if node.op_type != "MatMul" or node.domain not in ("", "ai.onnx"):
        return []
    for weight in (1, 0):
        holder, turned = _lookup(node.inputs[weight], shapes)
        data = node.inputs[1 - weight]
        if holder is None or data is None or data.const_value is not None:
            continue
        if _lookup(data, shapes)[0] is not None:
            continue
        # A matrix on the right contracts its first axis, one on the left its last.
        contracted, made = (1, 2) if (weight == 1) != turned else (2, 1)
        stack, index = holder.inputs[0], holder.inputs[1]
        assert stack is not None
        assert stack.const_value is not None
        experts = int(stack.const_value.shape.numpy()[0])
        return [
            Gathered(node, 1 - weight, weight, contracted, made, holder=holder, index=index, expert=e)
            for e in range(experts)
        ]
    return []


def _is_column(index: ir.Value, shapes: Shapes) -> bool:
    """Does each entry of a GatherND's index name one matrix?"""
    sizes = index.shape if index.shape is not None else shapes.get(index.name or "", ())
    return len(sizes) > 0 and sizes[-1] == 1


def _lookup(value: ir.Value | None, shapes: Shapes) -> tuple[ir.Node | None, bool]:
    """The node that takes whole matrices from a constant stack, and are they transposed afterwards?"""
    node = value.producer() if value is not None else None
    turned = False
    if node is not None and node.op_type == "Transpose":
        order = node.attributes["perm"].as_ints() if "perm" in node.attributes else ()
        rank = len(order)
        if rank < 3 or tuple(order) != (*range(rank - 2), rank - 1, rank - 2):
            return None, False
        turned = True
        source = node.inputs[0]
        node = source.producer() if source is not None else None
    if node is None or node.op_type not in ("Gather", "GatherND"):
        return None, False
    stack, index = node.inputs[0], node.inputs[1]
    if stack is None or index is None or stack.const_value is None or stack.is_graph_input():
        return None, False
    if not stack.const_value.dtype.is_floating_point() or len(stack.const_value.shape.numpy()) != 3:
        return None, False
    if index.const_value is not None:
        return None, False
    if node.op_type == "Gather":
        whole = node.attributes.get_int("axis", 0) == 0
    else:
        whole = node.attributes.get_int("batch_dims", 0) == 0
        whole &= _is_column(index, shapes)
    return (node, turned) if whole else (None, False)
