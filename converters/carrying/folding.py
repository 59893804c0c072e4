"""Finds the layers whose weight and bias an exporter multiplied with a batch norm.

``W' = W * s`` along the outputs and ``b' = shift + (b - mean) * s`` with ``s = scale / sqrt(variance +
epsilon)``: the weight is told by its direction, the norm by both vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from graphprune.converters.carrying.hints import best, is_same_name, module_of
from graphprune.converters.carrying.layouts import Part, aligned, broadcast, moved, orders, transposed
from graphprune.converters.carrying.links import Link
from graphprune.converters.carrying.norms import (
    Doubles,
    Norm,
    direction,
    fitting_norms,
    misfit,
    rounding_of,
)
from graphprune.converters.carrying.places import Place

Array = npt.NDArray[Any]
_ROWS = 4


@dataclass(frozen=True)
class Fold:
    """One way in which a layer can be made of a weight and a norm.

    Attributes:
        weight: the layer's weight in the constant's layout.
        norm: with its epsilon.
        bias: name of the layer's own bias; None without one.
    """

    weight: Part
    norm: Norm
    bias: str | None


@dataclass(frozen=True, eq=False)
class Layer:
    """A node with a constant weight and, perhaps, a constant bias.

    Attributes:
        weight: where the weight is read.
        bias: where the bias is read; None without one.
        axis: of the weight, along which the outputs lie.
    """

    weight: Place
    bias: Place | None
    axis: int


def layers_of(places: Sequence[Place]) -> Iterator[Layer]:
    """Layers into which exporters fold norms."""
    by_use = {(place.node, place.index): place for place in places}
    for place in places:
        axis = _output_axis(place)
        if axis is None:
            continue
        bias = by_use.get((place.node, 2))
        yield Layer(place, bias, axis)


def _output_axis(place: Place) -> int | None:
    kind, node = place.node.op_type, place.node
    if place.index != 1 or len(place.shape) < 2:
        return None
    if kind == "Conv":
        return 0
    if kind == "ConvTranspose" and node.attributes.get_int("group", 1) == 1:
        return 1
    if kind == "Gemm":
        return 0 if node.attributes.get_int("transB", 0) else 1
    return None


def find_folds(layer: Layer, arrays: Mapping[str, Array], norms: Sequence[Norm]) -> list[Fold]:
    """All ways in which a layer can be made; several only where arrays are equal."""
    limit = rounding_of(layer.weight.array.dtype)
    constant = np.asarray(layer.weight.array, np.float64)
    size = constant.shape[layer.axis]
    wanted = np.zeros(size)
    if layer.bias is not None:
        wanted = np.asarray(layer.bias.array, np.float64).reshape(-1)
    elif len(layer.weight.node.inputs) > 2 and layer.weight.node.inputs[2] is not None:
        return []  # its bias is computed
    fits = [norm for norm in norms if arrays[norm.mean].size == size]
    if wanted.size != size or not fits:
        return []
    found: list[Fold] = []
    for part, factor in _directions(constant, layer.axis, arrays, limit):
        own = [
            name
            for name, array in arrays.items()
            if module_of(name) == module_of(part.source) and array.shape == (size,) and name != part.source
        ]
        for bias in (None, *own):
            before = None if bias is None else arrays[bias]

            def judge(norm: Norm, before: Array | None = before, factor: Doubles = factor) -> float:
                error = misfit(factor, norm.factor(arrays))
                if error > limit:
                    return error
                offset = norm.offset(arrays, before)
                return max(error, misfit(offset, wanted, _terms(norm, arrays, before)))

            for norm in fitting_norms(fits, arrays, size, judge, limit):
                found.append(Fold(part, norm, bias))
    return found


def _terms(norm: Norm, arrays: Mapping[str, Array], bias: Array | None) -> Doubles:
    """Sizes of what is added up in an offset: rounding goes with these."""
    mean = np.abs(np.asarray(arrays[norm.mean], np.float64))
    if bias is not None:
        mean = mean + np.abs(np.asarray(bias, np.float64))
    beta = np.abs(np.asarray(arrays[norm.shift], np.float64)) if norm.shift is not None else 0.0
    return np.asarray(beta + mean * np.abs(norm.factor(arrays)))


def _directions(
    constant: Doubles, axis: int, arrays: Mapping[str, Array], limit: float
) -> Iterator[tuple[Part, Doubles]]:
    """Arrays that equal the constant but for a factor per position of an axis, and these factors."""
    sample, rows = _sample(constant, axis)
    for name, array in arrays.items():
        if array.ndim < 2 or array.size != constant.size:
            continue
        flat = array.reshape(-1)
        fitting: dict[tuple[int, ...], Doubles] = {}
        for order in orders(array.shape, constant.shape):
            some = flat[transposed(array.shape, order, sample)].astype(np.float64).reshape(rows)
            wanted = constant.reshape(-1)[sample].reshape(rows)
            if direction(wanted, some, 0, limit) is None:
                continue
            weight = array.transpose(order).reshape(constant.shape).astype(np.float64)
            factor = direction(constant, weight, axis, limit)
            if factor is not None:
                fitting[order] = factor
        if fitting:
            first, *others = aligned(list(fitting), array.shape, constant.shape)
            yield moved(name, array.shape, first, constant.shape, others), fitting[first]


def _sample(constant: Doubles, axis: int) -> tuple[npt.NDArray[np.int64], tuple[int, int]]:
    """Flat positions of a few rows, and how they are laid out."""
    moved_axis = np.moveaxis(np.arange(constant.size).reshape(constant.shape), axis, 0)
    flat = moved_axis.reshape(constant.shape[axis], -1)
    strength = np.abs(constant.reshape(-1)[flat]).sum(axis=1)
    chosen = flat[np.argsort(-strength)[:_ROWS]]
    return chosen.reshape(-1), chosen.shape


def choose_folds(
    found: Mapping[Layer, Sequence[Fold]], order: Mapping[str, int]
) -> tuple[dict[Layer, tuple[Fold, str]], list[tuple[str, ...]]]:
    """One way per layer, and the sets of arrays among which only their order decided."""
    chosen: dict[Layer, tuple[Fold, str]] = {}
    open_layers: dict[Layer, list[Fold]] = {}
    for layer, folds in found.items():
        left = _by_names(layer, list(folds))
        if len({(f.weight.source, f.norm.module) for f in left}) == 1:
            chosen[layer] = left[0], "batch norm"
        else:
            open_layers[layer] = left
    taken = {fold.norm.module for fold, _ in chosen.values()}
    doubtful = []
    for layer in sorted(open_layers, key=lambda each: order[open_layers[each][0].weight.source]):
        folds = [f for f in open_layers[layer] if f.norm.module not in taken] or open_layers[layer]
        start = order[folds[0].weight.source]
        fold = min(folds, key=lambda f: _distance(order[f.norm.mean], start))
        taken.add(fold.norm.module)
        chosen[layer] = fold, "order"
        doubtful.append(tuple(dict.fromkeys(f.norm.mean for f in open_layers[layer])))
    return chosen, doubtful


def _by_names(layer: Layer, folds: list[Fold]) -> list[Fold]:
    """Those that the names of the node and its constants speak for; all if they say nothing."""
    hints = (*layer.weight.hints, *(layer.bias.hints if layer.bias is not None else ()))
    weights = list(dict.fromkeys(f.weight.source for f in folds))
    named = [w for w in weights if is_same_name(layer.weight.name, w)]
    if len(weights) > 1:
        own = best(hints, [module_of(w) for w in weights])
        named = named or [w for w in weights if module_of(w) in own]
        if len(named) == 1:
            folds = [f for f in folds if f.weight.source == named[0]]
    modules = list(dict.fromkeys(f.norm.module for f in folds))
    if len(modules) > 1:
        told = best(hints, modules, whole=True)
        if len(told) == 1:
            folds = [f for f in folds if f.norm.module in told]
    return folds


def _distance(position: int, start: int) -> tuple[bool, int]:
    """The nearest behind the weight comes first."""
    return position < start, abs(position - start)


def links_of(layer: Layer, fold: Fold, how: str) -> Iterator[tuple[Place, Link]]:
    """What weight and bias of a layer are made of."""
    shape = layer.weight.shape
    yield (
        layer.weight,
        Link(shape, (fold.weight,), norm=fold.norm, axis=layer.axis, bias=fold.bias, how=how),
    )
    if layer.bias is not None:
        shape = layer.bias.shape
        copies = () if fold.bias is None else (broadcast(fold.bias, len(shape) - 1, shape),)
        yield (
            layer.bias,
            Link(shape, copies, norm=fold.norm, axis=len(shape) - 1, is_offset=True, how=how),
        )
