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
        samples: how many there are in all batches.
        rng: chooses the places.
    """
    there = max(layer.positions(output), 1)
    per_sample = wanted / max(samples, 1)
    if there <= 1 or per_sample >= there:
        return _grid(output[0], np.broadcast_to(np.arange(there), (output[0], there)))
    if layer.window is None or prod(layer.window.kernel) == 1:
        many = int(np.ceil(per_sample))
        found = np.stack([rng.choice(there, many, replace=False) for _ in range(output[0])])
        return _grid(output[0], found)
    sizes = output[2:]
    side = max(1, int(np.ceil(per_sample ** (1 / len(sizes)))), min(_LEAST, *sizes))
    while prod(box := tuple(min(side, n) for n in sizes)) < per_sample:  # a long, narrow input
        side += 1
    corner = np.stack([rng.integers(0, n - b + 1, output[0]) for n, b in zip(sizes, box, strict=True)])
    steps = np.stack([grid.ravel() for grid in np.meshgrid(*map(np.arange, box), indexing="ij")])
    at = corner[:, :, None] + steps[:, None, :]  # [rank, samples, positions]
    chosen = _grid(output[0], np.ravel_multi_index(tuple(at), sizes))
    # Patches are no smaller than it pays, so that fewer samples may do.
    share = min(1.0, per_sample / prod(box))
    keep = rng.permutation(output[0])[: max(1, int(np.ceil(share * output[0])))]
    mask = np.isin(chosen[0], keep)
    return chosen[0][mask], chosen[1][mask]


#: Smallest side of a patch.
_LEAST = 3


def _grid(samples: int, positions: Index) -> tuple[Index, Index]:
    """``positions[samples, k]``, one sample after the other."""
    return np.repeat(np.arange(samples), positions.shape[1]), np.ascontiguousarray(positions).ravel()
