"""What was done to a live module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Mended:
    """An attribute that followed the cut.

    Attributes:
        name: as code would write it: ``layers.0.attention.num_heads``.
        before: its value.
        after: its new value.
    """

    name: str
    before: int
    after: int


@dataclass(frozen=True)
class ModuleReport:
    """What :func:`graphprune.carry` did to a module.

    Attributes:
        parameters: numbers before and after.
        how: name of a tensor that was cut -> how it was found in the ONNX model.
        mended: attributes that followed.
        rescaled: layers that make queries, scaled so that the scores keep their scale.
        filled: tensors that got zeros where the plan leaves heads of two sizes and the module has one.
        error: largest difference of the carried module from the pruned model on random inputs, of the
            outputs' scale.
        tolerance: up to which it is rounding.
        change: how far the pruned model itself is from the original on such inputs, of the same scale; None
            where the two have other inputs or outputs.
        notes: what a user should know.
    """

    parameters: tuple[int, int]
    how: Mapping[str, str]
    mended: tuple[Mended, ...]
    rescaled: tuple[str, ...]
    filled: tuple[str, ...]
    error: float
    tolerance: float
    change: float | None
    notes: tuple[str, ...] = ()
