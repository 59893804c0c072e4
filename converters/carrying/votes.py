"""From what is kept of constants to what is kept of source arrays.

Every place where a constant is read says of each element that it reads whether it stays.  What stays of an
array must be a choice of positions per axis: an array can't lose single elements.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from graphprune.converters.carrying.layouts import Index
from graphprune.converters.carrying.links import Link
from graphprune.converters.carrying.places import Place
from graphprune.converters.carrying.source_cut import SizeChange

from graphprune.plan import GroupPlan

_STAYS, _GOES, _GOES_WITH_LAYER = 1, 2, 4


@dataclass
class Kept:
    """What stays of the source.

    Attributes:
        axes: array -> axis -> kept positions.
        sizes: array -> axis -> groups under it.
        gone: arrays of which nothing stays.
        refused: array -> why its elements can't be cut like that.
    """

    axes: dict[str, dict[int, npt.NDArray[np.int64]]] = field(default_factory=dict)
    sizes: dict[str, dict[int, tuple[SizeChange, ...]]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)

    def cut(self, name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What stays of an array."""
        for axis, positions in self.axes.get(name, {}).items():
            array = np.take(array, positions, axis=axis)
        return array

    def spread(self, name: str, part: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """An array of the original shape with ``part`` at the positions that stay, zeros elsewhere."""
        axes = self.axes.get(name, {})
        whole = np.zeros(shape, part.dtype)
        whole[np.ix_(*(axes.get(d, np.arange(n)) for d, n in enumerate(shape)))] = part
        return whole


def count_votes(
    links: Mapping[Place, Link], shapes: Mapping[str, tuple[int, ...]], groups: Mapping[str, GroupPlan]
) -> Kept:
    """What all places together leave of each array.

    Args:
        links: what the constants are made of.
        shapes: of the source's arrays.
        groups: of the plan, by id.
    """
    touched = {name for place, link in links.items() if place.masks for name in link.sources}
    states = {name: np.zeros(shapes[name], np.uint8) for name in touched}
    kept = Kept()
    sizes: dict[str, dict[int, dict[str, SizeChange]]] = {}
    for place, link in links.items():
        for name, index, stays in _elements(place, link):
            if name not in touched:
                continue
            local = np.zeros(int(np.prod(shapes[name])), np.uint8)
            here = index >= 0
            local[index[here & ~stays]] = _GOES_WITH_LAYER if place.is_gone else _GOES
            local[index[here & stays]] = _STAYS  # an element that stands in several places stays with one
            states[name] |= local.reshape(shapes[name])
        for name, axis, ids in _groups(place, link, shapes):
            for each in (groups[i] for i in ids if i in groups):
                change = SizeChange(each.id, each.kind, each.size, len(each.keep))
                sizes.setdefault(name, {}).setdefault(axis, {})[each.id] = change
    for name, state in states.items():
        _settle(name, state, kept)
    for name, by_axis in sizes.items():
        found = {d: tuple(by_axis[d].values()) for d in sorted(by_axis) if d in kept.axes.get(name, {})}
        if found:
            kept.sizes[name] = found
    return kept


def _elements(place: Place, link: Link) -> Iterator[tuple[str, Index, npt.NDArray[np.bool_]]]:
    for part in link.copies:
        yield part.source, part.index(), place.kept()
    for name in link.vectors:
        yield name, np.arange(link.shape[link.axis]), place.keep(link.axis) & (not place.is_gone)


def _settle(name: str, state: npt.NDArray[np.uint8], kept: Kept) -> None:
    stays, goes = (state & _STAYS) > 0, (state & _GOES) > 0
    if (stays & goes).any():
        kept.refused[name] = f"its uses are cut differently, and '{name}' is one array"
        return
    goes |= ((state & _GOES_WITH_LAYER) > 0) & ~stays
    if not goes.any():
        return
    if not stays.any():
        kept.gone.add(name)
        return
    axes, grid = {}, np.ones(state.shape, bool)
    for axis in range(state.ndim):
        others = tuple(d for d in range(state.ndim) if d != axis)
        keep = stays.any(axis=others) | ~goes.any(axis=others)
        if not keep.all():
            axes[axis] = np.flatnonzero(keep)
        grid &= keep.reshape([-1 if d == axis else 1 for d in range(state.ndim)])
    if (goes & grid).any():
        kept.refused[name] = f"single elements of '{name}' would go, and no whole positions of an axis"
        return
    kept.axes[name] = axes


def _groups(
    place: Place, link: Link, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """Groups under the axes of each source array."""
    for axis, ids in place.groups.items():
        if place.is_gone or not ids:
            continue
        for part in link.copies:
            for found in moves_along(part.index(), axis, shapes[part.source]):
                yield part.source, found, ids
        if axis == link.axis:
            for name in link.vectors:
                yield name, 0, ids


def moves_along(index: Index, axis: int, shape: tuple[int, ...]) -> list[int]:
    """Axes of the source along which one moves by moving along an axis of the constant."""
    rows = np.moveaxis(index, axis, 0).reshape(index.shape[axis], -1)
    column = rows[:, int(np.argmax((rows >= 0).sum(axis=0)))]
    column = column[column >= 0]
    if len(column) < 2:
        return []
    found = np.unravel_index(column, shape)
    return [d for d, positions in enumerate(found) if len(np.unique(positions)) > 1]
