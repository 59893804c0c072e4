"""Which inputs of a model count samples along their first axis, and how many it takes at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from graphprune.model import Model


@dataclass(frozen=True)
class SampleAxes:
    """What the first axes of a model's inputs mean.

    The rule: a symbolic first axis counts samples, unless another input has that symbol further behind
    (``positions[time]`` beside ``x[batch, time]``). Where no first axis is left by that, fixed
    ones of the size that the first input has count samples. All other inputs are *shared*: scalars,
    tables, masks ``[1, 1, time, time]`` beside a symbolic batch; every batch gets them as they are.

    Attributes:
        inputs: that need data, by name; an input with a default value needs none.
        counted: names of the inputs with one row per sample.
        size: how many samples a batch must have; None if any number will do.
    """

    inputs: dict[str, ir.Value]
    counted: frozenset[str]
    size: int | None

    @classmethod
    def of(cls, model: Model) -> SampleAxes:
        """The axes of a model."""
        inputs = {v.name or "": v for v in model.ir.graph.inputs if not v.is_initializer()}
        firsts = {name: v.shape[0] for name, v in inputs.items() if v.shape is not None and len(v.shape)}
        behind = {str(d.value) for v in inputs.values() for d in _symbols(v, start=1) if d.value}
        counted = {
            name
            for name, first in firsts.items()
            if not isinstance(first, int) and (not first.value or str(first.value) not in behind)
        }
        # A shape that the file does not give says nothing against samples.
        counted |= {name for name, value in inputs.items() if value.shape is None}
        size = None
        fixed = {name: first for name, first in firsts.items() if isinstance(first, int)}
        if not counted and fixed:
            size = next(iter(fixed.values()))
            counted = {name for name, first in fixed.items() if first == size}
        return cls(inputs, frozenset(counted), size)


def batch_size(model: Model, wanted: int) -> int:
    """How many samples to run at once: what the model's first axes are fixed at, else ``wanted``."""
    axes = SampleAxes.of(model)
    if not axes.counted:
        return 1
    return wanted if axes.size is None else axes.size


def _symbols(value: ir.Value, start: int) -> Iterator[ir.SymbolicDim]:
    axes = [] if value.shape is None else list(value.shape)[start:]
    return (axis for axis in axes if isinstance(axis, ir.SymbolicDim))
