"""Saliency without data: how far the loss of a unit can move the outputs of what reads it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from graphprune.passes.criteria.obs import places_of
from graphprune.passes.criteria.readers import shares_of_magnitude

from graphprune.calibration.evidence import Consumer, Evidence
from graphprune.calibration.linear import linear_of
from graphprune.groups import Group

Scores = npt.NDArray[np.float64]
_TINY = float(np.finfo(float).tiny)


@dataclass(frozen=True)
class DataFreeBound:
    """DFPC (Narshana et al. 2023): a bound of the error at a group's outputs, from ``|weights|`` alone.

    ``score(u) = (sum over layers that make u: s_u sum_i |W_iu|) (sum over layers that read u: its share of
    sum_o s_o |W_uo|)``: how large the unit can get for inputs of size 1, times how far it then moves what
    reads it.  ``s`` is the scale of the BatchNormalization behind a layer, and the depthwise convolutions
    behind it multiply it further.

    Attributes:
        additive: the scores only rank: a bound is no estimate.
    """

    additive: bool = False

    def __call__(self, evidence: Evidence) -> Scores:
        """Scores ``[len(algebra)]``, with a mean of 1 in each group.

        Raises:
            ModelError: a weight is NaN.
        """
        scores = shares_of_magnitude(evidence)
        scales = {c: scale_behind(c) for c in evidence.consumers}
        for group in evidence.graph.groups:
            if not group.prunable:
                continue
            into = list(_into(evidence, group, scales))
            out = list(_out(evidence, group, scales))
            if into and out:
                bound = np.sum(into, axis=0) * np.sum(out, axis=0)
                scores[group.units] = bound / max(float(bound.mean()), _TINY)
        return scores


def scale_behind(consumer: Consumer) -> Scores:
    """``[made]``: what multiplies each output of a layer until the next layer mixes them."""
    groups, _, made = consumer.matrices.shape
    scale = np.ones(groups * made)
    value = consumer.layer.output
    while (node := _only_reader(value)) is not None:
        following = linear_of(node)
        if following is not None:
            if following.groups != len(scale) or _length(following.constant, following.made) != len(scale):
                break
            kernel = np.abs(_array(following.constant))
            scale = scale * kernel.reshape(len(scale), -1).sum(axis=1)
        elif node.op_type == "BatchNormalization" and _length(node.inputs[1], 0) == len(scale):
            gamma, variance = _array(node.inputs[1]), _array(node.inputs[4])
            epsilon = node.attributes.get_float("epsilon", 1e-5)
            scale = scale * np.abs(gamma) / np.sqrt(variance.clip(min=0.0) + epsilon)
        value = node.outputs[0]
    return np.asarray(scale)


def _into(evidence: Evidence, group: Group, scales: dict[Consumer, Scores]) -> Iterator[Scores]:
    algebra = evidence.graph.analysis.algebra
    number = np.full(len(algebra), -1, np.int64)
    number[group.units] = np.arange(group.size)
    for consumer in evidence.consumers:
        axis = consumer.use.axes[consumer.layer.made]
        if axis.is_plain or consumer.layer.groups == axis.size > 1:
            continue  # a depthwise convolution makes nothing new
        owner = number[algebra.live(axis)]
        position, column = np.nonzero(owner >= 0)
        if len(position):
            local = np.abs(consumer.matrices).sum(axis=1).ravel() * scales[consumer]
            made = np.zeros(group.size)
            np.add.at(made, owner[position, column], local[position])
            yield made


def _out(evidence: Evidence, group: Group, scales: dict[Consumer, Scores]) -> Iterator[Scores]:
    for consumer in evidence.consumers:
        places = places_of(evidence, consumer, group)
        if places is not None:
            behind = scales[consumer].reshape(consumer.layer.groups, 1, -1)
            features = (np.abs(consumer.matrices) * behind).sum(axis=(0, 2))
            yield features[places].sum(axis=1) / max(float(features.sum()), _TINY)


def _only_reader(value: ir.Value) -> ir.Node | None:
    """The node that alone reads a value, and nothing else that is computed."""
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    node, index = uses[0]
    others = [v for i, v in enumerate(node.inputs) if i != index and v is not None]
    return node if index == 0 and all(v.const_value is not None for v in others) else None


def _length(value: ir.Value | None, axis: int) -> int:
    tensor = value.const_value if value is not None else None
    return int(tensor.shape.numpy()[axis]) if tensor is not None and len(tensor.shape) > axis else -1


def _array(value: ir.Value | None) -> Scores:
    assert value is not None
    assert value.const_value is not None
    return np.asarray(value.const_value.numpy(), np.float64)
