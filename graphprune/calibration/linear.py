"""Layers that multiply data by a constant weight, as one matrix per group.

Whatever the operator, the output is ``rows @ matrix``: rows of ``d`` features (a token, or a convolution's
window around a position), a matrix ``[d, o]``.  Least squares needs no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.calibration.windows import Window

Array = npt.NDArray[np.float32]
#: Sizes of tensors by name.
Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True, eq=False)
class Linear:
    """One MatMul, Gemm or Conv with a constant weight.

    Attributes:
        node: the node.
        data: index of the input that is data.
        weight: index of the input that is the weight.
        contracted: axis of the weight that is multiplied with the data's features.
        made: axis of the weight that makes the output's features.
        groups: number of matrices (the groups of a convolution).
        window: of a convolution, None otherwise.
    """

    node: ir.Node
    data: int
    weight: int
    contracted: int
    made: int
    groups: int = 1
    window: Window | None = None

    @property
    def source(self) -> ir.Value:
        """What it reads."""
        value = self.node.inputs[self.data]
        assert value is not None
        return value

    @property
    def output(self) -> ir.Value:
        """What it makes."""
        return self.node.outputs[0]

    @property
    def constant(self) -> ir.Value:
        """The weight."""
        node, index = self.place
        value = node.inputs[index]
        assert value is not None
        return value

    @property
    def place(self) -> tuple[ir.Node, int]:
        """The node and the input that read the weight."""
        return self.node, self.weight

    @property
    def reads(self) -> tuple[ir.Value, ...]:
        """What has to be known of a run for :meth:`rows`."""
        return (self.source,)

    @property
    def features(self) -> int:
        """``d``, of the weight as it is now."""
        shape = self._shape
        return prod(shape) // max(shape[self.made], 1)

    @property
    def _shape(self) -> tuple[int, ...]:
        return _shape(self.constant)

    def matrices(self, weight: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        """``[groups, d, o]``: features are ordered channel by channel, a window's positions within."""
        array = np.moveaxis(np.asarray(weight, np.float64), (self.contracted, self.made), (0, 1))
        channels, made = array.shape[:2]
        array = array.reshape(channels, made, -1)
        per_group = array.reshape(channels, self.groups, made // self.groups, -1)
        stacked = per_group.transpose(1, 0, 3, 2)
        return np.ascontiguousarray(stacked.reshape(self.groups, -1, made // self.groups))

    def weights(self, matrices: npt.NDArray[np.floating], shape: tuple[int, ...]) -> npt.NDArray[np.floating]:
        """The inverse of :meth:`matrices`, for a weight of this shape."""
        channels, made = shape[self.contracted], shape[self.made]
        rest = prod(n for i, n in enumerate(shape) if i not in (self.contracted, self.made))
        stacked = matrices.reshape(self.groups, channels, rest, made // self.groups)
        array = stacked.transpose(1, 0, 3, 2).reshape(channels, made, rest)
        others = [n for i, n in enumerate(shape) if i not in (self.contracted, self.made)]
        array = array.reshape(channels, made, *others)
        return np.moveaxis(array, (0, 1), (self.contracted, self.made))

    def updated(
        self, weight: npt.NDArray[np.floating], matrices: npt.NDArray[np.floating]
    ) -> npt.NDArray[np.floating]:
        """The weight with these matrices in it."""
        return self.weights(matrices, weight.shape)

    def features_of(self, channels: npt.NDArray[np.int64], shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
        """Positions among the ``d`` features of channels of the contracted axis, ``[len, per channel]``."""
        per = prod(shape) // max(shape[self.contracted] * shape[self.made], 1)
        return np.asarray(channels)[:, None] * per + np.arange(per)

    def rows(self, data: npt.NDArray[np.generic], pick: npt.NDArray[np.int64] | None = None) -> Array:
        """Feature rows ``[groups, n, d]`` of a batch; ``pick`` takes some positions of each sample.

        Args:
            data: ``[samples, ...]``, as the node reads it.
            pick: ``[samples, k]`` positions of the output, flat; None for all.
        """
        if self.window is not None:
            return self.window.rows(np.asarray(data, np.float32), self.groups, pick)
        return self._flat(data, self.feature_axis, pick)[None]

    def rows_at(
        self,
        data: npt.NDArray[np.generic],
        sample: npt.NDArray[np.int64],
        position: npt.NDArray[np.int64],
    ) -> Array:
        """Feature rows ``[groups, n, d]`` at single flat positions of the output."""
        if self.window is not None:
            return self.window.rows_at(np.asarray(data, np.float32), self.groups, sample, position)
        return self.at(data, sample, position)[None]

    def at(
        self,
        output: npt.NDArray[np.generic],
        sample: npt.NDArray[np.int64],
        position: npt.NDArray[np.int64],
    ) -> Array:
        """Values ``[n, features]`` of something shaped like the output, at single flat positions."""
        axis = self.feature_axis % output.ndim
        array = np.moveaxis(output, axis, -1)
        flat = array.reshape(len(array), -1, array.shape[-1])
        return np.ascontiguousarray(flat[sample, position], np.float32)

    def targets(self, output: npt.NDArray[np.generic], pick: npt.NDArray[np.int64] | None = None) -> Array:
        """Output rows ``[groups, n, o]`` that go with :meth:`rows`."""
        flat = self._flat(output, self.feature_axis, pick)
        per = flat.shape[1] // self.groups
        return flat.reshape(-1, self.groups, per).transpose(1, 0, 2)

    def positions(self, output: tuple[int, ...]) -> int:
        """Rows per sample, given the shape of the output."""
        axis = self.feature_axis % len(output)
        return prod(n for i, n in enumerate(output) if i not in (0, axis))

    @property
    def feature_axis(self) -> int:
        """Axis of features, in the data and in the output."""
        if self.window is not None:
            return 1
        return -1 if self.data == 0 else -2

    @staticmethod
    def _flat(data: npt.NDArray[np.generic], axis: int, pick: npt.NDArray[np.int64] | None) -> Array:
        if data.ndim == 1:
            data = data[None]
        axis %= data.ndim
        features = data.shape[axis]
        if axis == 1 and data.ndim > 2:  # picked before anything is moved
            array = data.reshape(len(data), features, -1)
            if pick is not None:
                array = np.take_along_axis(array, pick[:, None, :], axis=2)
            array = array.transpose(0, 2, 1)
        else:
            array = np.moveaxis(data, axis, -1).reshape(len(data), -1, features)
            if pick is not None:
                array = np.take_along_axis(array, pick[:, :, None], axis=1)
        return np.ascontiguousarray(array.reshape(-1, features), np.float32)


def linear_of(node: ir.Node, shapes: Shapes | None = None) -> Linear | None:
    """The layer that a node is, None if it is none or has a form that is not followed here.

    Args:
        node: the node.
        shapes: of the model's tensors by name, for those whose shape the file does not give.
    """
    inputs = node.inputs
    if node.domain not in ("", "ai.onnx") or len(inputs) < 2:
        return None
    reads_data = not _is_constant(inputs[0])
    if node.op_type == "Conv" and _is_weight(inputs[1]) and reads_data:
        return _convolution(node)
    if node.op_type == "Gemm" and _is_weight(inputs[1]) and reads_data:
        turned = "transB" in node.attributes and node.attributes["transB"].as_int()
        if any(_scaling(node, name) != 1.0 for name in ("alpha", "beta")):
            return None
        if "transA" in node.attributes and node.attributes["transA"].as_int():
            return None  # samples are not the first axis
        return Linear(node, 0, 1, 1 if turned else 0, 0 if turned else 1)
    if node.op_type == "MatMul":
        for weight, contracted in ((1, 0), (0, 1)):
            value, data = inputs[weight], inputs[1 - weight]
            if _is_weight(value) and not _is_constant(data) and len(_shape(value)) == 2:
                if weight == 0 and _rank(data, shapes or {}) < 3:
                    return None  # samples are not the first axis of the output
                return Linear(node, 1 - weight, weight, contracted, 1 - contracted)
    return None


def _rank(value: ir.Value | None, shapes: Shapes) -> int:
    """Number of axes; 0 if nobody knows."""
    if value is None:
        return 0
    return len(shapes.get(value.name or "", ()) if value.shape is None else value.shape)


def _convolution(node: ir.Node) -> Linear | None:
    shape = _shape(node.inputs[1])
    group = node.attributes["group"].as_int() if "group" in node.attributes else 1
    if len(shape) < 3 or shape[0] % group:
        return None
    window = Window.of(node, shape[2:])
    return Linear(node, 0, 1, 1, 0, group, window)


def _scaling(node: ir.Node, name: str) -> float:
    return node.attributes[name].as_float() if name in node.attributes else 1.0


def _is_constant(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None and not value.is_graph_input()


def _is_weight(value: ir.Value | None) -> bool:
    if value is None or value.const_value is None or value.is_graph_input():
        return False
    return bool(value.const_value.dtype.is_floating_point()) and len(_shape(value)) >= 2


def _shape(value: ir.Value | None) -> tuple[int, ...]:
    assert value is not None
    assert value.const_value is not None
    return tuple(int(n) for n in value.const_value.shape.numpy())
