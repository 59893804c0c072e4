"""The proof of a carried module once more, with random numbers in place of its weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from graphprune.converters.carrying import noise as numbers
from graphprune.converters.carrying.links import Link
from graphprune.converters.carrying.places import Place
from graphprune.converters.carrying.source_cut import Array, SourceCut
from graphprune.converters.carrying.torch_arrays import slots, to_numpy, to_tensor
from graphprune.converters.carrying.torch_calls import Call
from graphprune.converters.carrying.torch_cut import cut_tensors
from graphprune.converters.carrying.torch_proof import Reference, distance, outputs_of
from graphprune.converters.carrying.torch_watch import Watch, watch

from graphprune.compare import run
from graphprune.errors import ValidationError
from graphprune.model import Model
from graphprune.plan import Plan

#: The cut of a bfloat16 model holds the scale of attention as such a number.
_BFLOAT16 = 2e-3


@dataclass(frozen=True)
class Noise:
    """Random weights with which the uncut module is what the uncut model is.

    Attributes:
        module: uncut, with these weights.
        arrays: of this module.
        gains: what lengths of weight norms become.
        expected: outputs of the plain cut of the model, with the same weights.
        tolerance: difference from them that is rounding.
    """

    module: torch.nn.Module
    arrays: Mapping[str, Array]
    gains: Mapping[str, Array]
    expected: Mapping[str, Any]
    tolerance: float

    def plain(self, cut: SourceCut) -> SourceCut:
        """The cut of these weights, whatever the real ones became after it."""
        return replace(cut, values=dict(self.gains), added={})

    def tensors(self, cut: SourceCut) -> dict[str, torch.Tensor]:
        """What the carried module holds under this cut, by name."""
        module = copy.deepcopy(self.module)
        cut_tensors(module, cut)
        return {slot.name: slot.tensor.detach() for slot in slots(module)}


@dataclass(frozen=True)
class Pair:
    """The uncut module and model, and the plain cut of the model.

    Attributes:
        module: in evaluation mode.
        source: the model.
        plain: its cut, without updated weights.
        calls: of the uncut ones and of the cut ones.
        before: a run of the module.
        wanted: which outputs are which.
    """

    module: torch.nn.Module
    source: Model
    plain: Model
    calls: tuple[Call, Call]
    before: Watch
    wanted: Reference


def find_noise(
    pair: Pair, plan: Plan, links: Mapping[Place, Link], arrays: Mapping[str, Array], cut: SourceCut
) -> Noise | None:
    """Random weights for both sides; None if no such weights make them the same function.

    Weights of which an exporter made constants in an unknown way can't be drawn.  Where others than those
    of the plan are like that, only those of the plan are drawn.

    Args:
        pair: what is compared.
        plan: of the cut.
        links: what the model's constants are made of.
        arrays: of the module, of their own types.
        cut: of these arrays.
    """
    buffers = {slot.name for slot in slots(pair.module) if slot.place != "_parameters"}
    # A larger buffer is a mask or a table, and has no random entries in a network that makes sense.
    free = {n for n, a in arrays.items() if n not in buffers or a.ndim < 2 or n in cut.kept}
    given = {n: arrays[n] for n in free if arrays[n].dtype.kind not in "iub"}
    for way, names, seed in numbers.draws(pair.source, plan, links, given, cut.kept):
        noise = _noise(pair, way, arrays, names, seed)
        if noise is not None:
            return noise
    return None


def _noise(
    pair: Pair, links: Mapping[Place, Link], arrays: Mapping[str, Array], names: set[str], seed: int
) -> Noise | None:
    module = copy.deepcopy(pair.module)
    held = {slot.name: slot.tensor for slot in slots(module)}
    with torch.no_grad():
        for name in names:
            # Of the type that the exporter saw.
            held[name].data.copy_(
                to_tensor(numbers.drawn(arrays[name], seed).astype(arrays[name].dtype), held[name])
            )
    noisy = {name: to_numpy(tensor) for name, tensor in held.items() if name in arrays}
    given = numbers.constants(links, names, noisy)
    uncut = numbers.reading(pair.source, given, is_cut=False)
    cut = numbers.reading(pair.plain, given, is_cut=True)
    if uncut is None or cut is None:
        return None
    whole, smaller = pair.calls
    seen = watch(module, whole.args, whole.kwargs)
    if seen.error is not None:
        return None
    try:
        made = run(uncut, whole.feeds)
        expected = run(cut, smaller.feeds)
    except ValidationError:  # a router left an expert without a token, which a traced graph can't run
        return None
    if not all(np.isfinite(np.asarray(array, np.float64)).any() for array in made.values()):
        return None
    error = distance(made, seen.result, pair.wanted)
    if error > pair.wanted.tolerance or distance(made, pair.before.result, pair.wanted) < numbers.MOVED:
        return None
    tolerance = max(pair.wanted.tolerance, min(numbers.MAGNIFIED * error, numbers.MOST))
    if any(array.dtype.name == "bfloat16" for array in arrays.values()):
        tolerance = max(tolerance, _BFLOAT16)
    return Noise(module, noisy, numbers.lengths(links, noisy), expected, tolerance)


def is_seen(module: torch.nn.Module, cut: SourceCut, call: Call, wanted: Reference) -> bool:
    """Do the outputs of a carried module change with the weights that were cut?"""
    real = watch(module, call.args, call.kwargs)
    tensors = {slot.name: slot.tensor.detach().clone() for slot in slots(module)}
    for name in set(cut.kept) & set(tensors):
        old = tensors[name]
        if old.is_floating_point():
            tensors[name] = to_tensor(numbers.drawn(to_numpy(old), 0), old)
    with holding(module, tensors):
        other = watch(module, call.args, call.kwargs)
    if real.error is not None or other.error is not None:
        return False
    held = outputs_of(real.result)
    return distance({n: held[p] for n, p in wanted.places.items()}, other.result, wanted) >= numbers.MOVED


@contextmanager
def holding(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """A module holds other numbers inside this block; zeros where there are none (a new bias)."""
    own = {id(slot.tensor): slot for slot in slots(module)}
    real = [(slot.tensor, slot.tensor.detach().clone()) for slot in own.values()]
    try:
        with torch.no_grad():
            for slot in own.values():
                new = tensors.get(slot.name)
                slot.tensor.data.copy_(torch.zeros_like(slot.tensor) if new is None else new)
        yield
    finally:
        with torch.no_grad():
            for tensor, own_numbers in real:
                tensor.data.copy_(own_numbers)
