"""Weights that several layers share: one solution for all of them.

What a shared weight errs by is the sum over its layers, each relative to what its output becomes part of.
So their moments add up, and the same equations are solved as for one layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from graphprune.passes.compensators.pairs import pairs_of

from graphprune.axes_kept import Keeps
from graphprune.calibration.evidence import Consumer, Evidence
from graphprune.calibration.gathered import Gathered
from graphprune.calibration.linear import Linear
from graphprune.calibration.moments import Moments
from graphprune.model import Model

#: A layer of the pruned model, and that of the original.
Pair = tuple[Linear, Consumer]


def by_weight(evidence: Evidence, keeps: Keeps, pruned: Model) -> Iterator[list[Pair]]:
    """Layers that lost inputs, together with those that share their weight.

    Left out are weights that something else reads too, and layers that lost different inputs.
    """
    found: dict[object, list[Pair]] = {}
    for layer, consumer in pairs_of(evidence, keeps, pruned):
        key = (layer.constant, layer.expert if isinstance(layer, Gathered) else None)
        found.setdefault(key, []).append((layer, consumer))
    for pairs in found.values():
        layer, consumer = pairs[0]
        if len(_readers(layer.constant)) != len({pair[0].place for pair in pairs}):
            continue
        if len(pairs) > 1 and layer.constant.is_graph_output():
            continue
        if keeps.of(consumer.axis) is None or any(a.groups != b.layer.groups for a, b in pairs):
            continue
        if all(_form(keeps, *pair) == _form(keeps, *pairs[0]) for pair in pairs):
            yield pairs


def joint(found: Sequence[Moments], centred: Sequence[bool], *, shrink: bool) -> npt.NDArray[np.float64]:
    """Second moments ``[groups, d, d]`` of all layers of a weight.

    Args:
        found: moments of each layer's input.
        centred: does a bias of the layer take the means?
        shrink: as far as they are certain.
    """
    each = [
        m.shrunk(centred=about_mean) if shrink else m.covariance if about_mean else m.second
        for m, about_mean in zip(found, centred, strict=True)
    ]
    if len(each) == 1:
        return each[0]
    factors = np.array([1.0 / m.energy if m.energy > 0 else 0.0 for m in found])
    if not factors.any():  # nobody knows how much they matter
        factors[:] = 1.0
    total = sum(matrix * factor for matrix, factor in zip(each, factors / factors.sum(), strict=True))
    return np.asarray(total)


def _readers(value: ir.Value) -> set[tuple[ir.Node, int]]:
    return set(value.uses())


def _form(keeps: Keeps, layer: Linear, consumer: Consumer) -> tuple[object, ...]:
    """What two layers must have in common: how they read the weight, and what goes."""
    masks = [keeps.of(consumer.use.axes[axis]) for axis in (layer.contracted, layer.made)]
    return (
        layer.contracted, layer.made, layer.groups, *(None if m is None else m.tobytes() for m in masks)
    )  # fmt: skip
