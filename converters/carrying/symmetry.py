"""Arrays that hold a constant's numbers in several orders of their axes, as the identity does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from graphprune.converters.carrying.explaining import Explanation
from graphprune.converters.carrying.hints import is_same_name, leaf_of
from graphprune.converters.carrying.layouts import Index, Part
from graphprune.converters.carrying.links import Link
from graphprune.converters.carrying.places import Place
from graphprune.converters.carrying.updates import new_constants

from graphprune.model import Model

Array = npt.NDArray[Any]
REASON = "'{}' holds its numbers in several orders of its axes, and the plan leaves different things of each"


def settle_orders(
    places: Sequence[Place], found: Explanation, arrays: Mapping[str, Array], pruned: Model | None
) -> list[tuple[str, str, str]]:
    """Chooses an order of the axes where several fit: the one of the layers that are like it.

    Returns:
        (constant, use, reason) where another order would leave other numbers and no name tells which it is.
    """
    open_places = [p for p in places if p in found.links and any(x.others for x in found.links[p].copies)]
    if not open_places:
        return []
    now = {} if pruned is None else new_constants(places, pruned)
    like: dict[tuple[Any, ...], Counter[Any]] | None = None
    doubtful = []
    for place in open_places:
        link = found.links[place]
        told, parts = True, []
        for part in link.copies:
            maps = [part.index, *part.others]
            if part.others and _matters(place, link, maps, arrays[part.source].size, now.get(place)):
                if _is_named(place, part, found):
                    part = replace(part, others=())
                else:
                    told = False
                    like = _usual(found, arrays) if like is None else like
                    usual = like.get(_kind(place, part.source), Counter()).most_common(1)
                    shape = arrays[part.source].shape
                    fitting = [each for each in maps if usual and _steps(each(), shape) == usual[0][0]]
                    part = replace(part, index=(fitting or maps)[0], others=())
            parts.append(part)
        found.links[place] = replace(link, copies=tuple(parts))
        if not told:
            doubtful.append((place.name, place.key, REASON.format(link.copies[0].source)))
    return doubtful


def _matters(
    place: Place, link: Link, maps: Sequence[Callable[[], Index]], size: int, now: Array | None
) -> bool:
    """Would these maps leave different elements, or different numbers of them?"""
    numbers = np.zeros(place.shape)
    expected = place.cut(place.array)
    is_new = now is not None and now.shape == expected.shape and not np.array_equal(now, expected)
    if is_new and link.norm is not None:
        return True
    if is_new and not place.is_gone:
        numbers[place.kept()] = np.asarray(now, np.float64).reshape(-1)
    numbers[~place.kept()] = np.nan
    made = []
    for each in maps:
        index = each()
        there = np.zeros(size)
        there[index[index >= 0]] = numbers[index >= 0]
        made.append(there)
    return not all(np.array_equal(made[0], other, equal_nan=True) for other in made[1:])


def _is_named(place: Place, part: Part, found: Explanation) -> bool:
    """Has the constant the array's name and layout, and has every constant that is named so?"""
    return is_same_name(place.name, part.source) and all(
        _is_straight(other.index())
        for p, link in found.links.items()
        for other in link.copies
        if not other.others or other is part
        if is_same_name(p.name, other.source)
    )


def _is_straight(index: Index) -> bool:
    return np.array_equal(index.reshape(-1), np.arange(index.size))


def _kind(place: Place, source: str) -> tuple[Any, ...]:
    """What layers have in common that store their weights alike."""
    node = place.node
    turned = node.attributes.get_int("transB", 0) if node.op_type == "Gemm" else 0
    return node.op_type, turned, place.index, len(place.shape), leaf_of(source)


def _usual(found: Explanation, arrays: Mapping[str, Array]) -> dict[tuple[Any, ...], Counter[Any]]:
    """How layers of each kind store their weights, where it is clear."""
    usual: dict[tuple[Any, ...], Counter[Any]] = {}
    for place, part in _clear(found):
        steps = _steps(part.index(), arrays[part.source].shape)
        usual.setdefault(_kind(place, part.source), Counter())[steps] += 1
    return usual


def _clear(found: Explanation) -> Iterator[tuple[Place, Part]]:
    for place, link in found.links.items():
        if len(link.copies) == 1 and not link.copies[0].others and len(place.shape) > 1:
            yield place, link.copies[0]


def _steps(index: Index, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Axes of the source along which one moves by moving along each axis of the constant."""
    found = []
    for axis in range(index.ndim):
        line = np.moveaxis(index, axis, 0).reshape(index.shape[axis], -1)[:, 0]
        at = np.unravel_index(np.maximum(line, 0), shape)
        found.append(tuple(d for d, positions in enumerate(at) if len(np.unique(positions)) > 1))
    return tuple(found)
