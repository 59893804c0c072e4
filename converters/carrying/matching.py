"""Which arrays of the source the constants of an ONNX file are, and what a plan means for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from graphprune.converters.carrying.explaining import NOWHERE, Explanation, explain
from graphprune.converters.carrying.hints import is_same_name, module_of
from graphprune.converters.carrying.places import Place, places_of
from graphprune.converters.carrying.source_cut import SourceCut
from graphprune.converters.carrying.updates import updated
from graphprune.converters.carrying.value_proof import failures
from graphprune.converters.carrying.votes import Kept, count_votes

from graphprune.model import Model
from graphprune.plan import Plan

Array = npt.NDArray[Any]
#: Integers from this size on count positions; smaller ones are quantized weights.
_POSITION_BYTES = 4


@dataclass(frozen=True)
class Unmatched:
    """A constant that the plan cuts and that could not be carried.

    Attributes:
        constant: its name in the ONNX file.
        use: ``OUTPUT_NAME:INPUT_INDEX`` of the node that reads it.
        reason: why not, in one clause.
        is_computed: does no array have its name or its numbers?  A network may compute it from other arrays
            when it is built or traced, and only a run can tell whether it does.
    """

    constant: str
    use: str
    reason: str
    is_computed: bool = False


@dataclass(frozen=True)
class Matching:
    """What :func:`match` found.

    Attributes:
        cut: the plan in terms of the source's arrays.
        unmatched: constants of the plan, or with new weights, that it does not cover.
        error: largest relative difference between the pruned model's constants and those that the carried
            arrays make.
    """

    cut: SourceCut
    unmatched: tuple[Unmatched, ...]
    error: float


def match(model: Model, plan: Plan, arrays: Mapping[str, Array], pruned: Model | None = None) -> Matching:
    """Finds the source's arrays behind the constants that a plan cuts.

    Args:
        model: the ONNX model that the plan was made for.
        plan: what goes.
        arrays: the source's parameters and buffers by name, in the source's order; arrays that share their
            memory are tied.
        pruned: the pruned model, where its weights were updated.
    """
    single, aliases = _untied(arrays)
    places = places_of(model, plan)
    found = explain(places, single)
    shapes = {name: array.shape for name, array in single.items()}
    kept = count_votes(found.links, shapes, {group.id: group for group in plan.groups})
    _follow(found, kept, single)
    unmatched = [
        Unmatched(p.name, p.key, *_why_not(p, found, single))
        for p in places
        if p.masks and p not in found.links and not _is_exporters(p)
    ]
    refused = [
        Unmatched(p.name, p.key, kept.refused[name])
        for p, link in found.links.items()
        for name in dict.fromkeys(link.sources)
        if p.masks and name in kept.refused
    ]
    new = updated(places, found, kept, single, pruned)
    unmatched += [*refused, *(Unmatched(*each) for each in new.refused)]
    error, failed = failures(places, found, kept, single, new, pruned)
    listed = {each.use for each in unmatched}
    unmatched += [Unmatched(*each) for each in failed if each[1] not in listed]
    cut = SourceCut(
        kept=kept.axes,
        sizes=kept.sizes,
        values=new.values,
        added=new.added,
        gone=frozenset(kept.gone),
        how=_how(found, kept, single),
    )
    return Matching(_with_aliases(cut, aliases), tuple(unmatched), error)


def _untied(arrays: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, str]]:
    """Every piece of memory once, and further names of it."""
    single: dict[str, Array] = {}
    aliases: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for name, array in arrays.items():
        key = (array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.str)
        if array.size and key in seen:
            aliases[name] = seen[key]
            continue
        seen[key] = name
        single[name] = array
    return single, aliases


def _follow(found: Explanation, kept: Kept, arrays: Mapping[str, Array]) -> None:
    """Arrays that no constant shows, and that go with others: vectors of a norm, copies of a weight."""
    for norm in found.norms:
        told = [name for name in norm.names if name in kept.axes or name in kept.gone]
        for name in norm.names:
            if told and name not in kept.axes and name not in kept.gone and not _is_read(found, name):
                _copy(kept, told[0], name)
        if all(name in kept.gone for name in norm.names):
            # A counter of batches beside them.
            kept.gone |= {n for n, a in arrays.items() if module_of(n) == norm.module and a.size == 1}
    for names in found.equal:
        read = [name for name in names if _is_read(found, name)]
        flat = arrays[names[0]].reshape(-1)
        if (flat == flat[0]).all() or not read:
            continue
        for name in names:
            same = all(_same_cut(kept, read[0], other) for other in read)
            if name not in read and same and arrays[name].shape == arrays[read[0]].shape:
                _copy(kept, read[0], name)


def _why_not(place: Place, found: Explanation, arrays: Mapping[str, Array]) -> tuple[str, bool]:
    """Why nothing was found for a place, and whether it may be computed; an array of its name says most."""
    for name, array in arrays.items():
        if is_same_name(place.name, name):
            if sorted(array.shape) != sorted(place.shape):
                return f"it is {list(place.shape)} in the model, and '{name}' is {list(array.shape)}", False
            return f"'{name}' holds other numbers", False
    reason = found.reasons.get(place.name)
    return reason or NOWHERE, reason in (None, NOWHERE)


def _is_exporters(place: Place) -> bool:
    """Numbers that an exporter wrote, and no weights: positions, sizes, one number repeated?"""
    array = place.array
    counts = array.dtype.kind in "iub" and array.dtype.itemsize >= _POSITION_BYTES
    return bool(counts or _is_constant(array))


def _is_read(found: Explanation, name: str) -> bool:
    return any(name in link.sources for link in found.links.values())


def _copy(kept: Kept, source: str, target: str) -> None:
    if source in kept.gone:
        kept.gone.add(target)
    if source in kept.axes:
        kept.axes[target] = dict(kept.axes[source])
    if source in kept.sizes:
        kept.sizes[target] = dict(kept.sizes[source])


def _same_cut(kept: Kept, one: str, other: str, *, counts_only: bool = False) -> bool:
    if (one in kept.gone) != (other in kept.gone):
        return False
    here, there = kept.axes.get(one, {}), kept.axes.get(other, {})
    if set(here) != set(there):
        return False
    if counts_only:
        return all(len(here[axis]) == len(there[axis]) for axis in here)
    return all(np.array_equal(here[axis], there[axis]) for axis in here)


def _how(found: Explanation, kept: Kept, arrays: Mapping[str, Array]) -> dict[str, str]:
    """How each array was found; ``order`` only where the order made a difference."""
    how: dict[str, str] = {}
    for link in found.links.values():
        for name in link.sources:
            if how.get(name) != "order":
                how[name] = link.how
    matters = {
        name
        for names in found.doubtful
        for name in names
        if not all(_same_cut(kept, names[0], n, counts_only=_is_constant(arrays[n])) for n in names)
    }
    norms = {name: norm.names for norm in found.norms for name in norm.names}
    matters |= {other for name in matters for other in norms.get(name, ())}
    for name, said in how.items():
        if name in matters:
            how[name] = "order"
        elif said == "order":
            how[name] = "batch norm" if name in norms else "value"
    return how


def _is_constant(array: Array) -> bool:
    flat = array.reshape(-1)
    return bool((flat == flat[:1]).all())


def _with_aliases(cut: SourceCut, aliases: Mapping[str, str]) -> SourceCut:
    def also(table: Mapping[str, Any]) -> dict[str, Any]:
        return {**table, **{name: table[first] for name, first in aliases.items() if first in table}}

    gone = cut.gone | {name for name, first in aliases.items() if first in cut.gone}
    return replace(
        cut,
        kept=also(cut.kept),
        sizes=also(cut.sizes),
        values=also(cut.values),
        gone=gone,
        how=also(cut.how),
    )
