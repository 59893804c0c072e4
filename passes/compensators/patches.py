"""Which positions of a layer's output are looked at, where it reads windows: compact patches.

Neighbouring windows overlap.  A patch of neighbours needs far fewer input positions than as many positions
that lie apart.
"""

from __future__ import annotations

from math import prod

import numpy as np
import numpy.typing as npt

from graphprune.calibration.linear import Linear

Index = npt.NDArray[np.int64]


def patches(
    layer: Linear, output: tuple[int, ...], wanted: int, samples: int, rng: np.random.Generator
) -> tuple[Index, Index]:
    """Samples and flat output positions, ``[n]`` each.

    Args:
        layer: the layer.
        output: shape of its output, for a batch.
        wanted: positions of all samples together, at least if there are so many.
        samples: how many there are in all batches, along the first axis of the output.
        rng: chooses the places.
    """
    there = max(layer.positions(output), 1)
    per_sample = wanted / max(samples, 1)
    if there <= 1 or per_sample >= there:
        places = _grid(output[0], np.broadcast_to(np.arange(there), (output[0], there)))
        return _thinned(places, output[0], per_sample / there, rng)
    if layer.window is None or prod(layer.window.kernel) == 1:
        many = int(np.ceil(per_sample))
        found = np.stack([rng.choice(there, many, replace=False) for _ in range(output[0])])
        return _thinned(_grid(output[0], found), output[0], per_sample / many, rng)
    sizes = output[2:]
    side = max(1, int(np.ceil(per_sample ** (1 / len(sizes)))), min(_LEAST, *sizes))
    while prod(box := tuple(min(side, n) for n in sizes)) < per_sample:  # a long, narrow input
        side += 1
    corner = np.stack([rng.integers(0, n - b + 1, output[0]) for n, b in zip(sizes, box, strict=True)])
    steps = np.stack([grid.ravel() for grid in np.meshgrid(*map(np.arange, box), indexing="ij")])
    at = corner[:, :, None] + steps[:, None, :]  # [rank, samples, positions]
    chosen = _grid(output[0], np.ravel_multi_index(tuple(at), sizes))
    # Patches are no smaller than it pays, so that fewer samples may do.
    return _thinned(chosen, output[0], per_sample / prod(box), rng)


#: Smallest side of a patch.
_LEAST = 3


def _thinned(
    places: tuple[Index, Index], samples: int, share: float, rng: np.random.Generator
) -> tuple[Index, Index]:
    """The places of so large a share of the samples."""
    if share >= 1.0:
        return places
    keep = rng.permutation(samples)[: max(1, int(np.ceil(share * samples)))]
    mask = np.isin(places[0], keep)
    return places[0][mask], places[1][mask]


def _grid(samples: int, positions: Index) -> tuple[Index, Index]:
    """``positions[samples, k]``, one sample after the other."""
    return np.repeat(np.arange(samples), positions.shape[1]), np.ascontiguousarray(positions).ravel()
