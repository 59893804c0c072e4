"""The layers that read a group, for criteria that look at activations.

A unit that several layers read answers to all of them: contributions are made relative to the energy of what
each layer's output becomes part of, and added up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from graphprune.passes.criteria.magnitude import Magnitude
from graphprune.passes.criteria.members import group_of_units
from graphprune.passes.criteria.obs import one_over, places_of, scale_of

from graphprune.calibration.evidence import Consumer, Evidence
from graphprune.calibration.linear import Linear
from graphprune.calibration.moments import Moments
from graphprune.calibration.spreads import Spread
from graphprune.groups import Group
from graphprune.parts import is_big

Scores = npt.NDArray[np.float64]
_TINY = float(np.finfo(float).tiny)


@dataclass(frozen=True)
class Reader:
    """One layer that reads a group.

    Attributes:
        consumer: the layer.
        places: ``[units, b]`` features of each unit, within each of the layer's matrices.
        moments: of its input; of a large model's, means and powers alone.
    """

    consumer: Consumer
    places: npt.NDArray[np.int64]
    moments: Moments | Spread

    @property
    def weight(self) -> Scores:
        """``[groups, d, o]``."""
        return self.consumer.matrices

    @cached_property
    def scale(self) -> float:
        """Turns an error of the output into a relative one."""
        if isinstance(self.moments, Spread):
            return one_over(max(self.moments.energy, self.moments.own))
        return scale_of(self.consumer, self.moments)

    @cached_property
    def power(self) -> Scores:
        """``E[x²]`` per feature, ``[groups, d]``."""
        if isinstance(self.moments, Spread):
            return self.moments.power
        return np.asarray(np.einsum("gdd->gd", self.moments.second).clip(min=0.0))

    @cached_property
    def variance(self) -> Scores:
        """Per feature, ``[groups, d]``."""
        return np.asarray((self.power - np.square(self.moments.mean)).clip(min=0.0))

    def outgoing(self, p: int) -> Scores:
        """``sum_o |W_jo|^p`` per feature, ``[groups, d]``; of a large matrix without holding it."""
        layer, tensor = self.consumer.layer, self.consumer.use.value.const_value
        assert tensor is not None
        if layer.groups == 1 and len(tensor.shape) == 2 and not self.consumer.is_kept:
            sums = Magnitude(p).along(self.consumer.use, [layer.contracted])
            return sums[layer.contracted][None]
        powers = np.abs(self.weight) if p == 1 else np.square(self.weight)
        return np.asarray(powers.sum(axis=2))

    def of_units(self, features: Scores) -> Scores:
        """Sums ``[units]`` over the features ``[groups, d]`` of each unit."""
        return np.asarray(features.sum(axis=0)[self.places].sum(axis=1))


def readers_of(evidence: Evidence, group: Group, *, pairs: bool = False) -> Iterator[Reader]:
    """Layers that multiply a group's units by a weight.

    Args:
        evidence: whose layers.
        group: of units.
        pairs: moments of pairs of features are needed, whatever the size of the model.
    """
    apart = not pairs and is_big(evidence.graph.model)
    known: Mapping[Linear, Moments | Spread] = evidence.spreads if apart else evidence.moments
    for consumer in evidence.consumers:
        places = places_of(evidence, consumer, group)
        moments = known.get(consumer.layer)  # None: too large a layer
        if places is not None and moments is not None:
            yield Reader(consumer, places, moments)


def sum_over_readers(evidence: Evidence, judge: Callable[[Reader], Scores], *, pairs: bool = False) -> Scores:
    """Scores ``[len(algebra)]``: what ``judge`` says of each unit, added up over the layers that read it.

    A unit that no layer reads gets its share of the squared weights of all that it competes with.
    """
    scores = shares_of_magnitude(evidence)
    for group in evidence.groups:
        if group.prunable:
            found = [judge(reader) for reader in readers_of(evidence, group, pairs=pairs)]
            if found:
                scores[group.units] = np.sum(found, axis=0)
    return scores


def shares_of_magnitude(evidence: Evidence) -> Scores:
    """Squared norm of all that goes with a unit, relative to that of its competitors together."""
    squares = Magnitude(2)(evidence) ** 2
    scores = np.zeros(len(squares))
    for units in group_of_units(evidence.graph)[1]:
        scores[units] = squares[units] / max(float(squares[units].sum()), _TINY)
    return scores
