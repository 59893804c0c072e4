"""Finds what every constant of an ONNX model is made of, from the source's arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from graphprune.converters.carrying.assigning import assign
from graphprune.converters.carrying.elements import likely_sources, recover
from graphprune.converters.carrying.fingerprints import Fingerprints, as_floats
from graphprune.converters.carrying.folding import choose_folds, find_folds, layers_of, links_of
from graphprune.converters.carrying.hints import best, is_same_name, module_of
from graphprune.converters.carrying.layouts import (
    Part,
    aligned,
    find_orders,
    is_one_number,
    moved,
    orders,
    picked,
    sampled,
    transposed,
)
from graphprune.converters.carrying.links import FUNCTIONS, SAME, Function, Link, multiple
from graphprune.converters.carrying.norms import (
    Norm,
    direction,
    find_norms,
    fitting_norms,
    misfit,
    rounding_of,
)
from graphprune.converters.carrying.places import Place
from graphprune.converters.carrying.weight_norms import find_weight_norms, orders_in

Array = npt.NDArray[Any]
#: So many numbers that agree in one factor do not do so by chance.
_ENOUGH = 8
#: Functions may differ in the last place.
_EXACT = 1e-6
#: Why a constant was not found of which the source shows no trace.
NOWHERE = "no array of the source holds its numbers"


@dataclass
class Explanation:
    """What the constants are made of.

    Attributes:
        links: place -> how its constant is made.
        doubtful: sets of equal arrays among which only their order decided.
        equal: sets of arrays that hold the same numbers.
        reasons: constant -> why nothing was found.
        norms: of the source.
    """

    links: dict[Place, Link] = field(default_factory=dict)
    doubtful: list[tuple[str, ...]] = field(default_factory=list)
    equal: list[tuple[str, ...]] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    norms: list[Norm] = field(default_factory=list)


def explain(places: Sequence[Place], arrays: Mapping[str, Array]) -> Explanation:
    """Explains every place whose numbers come from the source.

    Args:
        places: where the model reads constants.
        arrays: of the source, each once.
    """
    search = _Search(places, arrays)
    search.folded_layers()
    search.whole_arrays()
    search.bare_norms()
    search.functions()
    search.weight_norms()
    search.joined_parts()
    return search.found


class _Search:
    def __init__(self, places: Sequence[Place], arrays: Mapping[str, Array]) -> None:
        self._arrays = arrays
        self._order = {name: i for i, name in enumerate(arrays)}
        self._places = places
        self._by_value: dict[ir.Value, list[Place]] = {}
        for place in places:
            self._by_value.setdefault(place.value, []).append(place)
        self.found = Explanation(norms=find_norms(arrays))
        prints = Fingerprints(arrays)
        self._whole = {value: self._ways(value, prints.find(_array(value))) for value in self._by_value}

    def _ways(self, value: ir.Value, names: Iterable[str], function: Function = SAME) -> dict[str, Link]:
        """Arrays that hold a constant's numbers, and how they are laid out in it."""
        constant, found = _array(value), {}
        shape = constant.shape
        for name in names:
            array = self._arrays[name]
            floats = function.of(as_floats(array, constant.dtype))
            fitting = aligned(list(find_orders(floats, as_floats(constant))), array.shape, shape)
            if fitting:
                part = moved(name, array.shape, fitting[0], shape, fitting[1:])
                found[name] = Link(shape, (part,), function)
            elif function is SAME:
                parts = recover(as_floats(constant), {name: floats})
                if parts is not None:
                    found[name] = Link(shape, tuple(parts))
        if found and _is_shapeless(constant, [self._arrays[n].shape for n in found]):
            self.found.reasons[value.name or ""] = "its numbers are all equal: nothing tells its axes apart"
            return {}
        return found

    def _open(self) -> list[Place]:
        return [place for place in self._places if place not in self.found.links]

    def folded_layers(self) -> None:
        """Layers with a norm folded into them."""
        if not self.found.norms:
            return
        ways: dict[ir.Value, Any] = {}
        found = {}
        for layer in layers_of(self._places):
            if self._whole[layer.weight.value]:
                continue
            key = layer.weight.value
            if key not in ways:
                ways[key] = find_folds(layer, self._arrays, self.found.norms)
            if ways[key]:
                found[layer] = ways[key]
        chosen, doubtful = choose_folds(found, self._order)
        self.found.doubtful += doubtful
        for layer, (fold, how) in chosen.items():
            self.found.links.update(links_of(layer, fold, how))

    def whole_arrays(self) -> None:
        """Constants that hold one array."""
        self._take({place: self._whole[place.value] for place in self._open()})

    def _take(self, ways: Mapping[Place, Mapping[str, Link]]) -> None:
        result = assign({p: list(names) for p, names in ways.items() if names}, self._order)
        self.found.doubtful += result.doubtful
        self.found.equal += result.equal
        for place, (name, how) in result.chosen.items():
            self.found.links[place] = replace(ways[place][name], how=how)

    def bare_norms(self) -> None:
        """Norms that an exporter wrote as a product and a sum."""
        for place in self._open():
            long = [d for d, n in enumerate(place.shape) if n > 1]
            if len(long) != 1 or not self.found.norms:
                continue
            numbers, axis = np.asarray(place.array, np.float64).reshape(-1), long[0]
            for is_offset in (False, True):

                def judge(norm: Norm, is_offset: bool = is_offset, numbers: Any = numbers) -> float:
                    made = norm.offset(self._arrays) if is_offset else norm.factor(self._arrays)
                    return misfit(made, numbers)

                limit = rounding_of(place.array.dtype)
                fits = fitting_norms(self.found.norms, self._arrays, numbers.size, judge, limit)
                if not fits:
                    continue
                modules = best(place.hints, [norm.module for norm in fits])
                told = [norm for norm in fits if norm.module in modules]
                how = "batch norm" if len(told) == 1 else "order"
                if how == "order":
                    self.found.doubtful.append(tuple(norm.mean for norm in told))
                link = Link(place.shape, norm=told[0], axis=axis, is_offset=is_offset, how=how)
                self.found.links[place] = link
                break

    def functions(self) -> None:
        """Constants that an exporter computed from one array, element by element."""
        ways: dict[Place, dict[str, Link]] = {}
        for place in self._open():
            for function in FUNCTIONS:
                with np.errstate(all="ignore"):
                    found = self._computed(place, function)
                if found and is_one_number(place.array):  # only if names say that it is of that module
                    told = best(place.hints, [module_of(name) for name in found], whole=True)
                    found = {name: link for name, link in found.items() if module_of(name) in told}
                if found:
                    ways[place] = found
                    break
            else:
                ways[place] = self._multiplied(place)
        self._take(ways)

    def _multiplied(self, place: Place) -> dict[str, Link]:
        """Arrays that equal the constant but for one factor."""
        constant, found = np.asarray(place.array, np.float64), {}
        if constant.size < _ENOUGH or is_one_number(constant):
            return {}
        sample = sampled(constant.size)
        for name, array in self._arrays.items():
            fitting: dict[tuple[int, ...], float] = {}
            for order in orders(array.shape, constant.shape):
                some = array.reshape(-1)[transposed(array.shape, order, sample)].astype(np.float64)
                if direction(constant.reshape(1, -1)[:, sample], some[None], 0) is None:
                    continue
                made = array.transpose(order).reshape(constant.shape).astype(np.float64)
                factor = direction(constant[None], made[None], 0)
                if factor is not None:
                    fitting[order] = float(factor[0])
            if fitting:
                first, *others = aligned(list(fitting), array.shape, constant.shape)
                part = moved(name, array.shape, first, constant.shape, others)
                found[name] = Link(constant.shape, (part,), multiple(fitting[first]))
        return found

    def _computed(self, place: Place, function: Function) -> dict[str, Link]:
        constant = as_floats(place.array).reshape(-1).astype(np.float64)
        sample, found = sampled(constant.size), {}
        for name, array in self._arrays.items():
            if array.size != constant.size or array.dtype.kind in "iub":
                continue
            some = function.of(as_floats(array.reshape(-1)[sample]))
            if not misfit(some.astype(np.float64), constant[sample]) <= _EXACT:
                continue
            made = function.of(as_floats(array)).reshape(-1).astype(np.float64)
            if misfit(made, constant) <= _EXACT:
                part = moved(name, array.shape, tuple(range(array.ndim)), place.shape)
                found[name] = Link(place.shape, (part,), function)
        return found

    def weight_norms(self) -> None:
        """Weights that are stored as lengths and directions."""
        norms = list(find_weight_norms(self._arrays))
        for place in self._open():
            for norm in norms:
                array = self._arrays[norm.direction]
                if array.size != int(np.prod(place.shape)):
                    continue
                fitting = list(orders_in(norm, self._arrays, place.array))
                if fitting:
                    order, *others = fitting
                    part = moved(norm.direction, array.shape, order, place.shape, others)
                    axis = order.index(norm.axis)
                    self.found.links[place] = Link(place.shape, (part,), lengths=norm, axis=axis)
                    break

    def joined_parts(self) -> None:
        """Constants made of parts of arrays."""
        touched = {n for p, link in self.found.links.items() if p.masks for n in link.sources}
        values = list(dict.fromkeys(place.value for place in self._open()))
        constants = [as_floats(_array(value)) for value in values]
        floats = {n: as_floats(a) for n, a in self._arrays.items() if a.dtype.kind not in "iub"}
        for value, constant, sets in zip(values, constants, likely_sources(constants, floats), strict=True):
            planned = any(place.masks for place in self._by_value[value])
            names = sets[-1] if sets else []
            if not planned and touched.isdisjoint(names):
                continue
            parts = self._recovered(constant, sets, _array(value).dtype)
            if parts is None:
                self.found.reasons.setdefault(value.name or "", _why(names))
                continue
            parts += self._zeros_beside(parts, constant)
            named = len(parts) == 1 and is_same_name(value.name or "", parts[0].source)
            for place in self._by_value[value]:
                if place not in self.found.links:
                    how = "name" if named else "value"
                    self.found.links[place] = Link(constant.shape, tuple(parts), how=how)

    def _recovered(self, constant: Array, sets: Sequence[Sequence[str]], seen_as: Any) -> list[Part] | None:
        for names in sets:
            parts = recover(constant, {name: as_floats(self._arrays[name], seen_as) for name in names})
            if parts is not None:
                return parts
        return None

    def _zeros_beside(self, parts: Sequence[Part], constant: Array) -> list[Part]:
        """The array of zeros, of the same module as the other parts, that fills what they leave open."""
        taken = np.any([part.index() >= 0 for part in parts], axis=0)
        modules = {module_of(part.source) for part in parts}
        fitting = [
            name
            for name, array in self._arrays.items()
            if module_of(name) in modules and array.size == np.count_nonzero(~taken) and not array.any()
        ]
        if len(fitting) != 1:
            return []
        index = np.full(constant.shape, -1, np.int64)
        index[~taken] = np.arange(np.count_nonzero(~taken))
        return [picked(fitting[0], index)]


def _array(value: ir.Value) -> Array:
    assert value.const_value is not None
    return value.const_value.numpy()


def _is_shapeless(constant: Array, shapes: Iterable[tuple[int, ...]]) -> bool:
    """One number repeated, in a shape of which several transpositions can be the source's."""
    long = [n for n in constant.shape if n > 1]
    if len(long) < 2 or not is_one_number(constant):
        return False
    return len(set(long)) < len(long) or any([n for n in s if n > 1] != long for s in shapes)


def _why(names: Sequence[str]) -> str:
    if names:
        shown = ", ".join(f"'{name}'" for name in names[:3])
        return f"its numbers stand in {shown} and others, in no order that could be told"
    return NOWHERE
