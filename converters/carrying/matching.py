"""Which arrays of the source the constants of an ONNX file are, and what a plan means for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from graphprune.converters.carrying.explaining import NOWHERE, Explanation, explain
from graphprune.converters.carrying.hints import beside, is_same_name, module_of
from graphprune.converters.carrying.layouts import is_one_number
from graphprune.converters.carrying.links import Link
from graphprune.converters.carrying.lost_places import lost_places
from graphprune.converters.carrying.places import Place, places_of
from graphprune.converters.carrying.source_cut import SourceCut
from graphprune.converters.carrying.symmetry import settle_orders
from graphprune.converters.carrying.unread import follow_outputs
from graphprune.converters.carrying.updates import NewValues, updated
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
        constant: its name in the ONNX file; of an array that no constant shows, the array's.
        use: ``OUTPUT_NAME:INPUT_INDEX`` of the node that reads it; empty for an array.
        reason: why not, in one clause.
        needs_run: can only a run of the network tell whether it matters?  So it is with positions and one
            number repeated, which exporters and networks write themselves, and with what no constant shows.
    """

    constant: str
    use: str
    reason: str
    needs_run: bool = False


@dataclass(frozen=True)
class Matching:
    """What :func:`match` found.

    Attributes:
        cut: the plan in terms of the source's arrays.
        unmatched: constants of the plan, or with new weights, that it does not cover.
        error: largest relative difference between the pruned model's constants and those that the carried
            arrays make.
        links: where the model reads constants -> what they are made of.
    """

    cut: SourceCut
    unmatched: tuple[Unmatched, ...]
    error: float
    links: Mapping[Place, Link]


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
    turned = settle_orders(places, found, single, pruned)
    shapes = {name: array.shape for name, array in single.items()}
    kept = count_votes(found.links, shapes, {group.id: group for group in plan.groups})
    _follow(found, kept, single)
    unread = follow_outputs(found, kept, single)
    spare = _spare(found, kept, single)
    unmatched = [
        Unmatched(p.name, p.key, _why_not(p, found, single))
        for p in places
        if p.masks and p not in found.links and not _is_exporters(p, spare)
    ]
    refused = [
        Unmatched(p.name, p.key, kept.refused[name])
        for p, link in found.links.items()
        for name in dict.fromkeys(link.sources)
        if p.masks and name in kept.refused
    ]
    new = updated(places, found, kept, single, pruned)
    lost = frozenset() if pruned is None else lost_places(places, model, plan, pruned)
    unmatched += [*refused, *(Unmatched(*each) for each in new.refused)]
    error, failed = failures(places, found, kept, single, new, pruned, lost)
    listed = {each.use for each in unmatched}
    unmatched += [Unmatched(*each) for each in failed if each[1] not in listed]
    made_up = {place.key for place in places if _is_made_up(place)}
    unmatched = [replace(each, needs_run=each.use in made_up) for each in unmatched]
    unmatched += [Unmatched(*each, needs_run=True) for each in turned]
    unmatched += [Unmatched(name, "", reason, needs_run=True) for name, reason in unread]
    cut = SourceCut(
        kept=kept.axes,
        sizes=kept.sizes,
        values=new.values,
        added=new.added,
        gone=frozenset(kept.gone),
        how=_how(found, kept, single, new),
    )
    return Matching(_with_aliases(cut, aliases), tuple(unmatched), error, found.links)


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


def _why_not(place: Place, found: Explanation, arrays: Mapping[str, Array]) -> str:
    """Why nothing was found for a place; an array of its name says most."""
    for name, array in arrays.items():
        if is_same_name(place.name, name):
            if sorted(array.shape) != sorted(place.shape):
                return f"it is {list(place.shape)} in the model, and '{name}' is {list(array.shape)}"
            return f"'{name}' holds other numbers"
    return found.reasons.get(place.name) or NOWHERE


def _spare(found: Explanation, kept: Kept, arrays: Mapping[str, Array]) -> set[tuple[int, ...]]:
    """Shapes of unread arrays that may stand for a constant of one repeated number, with other numbers."""
    read = {name for link in found.links.values() for name in link.sources}
    return {
        _long(array.shape)
        for name, array in arrays.items()
        if name not in read and name not in kept.axes and name not in kept.gone
        if array.dtype.kind not in "iub"
        # A vector of one number is no later state of another: exporters leave out zeros.
        if len(_long(array.shape)) != 1 or not is_one_number(array)
    }


def _long(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(n for n in shape if n > 1))


def _is_exporters(place: Place, spare: set[tuple[int, ...]]) -> bool:
    """Did an exporter write these numbers?  Positions and sizes; others if no array can have been theirs."""
    return _is_made_up(place) and (place.array.dtype.kind in "iub" or _long(place.shape) not in spare)


def _is_made_up(place: Place) -> bool:
    """Numbers that an exporter or a network may write itself: positions, sizes, one number repeated?"""
    array = place.array
    counts = array.dtype.kind in "iub" and array.dtype.itemsize >= _POSITION_BYTES
    return bool(counts or is_one_number(array))


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


def _how(found: Explanation, kept: Kept, arrays: Mapping[str, Array], new: NewValues) -> dict[str, str]:
    """How each array was found; ``order`` only where the order made a difference."""
    how: dict[str, str] = {}
    for link in found.links.values():
        for name in link.sources:
            if how.get(name) != "order":
                how[name] = link.how
    norms = {name: norm.names for norm in found.norms for name in norm.names}
    matters = {
        name
        for names in found.doubtful
        for name in names
        if not all(_same_cut(kept, names[0], n, counts_only=is_one_number(arrays[n])) for n in names)
        or not _same_numbers(found, new, names)
    }
    matters |= {other for name in matters for other in norms.get(name, ())}
    for name, said in how.items():
        if name in matters:
            how[name] = "order"
        elif said == "order":
            how[name] = "batch norm" if name in norms else "value"
    return how


def _same_numbers(found: Explanation, new: NewValues, names: Sequence[str]) -> bool:
    """Do arrays that were equal get the same new numbers: they, or the norms whose means they are?"""
    if not new.values and not new.added:
        return True
    norms = {norm.mean: norm.names for norm in found.norms}
    ways = [norms[name] if all(n in norms for n in names) else (name,) for name in names]
    biases = [(_new_bias(found, new, name),) for name in names]
    return all(
        len(way) == len(first) and all(_is_same(a, b) for a, b in zip(first, way, strict=True))
        for first, way in (
            *((_values(new, ways[0]), _values(new, way)) for way in ways),
            *((biases[0], bias) for bias in biases),
        )
    )


def _values(new: NewValues, names: Sequence[str]) -> tuple[Array | None, ...]:
    return tuple(new.values.get(name) for name in names)


def _new_bias(found: Explanation, new: NewValues, name: str) -> Array | None:
    """What a layer adds that added nothing before: its bias was told by the place of its weight."""
    bias = beside(name, "bias")
    if bias in new.added:
        return new.added[bias]
    return None if _is_read(found, bias) else new.values.get(bias)


def _is_same(one: Array | None, other: Array | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other)


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
