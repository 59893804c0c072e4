"""Recovers which element of which source array each element of a constant is.

Exporters reorder gates, join projections and cut tables.  Weights are nearly all distinct, so sorting tells
where each number comes from; the few that repeat are placed by the pattern of the others, and the whole map
is checked number by number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from graphprune.converters.carrying.layouts import Index, Part, picked

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[Any]
_SAMPLED = 256
_SHARE = 0.1
_CHUNK = 1 << 20
_NOWHERE = -1
_REPEATED = -2


def likely_sources(constants: Sequence[Floats], arrays: Mapping[str, Floats]) -> list[list[list[str]]]:
    """For each constant, sets of arrays that may hold its numbers, the likeliest first.

    None where numbers of a constant stand in no array.  One pass over the arrays.
    """
    samples = [_sample(constant) for constant in constants]
    if not sum(len(sample) for sample in samples):
        return [[] for _ in constants]
    values, where = np.unique(np.concatenate(samples), return_inverse=True)
    owners = np.repeat(np.arange(len(samples)), [len(s) for s in samples])
    hits: list[dict[str, int]] = [{} for _ in constants]
    found = np.zeros(len(values), bool)
    for name, array in arrays.items():
        here = _standing(values, array.reshape(-1))
        found |= here
        counts = np.bincount(owners[here[where]], minlength=len(constants))
        for owner in np.flatnonzero(counts):
            hits[owner][name] = int(counts[owner])
    missed = set(owners[~found[where]].tolist())
    return [[] if i in missed else _sets(each) for i, each in enumerate(hits)]


def _sets(hits: Mapping[str, int]) -> list[list[str]]:
    """One array alone, those with a good share, all: large ones hold a few numbers of any other by chance."""
    names = sorted(hits, key=lambda name: -hits[name])
    total = max(hits.values(), default=0)
    some = [name for name in names if hits[name] >= _SHARE * total]
    found = [names[:1], some, names]
    return [each for i, each in enumerate(found) if each and each not in found[:i]]


def _standing(values: Floats, flat: Floats) -> npt.NDArray[np.bool_]:
    """Which of some sorted numbers stand in an array."""
    found = np.zeros(len(values), bool)
    for start in range(0, flat.size, _CHUNK):
        chunk = flat[start : start + _CHUNK]
        at = np.minimum(np.searchsorted(values, chunk), len(values) - 1)
        found[at[values[at] == chunk]] = True
    return found


def _sample(constant: Floats) -> Floats:
    flat = constant.reshape(-1)
    some: Floats = flat[np.unique(np.linspace(0, max(flat.size - 1, 0), _SAMPLED).astype(np.int64))]
    telling: Floats = some[(some != 0) & (some != 1)]  # these two stand everywhere
    return telling


def recover(constant: Floats, arrays: Mapping[str, Floats]) -> list[Part] | None:
    """Parts that make up a constant; None if some of its numbers can't be placed.

    Zeros may stand in a constant without coming from anywhere.

    Args:
        constant: any shape.
        arrays: where its numbers may come from.
    """
    if not arrays:
        return None
    names = list(arrays)
    owner, position = _look_up(constant, [arrays[name] for name in names])
    if ((owner == _NOWHERE) & (constant != 0)).any() or not (owner >= 0).any():
        return None
    # A zero is one of an array's numbers, or it stands in a stretch of zeros that comes from nowhere.
    for zeros in (_REPEATED, _NOWHERE):
        parts = _placed(constant, arrays, names, np.where(constant == 0, zeros, owner), position)
        if parts is not None:
            return parts
    return None


def _placed(
    constant: Floats, arrays: Mapping[str, Floats], names: Sequence[str], owner: Index, position: Index
) -> list[Part] | None:
    parts = []
    for block in _blocks(owner):
        owners = np.unique(owner[block][owner[block] >= 0])
        if not len(owners):
            if (constant[block] != 0).any():
                return None
            continue
        if len(owners) > 1:
            return None
        name = names[int(owners[0])]
        whole = np.where(owner[block] >= 0, position[block], _NOWHERE)
        index = _fit(constant[block], arrays[name], whole)
        if index is None:
            return None
        full = np.full(constant.shape, -1, np.int64)
        full[block] = index
        parts.append(picked(name, full))
    return parts


def _look_up(constant: Floats, arrays: Sequence[Floats]) -> tuple[Index, Index]:
    """Owner and flat position of each element; owner -1 where there is none, -2 where there are several."""
    values = np.concatenate([a.reshape(-1) for a in arrays])
    owners = np.repeat(np.arange(len(arrays)), [a.size for a in arrays])
    positions = np.concatenate([np.arange(a.size) for a in arrays])
    order = np.argsort(values, kind="stable")
    values, owners, positions = values[order], owners[order], positions[order]
    flat = constant.reshape(-1)
    left = np.searchsorted(values, flat, side="left")
    right = np.searchsorted(values, flat, side="right")
    at = np.minimum(left, len(values) - 1)
    owner = np.where(right - left == 1, owners[at], np.where(right == left, _NOWHERE, _REPEATED))
    return owner.reshape(constant.shape), positions[at].reshape(constant.shape)


def _blocks(owner: Index) -> Iterator[tuple[Any, ...]]:
    """Index tuples of blocks, each from one array: slices along an axis that have the same owners."""
    yield from _split(owner, tuple(np.arange(n) for n in owner.shape))


def _split(owner: Index, where: tuple[Index, ...]) -> Iterator[tuple[Any, ...]]:
    block = owner[np.ix_(*where)]
    kinds = np.unique(block[block != _REPEATED])
    if len(kinds) <= 1:
        yield np.ix_(*where)
        return
    for axis in range(block.ndim):
        rows = np.moveaxis(block, axis, 0).reshape(block.shape[axis], -1)
        sets = [frozenset(np.unique(row[row != _REPEATED]).tolist()) for row in rows]
        known = [s for s in sets if s]
        if len(set(known)) < 2:
            continue
        sets = _filled(sets)
        for each in dict.fromkeys(sets):
            chosen = np.array([i for i, s in enumerate(sets) if s == each])
            inner = list(where)
            inner[axis] = where[axis][chosen]
            yield from _split(owner, tuple(inner))
        return
    yield np.ix_(*where)  # mixed: refused by the caller


def _filled(sets: list[frozenset[int]]) -> list[frozenset[int]]:
    """Slices of which nothing is known belong to what stands before them."""
    last = next(s for s in sets if s)
    filled = []
    for each in sets:
        last = each or last
        filled.append(last)
    return filled


def _fit(block: Floats, source: Floats, position: Index) -> Index | None:
    """Flat positions in one source array, from those that are known (the others are -1), checked by value.

    What moves whole axes around makes a flat position a sum of one term per axis of the constant.
    """
    known = position >= 0
    if known.all():
        return position
    fitted = _sum_of_terms(np.where(known, position, np.nan))
    flat = source.reshape(-1)
    if fitted is not None and (fitted >= 0).all() and (fitted < flat.size).all():
        index = fitted.astype(np.int64)
        if np.array_equal(flat[index], block):
            return index
    return None


def _sum_of_terms(position: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    total = np.zeros(position.shape)
    with np.errstate(all="ignore"):
        for axis in range(position.ndim):
            rows = np.moveaxis(position, axis, 0)
            steps = (rows - rows[_reference(rows)]).reshape(len(rows), -1)
            known = ~np.isnan(steps).all(axis=1)
            term = np.full(len(rows), np.nan)
            term[known] = np.nanmedian(steps[known], axis=1)
            term = _continued(term)
            total += term.reshape([-1 if d == axis else 1 for d in range(position.ndim)])
        offsets = position - total
    if np.isnan(total).any() or np.isnan(offsets).all():
        return None
    return np.asarray(total + np.nanmedian(offsets))


def _continued(term: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Unknown terms, each one step further than its neighbour; the caller checks what comes of it."""
    steps = np.diff(term)
    if np.isnan(steps).all():
        return term
    step = np.nanmedian(steps)
    for i in range(1, len(term)):
        if np.isnan(term[i]):
            term[i] = term[i - 1] + step
    for i in range(len(term) - 2, -1, -1):
        if np.isnan(term[i]):
            term[i] = term[i + 1] - step
    return term


def _reference(rows: npt.NDArray[np.float64]) -> int:
    """The slice of which most is known."""
    return int(np.argmax((~np.isnan(rows.reshape(len(rows), -1))).sum(axis=1)))
