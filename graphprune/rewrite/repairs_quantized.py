"""Repairs of operators on quantized numbers.  Scales and zero points are parameters, and cut as such."""

from __future__ import annotations

from graphprune.rewrite.context import RepairContext
from graphprune.rewrite.registry import repair
from graphprune.rewrite.repairs import groups_of_convolution


@repair("ConvInteger", "QLinearConv")
def groups_of_quantized_convolution(ctx: RepairContext) -> None:
    """``group`` counts the groups that stay, as in Conv."""
    groups_of_convolution(ctx)
