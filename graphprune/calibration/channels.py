"""What is known of channels from weights alone.

From what a layer reads, the way back leads through activations, pooling, normalisation and depthwise
convolutions to the one layer that makes these channels.  Two of them are as much alike as their filters, as
if their inputs were white; a BatchNormalization on the way says how large each one is, and its mean.  Where
the way leads to a sum of several layers, or to anything else, nothing is said.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.calibration.activations import behind, function_of, gate_of
from graphprune.calibration.batch_norms import Norm, norm_of
from graphprune.calibration.evidence import Consumer, Evidence
from graphprune.calibration.gathered import Gathered

Matrix = npt.NDArray[np.float64]
#: They keep channels apart; what they do to moments is left out of account.
_PASSES = frozenset({
    "Identity", "Dropout", "Cast", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Flatten",
    "Reshape", "Squeeze", "Unsqueeze", "Transpose",
})  # fmt: skip
_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div"})


@dataclass(frozen=True, eq=False)
class Channels:
    """Channels of one layer, as they arrive somewhere.

    Attributes:
        maker: the layer that makes them.
        mean: ``[channels]``.
        covariance: ``[channels, channels]``.
    """

    maker: Consumer
    mean: Matrix
    covariance: Matrix

    def scaled(self, factor: Matrix) -> Channels:
        """Multiplied by ``[channels]`` or ``[1]``."""
        factor = np.broadcast_to(factor, self.mean.shape)
        return replace(self, mean=self.mean * factor, covariance=self.covariance * np.outer(factor, factor))

    def moved(self, shift: Matrix) -> Channels:
        """With something added, ``[channels]`` or ``[1]``."""
        return replace(self, mean=self.mean + shift)


class Trail:
    """Follows values back to the layers that make their channels; each value is followed once.

    Args:
        evidence: for the layers of the model, and the statistics that its norms hold in the file.
    """

    def __init__(self, evidence: Evidence) -> None:
        self._substitutes = evidence.substitutes
        self._layers = {c.layer.node: c for c in evidence.consumers if not isinstance(c.layer, Gathered)}
        self._known: dict[ir.Value, Channels | None] = {}

    def channels(self, value: ir.Value | None) -> Channels | None:
        """The channels of a value; None if they are not known."""
        way: list[ir.Node] = []
        while value is not None and value not in self._known:
            node = value.producer()
            if node is None or node.outputs[0] is not value:
                break
            way.append(node)
            layer = self._layers.get(node)
            value = None if layer is not None and not _is_depthwise(layer) else _before(node)
        found = self._known.get(value) if value is not None else None
        for node in reversed(way):
            found = self._known[node.outputs[0]] = self._made(node, found)
        return found

    def _made(self, node: ir.Node, before: Channels | None) -> Channels | None:
        """What a node makes of the channels that it reads."""
        layer = self._layers.get(node)
        if layer is not None and not _is_depthwise(layer):
            return _from_weights(layer)
        if before is None:
            return None
        if layer is not None:
            return _through_windows(layer, before)
        norm = norm_of(node)
        if norm is not None:
            return self._normalised(norm, before)
        if node.op_type in _ARITHMETIC:
            gate = _gate(node)
            function = gate_of(gate) if gate is not None else None
            if function is None:
                return _with_constant(node, before)
        elif node.op_type in _PASSES:
            return before
        else:
            function = function_of(node)
        if function is None:
            return None
        mean, covariance = behind(function, before.mean, before.covariance)
        return replace(before, mean=mean, covariance=covariance)

    def _normalised(self, norm: Norm, before: Channels) -> Channels | None:
        """As large as in training, and alike as before."""
        stored = self._substitutes.stored(norm).variance.clip(min=0.0)
        if len(stored) != len(before.mean):
            return None
        spread = np.sqrt(np.diag(before.covariance).clip(min=0.0))
        sized = np.sqrt(stored / (stored + norm.epsilon)) * _array(norm.constant(1))
        factor = np.divide(sized, spread, out=np.zeros_like(spread), where=spread > 0)
        return replace(before.scaled(factor), mean=_array(norm.constant(2)))


def _is_depthwise(layer: Consumer) -> bool:
    return layer.layer.groups == layer.use.axes[layer.layer.made].size > 1


def _from_weights(layer: Consumer) -> Channels | None:
    bias = _own_bias(layer)
    if layer.layer.groups != 1 or bias is None:
        return None
    matrix = layer.matrices[0]
    return Channels(layer, np.broadcast_to(bias, matrix.shape[1:]), matrix.T @ matrix)


def _through_windows(layer: Consumer, before: Channels) -> Channels | None:
    """Behind a depthwise convolution, whose positions are taken for independent."""
    bias, kernels = _own_bias(layer), layer.matrices[:, :, 0]
    if bias is None or len(kernels) != len(before.mean):
        return None
    mean = before.mean * kernels.sum(axis=1) + bias
    return replace(before, mean=mean, covariance=before.covariance * (kernels @ kernels.T))


def _before(node: ir.Node) -> ir.Value | None:
    """The input that holds a node's channels; None where there are several."""
    if node.op_type not in _ARITHMETIC:
        return node.inputs[0] if node.inputs else None
    data = [v for v in node.inputs if v is not None and not _is_constant(v)]
    if len(data) == 1:
        return data[0]
    gate = _gate(node)
    return gate.inputs[0] if gate is not None else None


def _gate(node: ir.Node) -> ir.Node | None:
    """The node ``g`` where a node is ``x * g(x)``."""
    if node.op_type == "Mul":
        for value, other in ((node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])):
            above = other.producer() if other is not None else None
            if above is not None and gate_of(above) is not None and above.inputs[0] is value:
                return above
    return None


def _own_bias(layer: Consumer) -> Matrix | None:
    """Of the node itself; None if it is not known beforehand."""
    inputs = layer.layer.node.inputs
    bias = inputs[2] if len(inputs) > 2 else None
    if bias is None:
        return np.zeros(1)
    if not _is_constant(bias):
        return None
    array = _array(bias).reshape(-1)
    return array if len(array) in (1, layer.use.axes[layer.layer.made].size) else None


def _with_constant(node: ir.Node, before: Channels) -> Channels | None:
    first, second = node.inputs[:2]
    is_second = second is not None and _is_constant(second)
    constant = second if is_second else first
    if constant is None or not _is_constant(constant):
        return None
    array = _array(constant)
    if array.size not in (1, len(before.mean)) or max(array.shape, default=1) != array.size:
        return None
    array = array.reshape(-1)
    if node.op_type == "Add":
        return before.moved(array)
    if node.op_type == "Mul":
        return before.scaled(array)
    if not is_second:
        return None  # the constant is divided, or what is subtracted from
    if node.op_type == "Sub":
        return before.moved(-array)
    return before.scaled(1.0 / array) if array.all() else None


def _is_constant(value: ir.Value) -> bool:
    return value.const_value is not None and not value.is_graph_input()


def _array(value: ir.Value) -> Matrix:
    assert value.const_value is not None
    return np.asarray(value.const_value.numpy(), np.float64)
