"""Moments of what layers read, from weights and the statistics that BatchNormalization holds; no samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from graphprune.calibration.channels import Channels, Trail
from graphprune.calibration.evidence import Consumer, Evidence
from graphprune.calibration.gathered import Gathered
from graphprune.calibration.moments import MAX_FEATURES, Moments

#: For a model, what gives the moments of a layer's input; None where they are not known.
Source: TypeAlias = Callable[[Evidence], Callable[[Consumer], "Moments | None"]]


def measured(evidence: Evidence) -> Callable[[Consumer], Moments | None]:
    """Moments of the samples."""
    return lambda consumer: evidence.moments.get(consumer.layer)


@dataclass(frozen=True)
class WeightMoments:
    """Moments for the layers whose channels are known from one layer's weights.

    Attributes:
        evidence: the model; no sample is looked at.
        trail: from what a layer reads to what makes it.
    """

    evidence: Evidence
    trail: Trail

    @classmethod
    def of(cls, evidence: Evidence) -> WeightMoments:
        """Of a model."""
        return cls(evidence, Trail(evidence))

    def __call__(self, consumer: Consumer) -> Moments | None:
        """Of what a layer reads; None where nothing is known."""
        layer = consumer.layer
        if isinstance(layer, Gathered) or layer.groups != 1 or layer.features > MAX_FEATURES:
            return None
        channels = self.trail.channels(layer.source)
        place = self._places(channels, consumer) if channels is not None else None
        if channels is None or place is None:
            return None
        # A channel behind a Flatten has many positions; each goes with the same one of other channels.
        turn = _occurrences(place)
        covariance = np.where(turn[:, None] == turn, channels.covariance[np.ix_(place, place)], 0.0)
        window = layer.features // len(place)
        covariance, mean = np.kron(covariance, np.eye(window)), np.repeat(channels.mean[place], window)
        second = covariance + np.outer(mean, mean)
        if not np.isfinite(second).all():
            return None
        return Moments(len(second), mean[None], second[None], 0.0)

    def _places(self, channels: Channels, consumer: Consumer) -> npt.NDArray[np.int64] | None:
        """Which of the channels each position of the contracted axis holds."""
        algebra = self.evidence.graph.analysis.algebra
        made = channels.maker.use.axes[channels.maker.layer.made]
        if made.is_plain or consumer.axis.is_plain:
            return None
        makes, reads = algebra.live(made), algebra.live(consumer.axis)
        if makes.shape[1] != 1 or reads.shape[1] != 1 or len(np.unique(makes)) < len(makes):
            return None
        number = np.full(len(algebra), -1, np.int64)
        number[makes[:, 0]] = np.arange(len(makes))
        found = number[reads[:, 0]]
        return found if (found >= 0).all() else None


def _occurrences(places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How often each entry has come before."""
    order = np.argsort(places, kind="stable")
    starts = np.searchsorted(places[order], places[order])
    turn = np.empty(len(places), np.int64)
    turn[order] = np.arange(len(places)) - starts
    return turn
