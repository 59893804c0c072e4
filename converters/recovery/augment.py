"""Other samples than those that are given: pictures flipped and shifted, samples mixed.

The original says what is right for each of them, so no labels are needed.  Everything is drawn from the
numbers of the seed, the epoch and the batch: a run that is taken up again sees the same samples.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphprune.calibration.mixtures import mixtures
from graphprune.errors import UsageError

Array = npt.NDArray[np.generic]
Feeds = dict[str, Array]
#: Pictures are shifted by up to this fraction of their sides.
_SHIFT = 1 / 8
#: Channels that pictures have.
_COLOURS = (1, 2, 3, 4)
#: Fewer pixels in a row are no picture.
_LEAST_SIDE = 4


@dataclass(frozen=True)
class Augmentation:
    """What is done to batches.

    Attributes:
        kinds: ``flip`` (left and right) and ``shift`` (by some pixels; the edge is mirrored).
        mix: share of the batches whose samples are mixed with each other.
        pictures: the inputs that are flipped and shifted, with their axis of channels.
    """

    kinds: tuple[str, ...]
    mix: float
    pictures: Mapping[str, int]

    @property
    def changes(self) -> bool:
        """Is anything done at all?"""
        return bool(self.kinds) or self.mix > 0

    def __call__(self, feeds: Feeds, seed: int, epoch: int, batch: int) -> tuple[Feeds, bool]:
        """The batch to learn from, and whether each sample in it still has its label."""
        rng = np.random.default_rng([seed, epoch, batch])
        if self.pictures and self.kinds:
            feeds = self._moved(feeds, rng)
        if rng.random() < self.mix:
            mixed = mixtures([feeds], int(rng.integers(1 << 31)))
            if mixed:
                return mixed[0], False
        return feeds, True

    def _moved(self, feeds: Feeds, rng: np.random.Generator) -> Feeds:
        count = len(feeds[next(iter(self.pictures))])
        flips = rng.random(count) < 0.5 if "flip" in self.kinds else np.zeros(count, bool)
        shifts = rng.uniform(-_SHIFT, _SHIFT, (2, count)) if "shift" in self.kinds else np.zeros((2, count))
        moved = {name: _picked(feeds[name], axis, flips, shifts) for name, axis in self.pictures.items()}
        return {**feeds, **moved}


def _picked(
    pictures: Array, channels: int, flips: npt.NDArray[np.bool_], shifts: npt.NDArray[np.float64]
) -> Array:
    """Each picture's rows and columns in its own order."""
    y, x = (2, 3) if channels == 1 else (1, 2)
    rows = _positions(pictures.shape[y], shifts[0])
    columns = _positions(pictures.shape[x], shifts[1])
    columns = np.where(flips[:, None], columns[:, ::-1], columns)
    own = np.arange(len(pictures))[:, None, None]
    found = pictures.transpose(0, y, x, channels)[own, rows[:, :, None], columns[:, None, :]]
    return np.ascontiguousarray(found.transpose(0, 3, 1, 2) if channels == 1 else found)


def _positions(size: int, shifts: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """``[n, size]``: where each pixel comes from; beyond the edge the picture is mirrored."""
    moved = np.arange(size) + np.rint(shifts * size).astype(np.int64)[:, None]
    mirrored = np.abs(moved)
    found: npt.NDArray[np.int64] = np.where(mirrored > size - 1, 2 * (size - 1) - mirrored, mirrored)
    return found


def augmentation(
    feeds: Mapping[str, Array], kinds: Collection[str], mix: float, fixed: Collection[str] = ()
) -> Augmentation:
    """What can be done to samples like these.

    Args:
        feeds: some samples, by input name.
        kinds: what the user asked for.
        mix: share of mixed batches; nothing is mixed where an input is no measurement.
        fixed: inputs that are the same for all samples.

    Raises:
        UsageError: flips or shifts are asked for, and no input holds pictures.
    """
    pictures = {} if not kinds else {
        name: axis for name, array in feeds.items()
        if name not in fixed and (axis := _axis_of_channels(array)) is not None
    }  # fmt: skip
    if kinds and not pictures:
        shapes = ", ".join(f"'{name}' {array.dtype.name}{list(array.shape)}" for name, array in feeds.items())
        message = f"there are no pictures to {' and '.join(kinds)}"
        because = f"no input is [samples, channels, height, width] or channels last: {shapes}"
        raise UsageError(message, because=because, hint="without --augment")
    can_mix = not fixed and bool(mixtures([dict(feeds)], 0))
    return Augmentation(tuple(kinds), mix if can_mix else 0.0, pictures)


def _axis_of_channels(array: Array) -> int | None:
    if array.ndim != 4 or array.dtype.kind != "f":
        return None
    for axis, sides in ((1, (2, 3)), (3, (1, 2))):
        if array.shape[axis] in _COLOURS and all(array.shape[s] >= _LEAST_SIDE for s in sides):
            return axis
    return None
