"""Where the mean and the variance of channels can be set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from graphprune.passes.compensators.slots import Slot, add_bias, bias_slot, read, write

from graphprune.calibration.batch_norms import Norm, Statistics, norm_of
from graphprune.calibration.landing import Landing
from graphprune.calibration.linear import Linear

Vector = npt.NDArray[np.float64]
#: A variance below this part of the other one is none: it is not blown up, and nothing is divided by it.
_NOTHING = 1e-6
#: Statistics that differ by less are the same, but for rounding.
_SAME = 1e-5


class Place(Protocol):
    """A value of the pruned model with channels whose statistics can be set."""

    @property
    def value(self) -> ir.Value:
        """Whose channels are measured."""
        ...

    @property
    def reads(self) -> tuple[ir.Value, ...]:
        """What has to be known for that, and does not depend on what is set."""
        ...

    @property
    def axis(self) -> int:
        """Of the channels."""
        ...

    def match(self, graph: ir.Graph, wanted: Statistics, found: Statistics) -> None:
        """Makes channels that have the statistics ``found`` act as if they had ``wanted``."""
        ...


@dataclass(frozen=True, eq=False)
class NormPlace:
    """What a BatchNormalization reads.

    It keeps what it knew of the training data: its mean and variance change as those of its input did.
    """

    norm: Norm

    @property
    def value(self) -> ir.Value:
        """The norm's input."""
        return self.norm.source

    @property
    def reads(self) -> tuple[ir.Value, ...]:
        """The same."""
        return (self.norm.source,)

    @property
    def axis(self) -> int:
        """As the operator has it."""
        return 1

    def match(self, graph: ir.Graph, wanted: Statistics, found: Statistics) -> None:
        """New mean and variance."""
        if _are_same(wanted, found):
            return
        mean, variance = read(self.norm.constant(3)), read(self.norm.constant(4))
        factor = 1.0 / _factor(wanted, found)
        write(graph, self.norm.node, 3, found.mean + (mean - wanted.mean) * factor)
        write(graph, self.norm.node, 4, variance * np.square(factor))


@dataclass(frozen=True, eq=False)
class LayerPlace:
    """What a layer makes, behind its bias: the rows of its weight are scaled, and the bias moves.

    Attributes:
        layer: of the pruned model.
        slot: its bias.
    """

    layer: Linear
    slot: Slot

    @property
    def value(self) -> ir.Value:
        """The output with its bias."""
        return self.slot.node.outputs[0]

    @property
    def reads(self) -> tuple[ir.Value, ...]:
        """What the layer reads."""
        return self.layer.reads

    @property
    def axis(self) -> int:
        """Of the layer's features."""
        return self.layer.feature_axis

    def match(self, graph: ir.Graph, wanted: Statistics, found: Statistics) -> None:
        """New weight and bias."""
        if _are_same(wanted, found):
            return
        factor = _factor(wanted, found)
        bias: Vector = np.zeros(1)
        if not self.slot.is_new:
            value = self.slot.node.inputs[self.slot.index]
            assert value is not None
            bias = read(value).reshape(-1)
        weight = read(self.layer.constant)
        shape = [1] * weight.ndim
        shape[self.layer.made] = -1
        write(graph, *self.layer.place, weight * factor.reshape(shape))
        shift = (factor - 1.0) * bias + wanted.mean - factor * found.mean
        add_bias(graph, self.layer, self.slot, shift)


def layer_place(layer: Linear, landing: Landing, *, grows: bool = True) -> LayerPlace | None:
    """The place behind a layer; None if it has none of its own, or a norm reads it anyway.

    Args:
        layer: of the pruned model.
        landing: where its output goes.
        grows: the model may get further constants.
    """
    slot = bias_slot(layer, landing, grows=grows)
    # A weight that several layers share would have to become several.
    if slot is None or len(list(layer.constant.uses())) > 1:
        return None
    if slot.node is not layer.node and slot.node is not landing.biases[0][0]:
        return None
    place = LayerPlace(layer, slot)
    return None if any(norm_of(node) is not None for node, _ in place.value.uses()) else place


def _factor(wanted: Statistics, found: Statistics) -> Vector:
    """What makes the found variance the wanted one; 1 where one of them is zero."""
    least = _NOTHING * np.maximum(wanted.variance, found.variance)
    usable = (wanted.variance > least) & (found.variance > least)
    ratio = np.divide(wanted.variance, found.variance, out=np.ones_like(found.variance), where=usable)
    return np.asarray(np.sqrt(ratio))


def _are_same(wanted: Statistics, found: Statistics) -> bool:
    scale = np.sqrt(wanted.variance) + np.finfo(float).tiny
    return bool(
        np.all(np.abs(wanted.mean - found.mean) <= _SAME * scale)
        and np.allclose(wanted.variance, found.variance, rtol=_SAME, atol=0.0)
    )
