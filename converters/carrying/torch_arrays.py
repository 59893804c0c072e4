"""The arrays of a live torch module: parameters, buffers and plain tensors, by name, as numpy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import torch
from graphprune.converters.carrying.source_cut import Array

# torch has no conversion to or from numpy for these.
_BITS = {torch.bfloat16: (torch.int16, np.dtype(ml_dtypes.bfloat16))}


@dataclass(frozen=True)
class Slot:
    """Where a module holds a tensor.

    Attributes:
        name: dotted, as in ``named_parameters``.
        path: of the module that holds it; empty for the root.
        owner: that module.
        key: its name there.
        place: ``_parameters``, ``_buffers``, or ``__dict__`` for a plain tensor.
        tensor: what is held.
    """

    name: str
    path: str
    owner: torch.nn.Module
    key: str
    place: str
    tensor: torch.Tensor

    def put(self, tensor: torch.Tensor | None) -> None:
        """Holds another tensor from now on."""
        getattr(self.owner, self.place)[self.key] = tensor


def slots(module: torch.nn.Module) -> Iterator[Slot]:
    """Every place that holds a tensor; a tied one is named at each of its places."""
    for path, owner in module.named_modules():
        for place in ("_parameters", "_buffers", "__dict__"):
            for key, tensor in getattr(owner, place).items():
                if isinstance(tensor, torch.Tensor):
                    yield Slot(f"{path}.{key}" if path else key, path, owner, key, place, tensor)


def arrays_of(module: torch.nn.Module, *, untied: bool = False) -> dict[str, Array]:
    """All tensors as numpy arrays.

    Args:
        module: that holds them.
        untied: one that is held at several places is an array of its own for each, instead of one array
            under the first of its names.
    """
    found: dict[str, Array] = {}
    seen: set[int] = set()
    for slot in slots(module):
        again = id(slot.tensor) in seen
        seen.add(id(slot.tensor))
        if not slot.tensor.is_meta and (untied or not again):
            array = to_numpy(slot.tensor)
            found[slot.name] = array.copy() if again else array
    return found


def ties_of(module: torch.nn.Module) -> dict[str, tuple[str, ...]]:
    """Name of a tensor that is held at several places -> all of its names."""
    names: dict[int, list[str]] = {}
    for slot in slots(module):
        names.setdefault(id(slot.tensor), []).append(slot.name)
    return {name: tuple(held) for held in names.values() if len(held) > 1 for name in held}


def to_numpy(tensor: torch.Tensor) -> Array:
    """The same numbers, on the CPU; the memory is shared where that is possible."""
    plain: Any = tensor.detach().cpu()
    if plain.dtype in _BITS:
        bits, dtype = _BITS[plain.dtype]
        plain = plain.contiguous().view(bits)
        return np.asarray(plain.numpy()).view(dtype)
    return np.asarray(plain.numpy())


def to_tensor(array: Any, like: torch.Tensor) -> torch.Tensor:
    """A tensor of the type and device of ``like``."""
    array = np.ascontiguousarray(array)
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    return torch.from_numpy(array.copy()).to(device=like.device, dtype=like.dtype)
