"""Mixtures of samples: more to fit to, where inputs are measurements.

Weights that are fitted to a few hundred samples know little of what lies between them.  Sums of two samples
(mixup, Zhang et al. 2018, arXiv:1710.09412, here without labels: the original says what outputs are right)
fill some of that space, whatever the samples are: images, sounds, sensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Feeds = dict[str, npt.NDArray[np.generic]]


def mixtures(batches: Sequence[Mapping[str, npt.NDArray[np.generic]]], seed: int) -> list[Feeds]:
    """One mixture for each sample, in batches of the same sizes; none if an input is no measurement.

    Args:
        batches: samples along the first axis of all inputs.
        seed: of the partners and the shares.
    """
    if not all(_is_measured(batch) for batch in batches):
        return []
    found = []
    for b, batch in enumerate(batches):
        rng = np.random.default_rng([seed, b])
        many = len(next(iter(batch.values())))
        shares = rng.uniform(size=many)
        # A sample that runs alone has its partner in the next batch.
        shift, other = (
            (int(rng.integers(1, many)), batch) if many > 1 else (0, batches[(b + 1) % len(batches)])
        )
        if not shift and other is batch:
            continue
        if any(other[name].shape != array.shape for name, array in batch.items()):
            continue
        mixed: Feeds = {}
        for name, array in batch.items():
            own = shares.reshape(-1, *(1 for _ in array.shape[1:])).astype(array.dtype)
            mixed[name] = np.asarray(
                own * array + (1 - own) * np.roll(other[name], shift, axis=0), array.dtype
            )
        found.append(mixed)
    return found


def _is_measured(batch: Mapping[str, npt.NDArray[np.generic]]) -> bool:
    """Floating-point numbers, and none of several inputs a mask?"""
    arrays = list(batch.values())
    masks = len(arrays) > 1 and any(np.isin(array, (0, 1)).all() for array in arrays)
    return not masks and all(array.dtype.kind == "f" for array in arrays)
