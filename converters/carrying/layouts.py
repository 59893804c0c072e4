"""Maps from the elements of an ONNX constant to those of a source array."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Index = npt.NDArray[np.integer[Any]]
_SAMPLED = 64
_MAX_RANK = 6


@dataclass(frozen=True, eq=False)
class Part:
    """Elements of a constant that are elements of a source array.

    Attributes:
        source: name of the array.
        index: makes the flat position in the source for each element of the constant, in the constant's
            shape; -1 where the element comes from elsewhere.
        others: further such maps that give the same numbers, as for a symmetric matrix.
    """

    source: str
    index: Callable[[], Index]
    others: tuple[Callable[[], Index], ...] = ()


def is_one_number(array: Array) -> bool:
    """Is it one number, repeated?"""
    flat = array.reshape(-1)
    return bool((flat == flat[:1]).all())


def positions(size: int) -> Index:
    """Flat positions of an array of this size, in as few bytes as hold them."""
    return np.arange(size, dtype=np.int32 if size < 2**31 else np.int64)


def moved(
    source: str,
    shape: tuple[int, ...],
    order: tuple[int, ...],
    target: tuple[int, ...],
    others: Sequence[tuple[int, ...]] = (),
) -> Part:
    """A transposed and reshaped array as a whole; ``others`` are orders that fit as well."""

    def index(order: tuple[int, ...] = order) -> Index:
        return positions(int(np.prod(shape))).reshape(shape).transpose(order).reshape(target)

    return Part(source, index, tuple(partial(index, other) for other in others))


def aligned(
    found: Sequence[tuple[int, ...]], shape: tuple[int, ...], target: tuple[int, ...]
) -> list[tuple[int, ...]]:
    """Of these orders those that need no reshape, if there are any."""
    long = [n for n in target if n > 1]
    straight = [order for order in found if [shape[d] for d in order if shape[d] > 1] == long]
    return straight or list(found)


def picked(source: str, index: Index) -> Part:
    """Elements in any order."""
    return Part(source, lambda: index)


def broadcast(source: str, axis: int, shape: tuple[int, ...]) -> Part:
    """A vector along one axis of the constant."""

    def index() -> Index:
        along = positions(shape[axis]).reshape([-1 if d == axis else 1 for d in range(len(shape))])
        return np.broadcast_to(along, shape)

    return Part(source, index)


def orders(shape: tuple[int, ...], target: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Orders of the axes in which an array might be laid out as ``target``; the likeliest first."""
    if int(np.prod(shape)) != int(np.prod(target)) or len(shape) > _MAX_RANK:
        return
    free = [d for d, n in enumerate(shape) if n > 1]
    single = [d for d, n in enumerate(shape) if n == 1]
    tried = permutations(free)
    first, last = tuple(free), tuple(reversed(free))
    for order in dict.fromkeys([first, last, *tried]):
        whole = (*single, *order)
        if order == first:
            whole = tuple(range(len(shape)))
        yield whole


def transposed(shape: tuple[int, ...], order: tuple[int, ...], flat: Index) -> Index:
    """Flat positions in an array of what stands at flat positions of its transposed form."""
    moved_shape = tuple(shape[d] for d in order)
    found = np.unravel_index(flat, moved_shape)
    coordinates: list[Index] = [found[0]] * len(shape)
    for place, axis in enumerate(order):
        coordinates[axis] = found[place]
    return np.asarray(np.ravel_multi_index(tuple(coordinates), shape)) if shape else flat


def sampled(size: int) -> Index:
    """A few flat positions, from the first to the last."""
    return np.unique(np.linspace(0, max(size - 1, 0), _SAMPLED).astype(np.int64))


def find_orders(source: Array, constant: Array) -> Iterator[tuple[int, ...]]:
    """Orders of the axes of ``source`` in which it equals ``constant``, element by element."""
    sample = sampled(constant.size)
    wanted, flat = constant.reshape(-1)[sample], source.reshape(-1)
    for order in orders(source.shape, constant.shape):
        if not np.array_equal(flat[transposed(source.shape, order, sample)], wanted):
            continue
        if np.array_equal(source.transpose(order).reshape(constant.shape), constant):
            yield order
