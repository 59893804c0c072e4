"""A source cut done to the tensors of a live module."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from graphprune.converters.carrying.source_cut import SourceCut
from graphprune.converters.carrying.torch_arrays import Slot, slots, to_tensor

from graphprune.errors import ModelError, ValidationError


def cut_tensors(module: torch.nn.Module, cut: SourceCut) -> tuple[str, ...]:
    """Slices the tensors in place; types, devices, ``requires_grad`` and ties stay.

    Returns:
        names of tensors that were tied and are so no more, because the cut treats them differently.

    Raises:
        ValidationError: updated values have another shape than what is kept.
        ModelError: a bias would have to go where the module has no place for one.
    """
    places: dict[int, list[Slot]] = {}
    for slot in slots(module):
        places.setdefault(id(slot.tensor), []).append(slot)
    untied: list[str] = []
    for held in places.values():
        alike = _alike(held, cut)
        untied += [slot.name for same in alike[1:] for slot in same]
        for same in alike:
            new = _cut(same[0], cut)
            for slot in same if new is not None else ():
                slot.put(new)
    for name, bias in cut.added.items():
        _add_bias(module, name, bias)
    return tuple(untied)


def _alike(held: list[Slot], cut: SourceCut) -> list[list[Slot]]:
    """The places of a tensor, by what becomes of it there."""
    found: list[list[Slot]] = []
    for slot in held:
        same = next((s for s in found if _is_same(s[0].name, slot.name, cut)), None)
        if same is None:
            found.append([slot])
        else:
            same.append(slot)
    return found


def _is_same(a: str, b: str, cut: SourceCut) -> bool:
    here, there = cut.kept.get(a, {}), cut.kept.get(b, {})
    if here.keys() != there.keys() or any(not np.array_equal(here[axis], there[axis]) for axis in here):
        return False
    mine, others = cut.values.get(a), cut.values.get(b)
    return mine is others or (mine is not None and others is not None and np.array_equal(mine, others))


def _cut(slot: Slot, cut: SourceCut) -> torch.Tensor | None:
    """What a tensor becomes; None: it stays."""
    old, values = slot.tensor, cut.values.get(slot.name)
    if slot.name not in cut.kept and values is None:
        return None
    new = _take(old, cut.kept.get(slot.name, {}))
    if values is not None:
        if tuple(values.shape) != tuple(new.shape):
            what = f"the new values of '{slot.name}' have shape {list(values.shape)}"
            raise ValidationError(what, because=f"what is kept of it has {list(new.shape)}")
        new = to_tensor(values, like=old)
    if isinstance(old, torch.nn.Parameter):
        new = torch.nn.Parameter(new, requires_grad=old.requires_grad)
    return new


def _take(tensor: torch.Tensor, kept: Mapping[int, np.ndarray]) -> torch.Tensor:
    new = tensor.detach()
    for axis, positions in kept.items():
        new = new.index_select(axis, torch.from_numpy(np.array(positions, np.int64)).to(new.device))
    # Without a cut along any axis this would still be the memory of the original.
    return new.clone(memory_format=torch.contiguous_format)


def _add_bias(module: torch.nn.Module, name: str, bias: np.ndarray) -> None:
    path, _, key = name.rpartition(".")
    try:
        owner = module.get_submodule(path)
    except AttributeError as error:
        what = f"the updated weights need a bias '{name}'"
        raise ModelError(what, because=str(error)) from error
    if owner._parameters.get(key, 0) is not None:  # absent is no place; None is an empty one
        what = f"the updated weights need a bias '{name}'"
        because = f"a {type(owner).__name__} has no place for one"
        hint = "carry the plan without the updated weights, or another compensator"
        raise ModelError(what, where=path, because=because, hint=hint)
    weight = next(p for p in owner._parameters.values() if p is not None)
    value = to_tensor(bias, like=weight)
    owner._parameters[key] = torch.nn.Parameter(value, requires_grad=weight.requires_grad)
