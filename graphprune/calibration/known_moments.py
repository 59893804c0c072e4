"""Moments of all layers, gathered in as many passes over the samples as the memory calls for.

With one pass they stay in memory.  With more, each pass's go to temporary files, one triangle per layer in
single precision, and are read again when somebody asks for a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from graphprune.calibration.landing import Landing
from graphprune.calibration.linear import Linear
from graphprune.calibration.moments import Moments
from graphprune.calibration.shelf import Room
from graphprune.calibration.shrinkage import Shrinkage
from graphprune.errors import CalibrationError

#: Gathers the moments of some layers; is told what to call the stage.
Gather = Callable[[Mapping[Linear, Landing], str], dict[Linear, Moments]]


def bytes_of(layer: Linear) -> int:
    """What a layer's second moments take while they are summed up, and those of rows held out."""
    return 16 * layer.groups * layer.features**2


def passes_of(layers: Sequence[Linear], limit: int) -> list[list[Linear]]:
    """The layers in order, in parts of at most ``limit`` bytes of moments; one layer at least in each."""
    parts: list[list[Linear]] = []
    left = 0
    for layer in layers:
        left -= bytes_of(layer)
        if not parts or left < 0:
            parts.append([])
            left = limit - bytes_of(layer)
        parts[-1].append(layer)
    return parts


class KnownMoments(Mapping[Linear, Moments]):
    """Moments by layer.

    Args:
        layers: in topological order, with where their outputs go.
        gather: runs the samples.
        limit: bytes that second moments may take in memory.

    Attributes:
        passes: over the samples.
        counts: rows that each layer's moments come from.

    Raises:
        CalibrationError: temporary files can't be written.
    """

    def __init__(self, layers: Mapping[Linear, Landing], gather: Gather, limit: int) -> None:
        self.counts: dict[Linear, int] = {}
        self._near: dict[Linear, Moments] = {}
        self._far: dict[Linear, _Stored] = {}
        self._room = Room(0)
        parts = passes_of(list(layers), limit)
        self.passes = len(parts)
        size = sum(map(bytes_of, layers)) / 8 / 2**30
        for i, part in enumerate(parts):
            stage = "calibrating"
            if self.passes > 1:
                stage += f", pass {i + 1} of {self.passes} ({size:.1f} GiB of temporary files)"
            found = gather({layer: layers[layer] for layer in part}, stage)
            for layer in part:
                self._keep(layer, found.pop(layer))

    def __getitem__(self, layer: Linear) -> Moments:
        return self._near[layer] if layer in self._near else self._far[layer].moments()

    def __iter__(self) -> Iterator[Linear]:
        return iter(self.counts)

    def __len__(self) -> int:
        return len(self.counts)

    def _keep(self, layer: Linear, moments: Moments) -> None:
        self.counts[layer] = moments.count
        if self.passes > 1:
            self._far[layer] = _Stored.of(moments, self._room.path())
        else:
            self._near[layer] = moments


@dataclass(frozen=True)
class _Stored:
    """Moments in a file: upper triangles of covariances, which lose less to rounding than ``E[x xᵀ]``."""

    path: Path
    count: int
    mean: npt.NDArray[np.float64]
    energy: float
    shrinkage: Shrinkage

    @classmethod
    def of(cls, moments: Moments, path: Path) -> _Stored:
        covariance = moments.covariance
        packed = [row[i:] for matrix in covariance.astype(np.float32) for i, row in enumerate(matrix)]
        try:
            np.save(path, np.concatenate(packed))
        except OSError as error:
            message = f"cannot keep the second moments of the samples in '{path.parent}'"
            hint = "a larger folder for temporary files (TMPDIR), or --criterion l2"
            raise CalibrationError(message, because=str(error.strerror), hint=hint) from error
        return cls(path, moments.count, moments.mean, moments.energy, moments.shrinkage)

    def moments(self) -> Moments:
        groups, d = self.mean.shape
        second = np.einsum("gi,gj->gij", self.mean, self.mean)
        packed, at = np.load(self.path, mmap_mode="r"), 0
        for matrix in second:
            for i in range(d):
                row = packed[at : at + d - i]
                matrix[i, i:] += row
                matrix[i + 1 :, i] += row[1:]
                at += d - i
        return Moments(self.count, self.mean, second.reshape(groups, d, d), self.energy, self.shrinkage)
