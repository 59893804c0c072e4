"""New weights of a pruned ONNX model, in terms of the source's arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from graphprune.converters.carrying.explaining import NOWHERE, Explanation
from graphprune.converters.carrying.hints import beside
from graphprune.converters.carrying.layouts import broadcast
from graphprune.converters.carrying.links import Doubles, Link
from graphprune.converters.carrying.norms import Norm
from graphprune.converters.carrying.places import Place
from graphprune.converters.carrying.votes import Kept
from graphprune.converters.carrying.weight_norms import WeightNorm

from graphprune.model import Model
from graphprune.storage.constants import is_constant

Array = npt.NDArray[Any]
_BIAS = 2
_LAYERS = ("Conv", "ConvTranspose", "Gemm")


@dataclass
class NewValues:
    """What the arrays become.

    Attributes:
        values: array -> its numbers at its new shape.
        added: arrays that the source does not have.
        refused: (constant, use, reason) of what can't be written back.
    """

    values: dict[str, Array] = field(default_factory=dict)
    added: dict[str, Array] = field(default_factory=dict)
    refused: list[tuple[str, str, str]] = field(default_factory=list)


def new_constants(places: Sequence[Place], pruned: Model) -> dict[Place, Array]:
    """What the pruned model reads at each place that it still has."""
    nodes = {node.outputs[0].name: node for node in pruned.ir.graph.all_nodes()}
    found = {}
    for place in places:
        value = _input(nodes.get(place.node.outputs[0].name), place.index)
        if value is not None and value.const_value is not None and is_constant(value):
            found[place] = value.const_value.numpy()
    return found


def _input(node: ir.Node | None, index: int) -> ir.Value | None:
    return node.inputs[index] if node is not None and index < len(node.inputs) else None


def updated(
    places: Sequence[Place],
    found: Explanation,
    kept: Kept,
    arrays: Mapping[str, Array],
    pruned: Model | None,
) -> NewValues:
    """New numbers of the source's arrays.

    Args:
        places: of the original model.
        found: what their constants are made of.
        kept: what stays of the arrays.
        arrays: the source's, as they are.
        pruned: the pruned model; None: the plain cut.
    """
    return _Update(places, found, kept, arrays, pruned).run()


class _Update:
    def __init__(
        self,
        places: Sequence[Place],
        found: Explanation,
        kept: Kept,
        arrays: Mapping[str, Array],
        pruned: Model | None,
    ) -> None:
        self._places, self._found, self._kept, self._arrays = places, found, kept, arrays
        self._pruned = pruned
        if pruned is None:
            self._now = {p: p.cut(p.array) for p, link in found.links.items() if link.lengths is not None}
        else:
            self._now = new_constants(places, pruned)
        self._new = NewValues()
        self._whole: dict[str, Doubles] = {}
        self._scaled: set[str] = set()

    def run(self) -> NewValues:
        changed = [p for p in self._places if self._pruned is not None and self._is_changed(p)]
        for place in changed:
            if place not in self._found.links:
                reason = self._found.reasons.get(place.name, NOWHERE)
                self._refuse(place, f"its weights were updated, and {reason}")
        # The lengths of directions change with what is left of them.
        changed += [place for place in self._places if self._is_shortened(place) and place not in changed]
        linked = {place: self._found.links[place] for place in changed if place in self._found.links}
        # Factors of norms first: what is folded with them is divided by them, and offsets come last.
        for place, link in sorted(linked.items(), key=lambda item: bool(item[1].copies)):
            if not link.is_offset:
                self._write(place, link)
        for place, link in self._found.links.items():
            if link.is_offset and place in self._now and (place in linked or self._is_scaled(link)):
                self._write(place, link)
        self._absent_biases()
        for name, whole in self._whole.items():
            if name not in self._kept.refused:
                values = self._kept.cut(name, whole)
                self._new.values[name] = values.astype(self._arrays[name].dtype)
        return self._new

    def _is_changed(self, place: Place) -> bool:
        now = self._now.get(place)
        if now is None or place.is_gone:
            return False
        expected = place.cut(place.array)
        if now.shape != expected.shape:
            self._refuse(place, f"the pruned model has {list(now.shape)}, the plan {list(expected.shape)}")
            return False
        return not np.array_equal(now, expected)

    def _refuse(self, place: Place, reason: str) -> None:
        self._new.refused.append((place.name, place.key, reason))

    def _of(self, name: str) -> Doubles:
        """The array as it is so far, in double precision, to be written to."""
        if name not in self._whole:
            self._whole[name] = np.array(self._arrays[name], np.float64)
        return self._whole[name]

    def _current(self) -> dict[str, Array]:
        return {**self._arrays, **self._whole}

    def _write(self, place: Place, link: Link) -> None:
        full = np.full(place.shape, np.nan)
        full[place.kept()] = np.asarray(self._now[place], np.float64).reshape(-1)
        if link.lengths is not None:
            self._write_lengths(link, link.lengths, full, is_new=self._is_changed(place))
        elif link.norm is None:
            self._write_copies(link, full)
        elif not link.is_offset:
            self._write_factor(link, link.norm, full)
        else:
            self._write_offset(place, link, link.norm, full)

    def _write_copies(self, link: Link, full: Doubles) -> None:
        full = link.function.back(full)
        for part in link.copies:
            index = part.index()
            here = (index >= 0) & ~np.isnan(full)
            self._of(part.source).reshape(-1)[index[here]] = full[here]

    def _is_shortened(self, place: Place) -> bool:
        link = self._found.links.get(place)
        if link is None or link.lengths is None or place.is_gone or place not in self._now:
            return False
        return any(axis != link.axis for axis in place.masks)

    def _write_lengths(self, link: Link, norm: WeightNorm, full: Doubles, *, is_new: bool) -> None:
        others = tuple(d for d in range(full.ndim) if d != link.axis)
        lengths = np.sqrt(np.nansum(full * full, axis=others))
        gain = self._of(norm.gain)
        if is_new:
            self._write_copies(link, full)
            gain[...] = lengths.reshape(gain.shape)
        else:
            gain[...] = np.copysign(lengths.reshape(gain.shape), gain)

    def _write_factor(self, link: Link, norm: Norm, full: Doubles) -> None:
        factor = norm.factor(self._current())
        if not link.copies:
            self._scale(norm, full.reshape(-1))
            return
        dead = ~(np.abs(factor) > 0)
        if dead.any():  # a norm that multiplies with zero can't show a weight: it gets factor one there
            self._scale(norm, np.where(dead, 1.0, factor))
            factor = norm.factor(self._current())
        self._write_copies(link, full / link.along(factor))

    def _scale(self, norm: Norm, factor: Doubles) -> None:
        if norm.scale is None:
            return
        variance = np.asarray(self._current()[norm.variance], np.float64)
        gamma = self._of(norm.scale)
        self._scaled.add(norm.module)
        new = factor * np.sqrt(variance + norm.epsilon)
        gamma[~np.isnan(new)] = new[~np.isnan(new)]

    def _is_scaled(self, link: Link) -> bool:
        """Does its norm multiply with other numbers now?"""
        return link.norm is not None and link.norm.module in self._scaled

    def _write_offset(self, place: Place, link: Link, norm: Norm, full: Doubles) -> None:
        if norm.shift is None:
            self._refuse(place, f"its bias was updated, and the norm '{norm.module}' has none")
            return
        current = self._current()
        bias = link.copied(current).reshape(-1) if link.copies else None
        rest = norm.offset({**current, norm.shift: np.zeros(full.size)}, bias)
        new = full.reshape(-1) - rest
        beta = self._of(norm.shift)
        beta[~np.isnan(new)] = new[~np.isnan(new)]

    def _absent_biases(self) -> None:
        """Layers without a bias in the original: some got one, and others add zero as they did before."""
        if self._pruned is None:
            return
        nodes = {node.outputs[0].name: node for node in self._pruned.ir.graph.all_nodes()}
        for place in self._places:
            link = self._found.links.get(place)
            if place.index != 1 or link is None or _input(place.node, _BIAS) is not None:
                continue
            bias = _input(nodes.get(place.node.outputs[0].name), _BIAS)
            if place.node.op_type not in _LAYERS:
                continue
            if bias is not None and bias.const_value is not None:
                self._add_bias(place, link, np.asarray(bias.const_value.numpy()))
            elif self._is_scaled(link) and place in self._now:
                self._add_bias(place, link, np.zeros(np.count_nonzero(place.keep(link.axis))))

    def _add_bias(self, place: Place, link: Link, bias: Array) -> None:
        if link.norm is not None:
            mask = place.keep(link.axis)
            full = np.full(mask.size, np.nan)
            full[mask] = np.asarray(bias, np.float64)
            own = () if link.bias is None else (broadcast(link.bias, 0, full.shape),)
            self._write_offset(place, Link(full.shape, own, norm=link.norm, is_offset=True), link.norm, full)
            return
        if len(link.copies) != 1:
            self._refuse(place, "its layer got a bias, and its weight is made of several arrays")
            return
        weight = link.copies[0].source
        name, numbers = beside(weight, "bias"), bias.astype(self._arrays[weight].dtype)
        if name not in self._arrays:
            self._new.added[name] = numbers
        elif any(name in each.sources for each in self._found.links.values()) or self._arrays[name].any():
            self._refuse(place, f"its layer got a bias, and '{name}' is something else")
        else:  # a bias of zeros, which the exporter left out
            self._new.values[name] = numbers
