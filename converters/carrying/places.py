"""Where an ONNX model reads its constants, and what a plan keeps of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.literals import literal
from graphprune.model import Model
from graphprune.plan import ParameterPlan, Plan
from graphprune.storage.constants import is_constant

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
#: Where torch's second exporter writes the modules that a node comes from.
_SCOPES = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True, eq=False)
class Place:
    """One constant at one input of one node.

    Attributes:
        node: the consumer.
        index: which of its inputs.
        masks: axis -> what the plan keeps; nothing along axis 0 where the node goes.
        groups: axis -> ids of the groups under it.
    """

    node: ir.Node
    index: int
    masks: Mapping[int, Mask]
    groups: Mapping[int, tuple[str, ...]]

    @property
    def value(self) -> ir.Value:
        """The constant."""
        value = self.node.inputs[self.index]
        assert value is not None
        return value

    @property
    def name(self) -> str:
        """The constant's name."""
        return self.value.name or ""

    @property
    def key(self) -> str:
        """``OUTPUT_NAME:INPUT_INDEX``, as in the plan file."""
        return f"{self.node.outputs[0].name}:{self.index}"

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Of the constant as it is in the original."""
        assert self.value.const_value is not None
        return tuple(int(n) for n in self.value.const_value.shape.numpy())

    @property
    def array(self) -> Array:
        """The constant as it is in the original."""
        assert self.value.const_value is not None
        return self.value.const_value.numpy()

    @property
    def is_gone(self) -> bool:
        """Does nothing of it stay?"""
        return any(not mask.any() for mask in self.masks.values())

    def keep(self, axis: int) -> Mask:
        """Kept positions of an axis."""
        mask = self.masks.get(axis)
        return np.ones(self.shape[axis], bool) if mask is None else mask

    def kept(self) -> Mask:
        """Kept elements."""
        mask = np.ones(self.shape, bool)
        for axis in self.masks:
            mask &= self.keep(axis).reshape([-1 if d == axis else 1 for d in range(len(self.shape))])
        return mask

    def cut(self, array: Array) -> Array:
        """What the plan keeps of an array of the constant's shape."""
        for axis in self.masks:
            array = np.compress(self.keep(axis), array, axis=axis)
        return array

    @cached_property
    def hints(self) -> tuple[str, ...]:
        """Texts that may name the module behind it."""
        found = []
        scopes = self.node.metadata_props.get(_SCOPES)
        if scopes:
            parts = literal(scopes)  # in another version's format the other texts remain
            found.append(f"/{parts[-2]}" if isinstance(parts, list) and len(parts) > 1 else "")
        found += [self.node.name or "", self.node.outputs[0].name or ""]
        if len(self.value.uses()) == 1:  # the name of a merged constant is that of its first user
            found.append(self.name)
        return tuple(text for text in found if text)


def places_of(model: Model, plan: Plan) -> list[Place]:
    """All constants with more than one number, and those of the plan, in the graph's order."""
    entries: dict[str, list[ParameterPlan]] = {}
    for entry in plan.parameters:
        entries.setdefault(entry.name, []).append(entry)
    return list(_places(model, entries))


def _places(model: Model, entries: Mapping[str, list[ParameterPlan]]) -> Iterator[Place]:
    for node in model.ir.graph.all_nodes():
        for index, value in enumerate(node.inputs):
            if value is None or value.const_value is None or not is_constant(value):
                continue
            key = f"{node.outputs[0].name}:{index}"
            mine = [e for e in entries.get(value.name or "", ()) if e.uses is None or key in e.uses]
            if not mine and (value.const_value.size < 2 or not value.const_value.dtype.is_floating_point()):
                continue
            masks = {}
            for entry in mine:
                masks[entry.axis] = np.zeros(entry.size, bool)
                masks[entry.axis][entry.keep] = True
            yield Place(node, index, masks, {e.axis: tuple(e.groups) for e in mine})
