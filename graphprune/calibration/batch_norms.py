"""BatchNormalization in inference mode, with constants that may change, and the statistics of channels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.model import Model

Vector = npt.NDArray[np.float64]
_EPSILON = 1e-5


@dataclass(frozen=True)
class Statistics:
    """Mean and variance of each channel, ``[channels]``."""

    mean: Vector
    variance: Vector

    def take(self, kept: npt.NDArray[np.bool_] | None) -> Statistics:
        """Of some channels; None for all."""
        return self if kept is None else Statistics(self.mean[kept], self.variance[kept])


@dataclass
class ChannelSums:
    """Sums over all numbers of a channel."""

    count: int = 0
    first: Vector = field(default_factory=lambda: np.zeros(()))
    second: Vector = field(default_factory=lambda: np.zeros(()))

    def add(
        self, array: npt.NDArray[np.generic], axis: int = 1, valid: npt.NDArray[np.bool_] | None = None
    ) -> None:
        """A batch; numbers of a run that overflows say nothing.

        Args:
            array: with its channels along ``axis``.
            axis: of the channels.
            valid: which rows count, of all positions beside the channels in their order; None for all.
        """
        rows = np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis]).astype(np.float64)
        rows = rows if valid is None else rows[valid]
        with np.errstate(over="ignore", invalid="ignore"):
            first, second = rows.sum(axis=0), np.einsum("nc,nc->c", rows, rows)
        if np.isfinite(first.sum() + second.sum()):
            self.count += len(rows)
            self.first, self.second = self.first + first, self.second + second

    @property
    def statistics(self) -> Statistics | None:
        """None if there was nothing to count."""
        if not self.count:
            return None
        mean = self.first / self.count
        return Statistics(mean, np.maximum(self.second / self.count - np.square(mean), 0.0))


def statistics_of(batches: Iterable[npt.NDArray[np.generic]], axis: int = 1) -> Statistics | None:
    """Of the channels of all batches together; None if there is nothing to count."""
    sums = ChannelSums()
    for array in batches:
        sums.add(array, axis)
    return sums.statistics


@dataclass(frozen=True, eq=False)
class Norm:
    """One BatchNormalization of the main graph: ``(x - mean) / sqrt(var + epsilon) * scale + shift``."""

    node: ir.Node

    @property
    def name(self) -> str:
        """Of what it makes: the same in the original and in the pruned model."""
        return self.node.outputs[0].name or ""

    @property
    def source(self) -> ir.Value:
        """What it reads."""
        value = self.node.inputs[0]
        assert value is not None
        return value

    @property
    def epsilon(self) -> float:
        """Is added to the variance."""
        return self.node.attributes.get_float("epsilon", _EPSILON)

    def constant(self, index: int) -> ir.Value:
        """Scale, shift, mean and variance are the inputs 1 to 4."""
        value = self.node.inputs[index]
        assert value is not None
        return value

    @property
    def has_own_statistics(self) -> bool:
        """Does nothing else read its mean and its variance?"""
        return all(
            len(list(value.uses())) == 1 and not value.is_graph_output()
            for value in (self.constant(3), self.constant(4))
        )


def norm_of(node: ir.Node) -> Norm | None:
    """The norm that a node is, None if it is none, or one that makes its statistics from what it reads."""
    if node.op_type != "BatchNormalization" or node.domain not in ("", "ai.onnx") or len(node.inputs) != 5:
        return None
    makes_them = node.attributes.get_int("training_mode", 0) or any(v.name for v in node.outputs[1:])
    if makes_them or not node.attributes.get_int("spatial", 1) or node.inputs[0] is None:
        return None
    return Norm(node) if _are_vectors(node.inputs[1:]) else None


def norms_of(model: Model) -> list[Norm]:
    """Those of the main graph, in topological order."""
    return [norm for norm in map(norm_of, model.ir.graph) if norm is not None]


def _are_vectors(values: Sequence[ir.Value | None]) -> bool:
    shapes = set()
    for value in values:
        tensor = value.const_value if value is not None and not value.is_graph_input() else None
        if tensor is None or not tensor.dtype.is_floating_point():
            return False
        shapes.add(tuple(tensor.shape.numpy()))
    return len(shapes) == 1 and len(shapes.pop()) == 1
