"""By how many units each group's width may change, so that layers get widths that a device likes."""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd

import numpy as np

from graphprune.algebra import Axis
from graphprune.graph import DependencyGraph
from graphprune.groups import Group

#: Kinds whose size is a tensor width; a number of heads or of convolution groups is not.
WIDTHS = ("channels", "head_dim")
_MATMULS = ("MatMul", "Gemm", "FusedMatMul", "MatMulNBits", "QLinearMatMul", "MatMulInteger", "QGemm")
_CONVOLUTIONS = ("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "FusedConv", "DeformConv")


def group_steps(graph: DependencyGraph, multiples: Mapping[str, int]) -> dict[str, int]:
    """Steps of all groups of a model, by their ids.

    A group takes the largest multiple of the layers that it stands in. Where a layer's width is its units
    times something that stays (heads times their dims), fewer units make a step.

    Args:
        graph: of the model.
        multiples: preferred multiples by kind of layer: ``conv``, ``depthwise``, ``matmul``, ``attention``.
    """
    return {g.id: _step(graph, g, multiples) for g in graph.groups if g.kind in WIDTHS and g.prunable}


def _step(graph: DependencyGraph, group: Group, multiples: Mapping[str, int]) -> int:
    step = 1
    for member in group.members:
        use = graph.uses_by_key[member.use]
        node = use.node
        if node.op_type in _CONVOLUTIONS:
            is_depthwise = len(use.axes) > 1 and use.axes[1].size == 1
            wanted = multiples.get("depthwise" if is_depthwise else "conv", 1)
        elif node.op_type in _MATMULS:
            if group.kind == "head_dim":
                step = max(step, multiples.get("attention", 1))
            wanted = multiples.get("matmul", 1)
        else:
            continue
        step = max(step, wanted // gcd(wanted, _times(use.axes[member.axis], group)))
    # A group that has no two such widths would never shrink.
    while step > 1 and step > group.size // 2:
        step //= 2
    return step


def _times(axis: Axis, group: Group) -> int:
    """Positions of an axis that go with one unit."""
    if axis.is_plain:
        return 1
    return max(int(np.count_nonzero(axis.labels == group.units[0])), 1)
