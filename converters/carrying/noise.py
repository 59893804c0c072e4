"""Random numbers in place of the weights, the same on both sides.

A layer scale of 1e-6 or a last layer of zeros hides what stands behind it from any comparison of outputs.
With random weights of ordinary size nothing is hidden.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from graphprune.converters.carrying.hints import best, is_same_name, module_of
from graphprune.converters.carrying.layouts import moved, orders
from graphprune.converters.carrying.links import Link
from graphprune.converters.carrying.places import Place, places_of
from graphprune.converters.carrying.source_cut import Array

from graphprune.model import Model
from graphprune.plan import Plan
from graphprune.storage.constants import is_constant

Doubles = npt.NDArray[np.float64]
#: Random weights that move no output by more than that, of its scale, prove nothing.
MOVED = 1e-2
#: So many times the difference of the uncut two may be rounding, up to what a wrong network makes.
MAGNIFIED, MOST = 10, 1e-3
#: Matrices larger than that are told by a part of their numbers.
_HASHED = 1 << 16


def drawn(array: Array, seed: int) -> Doubles:
    """Random numbers for an array; arrays that are equal get equal ones.

    Whose use a merged constant is may have been told by the order alone, which does no harm among equals.
    Vectors stay near 1, since they may be scales, variances or divisors; matrices keep the scale of their
    input.
    """
    flat = np.asarray(array).reshape(-1)
    told = np.ascontiguousarray(flat[:: max(flat.size // _HASHED, 1)], np.float32)
    rng = np.random.default_rng([seed, zlib.crc32(told.tobytes()), *array.shape])
    noise = rng.standard_normal(array.shape)
    if sum(n > 1 for n in array.shape) < 2:
        return np.asarray(1 + 0.1 * noise)
    return np.asarray(noise / np.sqrt(prod(array.shape[1:])))


def linked(links: Mapping[Place, Link]) -> set[str]:
    """Arrays that constants are made of."""
    return {name for link in links.values() for name in link.sources}


def draws(
    model: Model,
    plan: Plan,
    links: Mapping[Place, Link],
    arrays: Mapping[str, Array],
    planned: Collection[str] = (),
) -> Iterator[tuple[Mapping[Place, Link], set[str], int]]:
    """What the constants are made of, arrays to be drawn, and a seed; the best comes first.

    Weights of which an exporter made constants in an unknown way can't be drawn.  Where others than those
    of the plan may be like that, only those of the plan are drawn.

    Args:
        model: the original.
        plan: of the cut.
        links: what its constants are made of.
        arrays: that may be drawn.
        planned: those that the plan cuts.
    """
    for way, seed in product([*_with_uniform(places_of(model, plan), model, links, arrays), links], (0, 1)):
        yield way, linked(way) & set(arrays), seed
    if planned:
        yield links, linked(links) & set(arrays) & set(planned), 0


def _with_uniform(
    places: Sequence[Place], model: Model, links: Mapping[Place, Link], arrays: Mapping[str, Array]
) -> list[dict[Place, Link]]:
    """The links, and guesses for constants of one number repeated: zero weights, single numbers.

    Nothing in them tells their axes apart, so there are two ways to guess all of them.  A comparison of
    both sides has to tell which is right.

    Args:
        places: where the model reads constants.
        model: the original.
        links: what is known of them.
        arrays: that may be behind the others.
    """
    known = linked(links)
    uniform = {n: a for n, a in arrays.items() if n not in known and is_uniform(a)}
    taken = {(id(place.node), place.index) for place in links}
    asked = [place for place in places if place.array.size > 1] + list(_single(model))
    ways: list[dict[Place, Link]] = [dict(links), dict(links)]
    for place in asked:
        if (id(place.node), place.index) in taken or not is_uniform(place.array):
            continue
        named = _named(place, uniform)
        if len(named) == 1:
            _guess(ways, place, named[0], arrays[named[0]].shape)
    for place, link in links.items():
        if link.norm is None and link.lengths is None and len(link.sources) == 1:
            name = link.sources[0]
            if name in arrays and _is_symmetric(place.array) and _holds(arrays[name], place.array):
                _guess(ways, place, name, arrays[name].shape)
    return ways if ways[0] != dict(links) else []


def _guess(ways: Sequence[dict[Place, Link]], place: Place, name: str, shape: tuple[int, ...]) -> None:
    """The array as it is in one way, and turned round in the other."""
    found = [o for o in orders(shape, place.shape) if _is_reshaped(shape, o, place.shape)]
    for way, at in zip(ways, (0, -1), strict=True) if found else ():
        way[place] = Link(place.shape, (moved(name, shape, found[at], place.shape),))


def _holds(array: Array, constant: Array) -> bool:
    """The same numbers, and no function of them?"""
    one, other = np.sort(array, axis=None), np.sort(constant, axis=None)
    return bool(np.array_equal(one.astype(other.dtype), other))


def _is_symmetric(array: Array) -> bool:
    """Is it the same turned round?"""
    long = [n for n in array.shape if n > 1]
    if len(long) < 2:
        return False
    return is_uniform(array) or (len(long) == 2 == array.ndim and np.array_equal(array, array.T))


def _named(place: Place, arrays: Mapping[str, Array]) -> list[str]:
    """The arrays of this one number that names speak for."""
    first = place.array.reshape(-1)[0]
    fitting = [n for n, a in arrays.items() if a.size == place.array.size and a.reshape(-1)[0] == first]
    if place.array.size > 1:  # a merged constant has the name of its first user
        told = best(place.hints, list(dict.fromkeys(map(module_of, fitting))), whole=True)
        named = [n for n in fitting if module_of(n) in told]
        if len(named) == 1:
            return named
    return [n for n in fitting if is_same_name(place.name, n)]


def is_uniform(array: Array) -> bool:
    """One number repeated?"""
    flat = array.reshape(-1)
    return bool(flat.size and (flat == flat[:1]).all())


def _single(model: Model) -> Iterator[Place]:
    """Where the model reads single numbers that have a name of the source's."""
    for node in model.ir.graph.all_nodes():
        for index, value in enumerate(node.inputs):
            tensor = None if value is None or not is_constant(value) else value.const_value
            if tensor is not None and tensor.size == 1 and tensor.dtype.is_floating_point():
                yield Place(node, index, {}, {})


def _is_reshaped(shape: tuple[int, ...], order: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Is the array in this order the constant but for axes of length 1?"""
    return [shape[d] for d in order if shape[d] > 1] == [n for n in target if n > 1]


def constants(
    links: Mapping[Place, Link], names: Collection[str], arrays: Mapping[str, Array]
) -> dict[Place, Array]:
    """What the original model reads if some arrays hold other numbers.

    Args:
        links: what its constants are made of.
        names: of these arrays.
        arrays: of the original sizes, with these numbers.
    """
    return {
        place: link.forward(arrays).astype(place.array.dtype)
        for place, link in links.items()
        if not set(names).isdisjoint(link.sources)
    }


def reading(model: Model, given: Mapping[Place, Array], *, is_cut: bool) -> Model | None:
    """A copy of a model that reads other numbers; None if it has no such constant at one of the places.

    Args:
        model: the original, or the plain cut of it.
        given: of the original's sizes.
        is_cut: is it the cut?
    """
    copy = model.clone()
    nodes = {node.outputs[0].name: node for node in copy.ir.graph.all_nodes()}
    for number, (place, numbers) in enumerate(given.items()):
        if is_cut and place.is_gone:
            continue
        node = nodes.get(place.node.outputs[0].name)
        value = node.inputs[place.index] if node is not None and place.index < len(node.inputs) else None
        new = np.ascontiguousarray(place.cut(numbers) if is_cut else numbers)
        if node is None or value is None or value.const_value is None or not is_constant(value):
            return None
        if tuple(value.const_value.shape.numpy()) != new.shape:
            return None
        # Other uses of a merged constant are other arrays.
        node.replace_input_with(place.index, _register(copy, f"{value.name}/random/{number}", new))
    return copy


def _register(model: Model, name: str, numbers: Array) -> ir.Value:
    tensor: Any = ir.tensor(numbers, name=name)
    value = ir.Value(
        name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(numbers.shape), const_value=tensor
    )
    model.ir.graph.register_initializer(value)
    return value


def lengths(links: Mapping[Place, Link], arrays: Mapping[str, Array]) -> dict[str, Array]:
    """What the lengths of weight norms become in the plain cut, where their directions get shorter."""
    found: dict[str, Array] = {}
    for place, link in links.items():
        if link.lengths is None or place.is_gone or all(axis == link.axis for axis in place.masks):
            continue
        part = place.cut(link.forward(arrays))
        others = tuple(d for d in range(part.ndim) if d != link.axis)
        gain = arrays[link.lengths.gain]
        axis = next(d for d, n in enumerate(gain.shape) if n > 1)
        old = np.compress(place.keep(link.axis), gain, axis=axis)
        new = np.sqrt((part * part).sum(axis=others)).reshape(old.shape)
        found[link.lengths.gain] = np.copysign(new, old).astype(gain.dtype)
    return found
