"""Vectors that no constant shows: exporters leave out a bias of zeros.

Such a bias goes with its layer's outputs.  Another vector in the module of a cut array may belong to the
layer as well, and the model says nothing about it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy.typing as npt
from graphprune.converters.carrying.explaining import Explanation
from graphprune.converters.carrying.hints import leaf_of, module_of
from graphprune.converters.carrying.places import Place
from graphprune.converters.carrying.votes import Kept, moves_along

Array = npt.NDArray[Any]
_AMBIGUOUS = "the model does not read it, and nothing tells which axis of '{}' it goes with"
_OTHER = "the model does not read it, and '{}' beside it is cut"


def long_axes(array: Array) -> list[int]:
    """Axes with more than one position."""
    return [d for d, n in enumerate(array.shape) if n > 1]


def follow_outputs(found: Explanation, kept: Kept, arrays: Mapping[str, Array]) -> list[tuple[str, str]]:
    """Cuts vectors of zeros with the outputs of the layer that they are of.

    Returns:
        (array, reason) of vectors in the module of a cut array of which it can't be told what stays.
    """
    return _Unread(found, kept, arrays).run()


class _Unread:
    def __init__(self, found: Explanation, kept: Kept, arrays: Mapping[str, Array]) -> None:
        self._found, self._kept, self._arrays = found, kept, arrays
        self._places: dict[str, list[Place]] = {}
        for place, link in found.links.items():
            for name in link.sources:
                self._places.setdefault(name, []).append(place)
        self._modules: dict[str, list[str]] = {}
        for name in arrays:
            self._modules.setdefault(module_of(name), []).append(name)

    def run(self) -> list[tuple[str, str]]:
        refused = []
        for name, array in self._arrays.items():
            known = name in self._places or name in self._kept.axes or name in self._kept.gone
            if known or array.dtype.kind in "iub" or len(long_axes(array)) != 1:
                continue
            beside = [n for n in self._modules[module_of(name)] if n != name]
            read = [n for n in beside if n in self._places]
            if read and all(n in self._kept.gone for n in read) and not array.any():
                self._kept.gone.add(name)
                continue
            cut = [n for n in beside if n in self._kept.axes]
            reason = self._settle(name, array, beside) if cut else None
            if reason is not None:
                refused.append((name, reason))
        return refused

    def _settle(self, name: str, array: Array, beside: list[str]) -> str | None:
        """Cuts the vector where that is clear; a reason where it may have to be cut and it is not."""
        is_zero = not array.any()
        options = list(self._options(array.size, beside))
        if is_zero:  # the others stay as they are in the model, so they are no bias of it
            outputs = [(n, d) for n, d in options if d in self._outputs(n)]
            options = outputs or options
        cut = [(n, d) for n, d in options if d in self._kept.axes.get(n, {})]
        if not options and _is_bias(name):
            return self._joined(array.size, beside)
        if not cut:
            return None
        other, axis = cut[0]
        if not is_zero:  # names without a module say nothing of who is beside whom
            return _OTHER.format(other) if module_of(name) or _is_bias(name) else None
        positions = self._kept.axes[other][axis]
        if len(cut) < len(options) or any(len(self._kept.axes[n][d]) != len(positions) for n, d in cut):
            return _AMBIGUOUS.format(other)
        own = long_axes(array)[0]
        self._kept.axes[name] = {own: positions}
        if axis in self._kept.sizes.get(other, {}):
            self._kept.sizes[name] = {own: self._kept.sizes[other][axis]}
        return None

    def _options(self, size: int, beside: list[str]) -> Iterator[tuple[str, int]]:
        """Axes of this length beside it."""
        for name in beside:
            if name in self._places or name in self._kept.axes:
                yield from ((name, d) for d, n in enumerate(self._arrays[name].shape) if n == size)

    def _joined(self, size: int, beside: list[str]) -> str | None:
        """A bias of several layers in one, whose weights are apart."""
        for name in beside:
            for axis in self._kept.axes.get(name, {}):
                if size % self._arrays[name].shape[axis] == 0:
                    return _AMBIGUOUS.format(name)
        return None

    def _outputs(self, name: str) -> set[int]:
        """Axes of a layer's weight along which its outputs lie."""
        shape, found = self._arrays[name].shape, set()
        same = next((names for names in self._found.equal if name in names), (name,))
        for source in same:
            if self._arrays[source].shape != shape:
                continue
            for place in self._places.get(source, ()):
                axis, link = _output_axis(place), self._found.links[place]
                for part in link.copies if axis is not None else ():
                    if part.source == source and axis is not None:
                        found.update(moves_along(part.index(), axis, shape))
        return found


def _is_bias(name: str) -> bool:
    return "bias" in leaf_of(name).lower()


def _output_axis(place: Place) -> int | None:
    kind, node, rank = place.node.op_type, place.node, len(place.shape)
    if kind == "Conv" and place.index == 1:
        return 0
    if kind == "ConvTranspose" and place.index == 1 and node.attributes.get_int("group", 1) == 1:
        return 1
    if kind == "Gemm" and place.index == 1:
        return 0 if node.attributes.get_int("transB", 0) else 1
    if kind == "MatMul" and rank > 1:
        return rank - 1 if place.index == 1 else rank - 2
    return None
