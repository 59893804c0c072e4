"""Which samples are learned from, in what order, and which are held out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphprune.calibration.padding import padding_mask
from graphprune.calibration.samples import Samples

Array = npt.NDArray[np.generic]
#: More held-out samples than these would cost time and say little more.
_JUDGES = 512


@dataclass(frozen=True)
class Batch:
    """What runs at once.

    Attributes:
        feeds: by input name.
        labels: one per sample, if there are any.
        mask: of positions that are no padding ``[samples, positions]``, if some are.
    """

    feeds: dict[str, Array]
    labels: Array | None
    mask: npt.NDArray[np.bool_] | None


def cut(samples: Samples, size: int) -> Iterator[Batch]:
    """Batches of ``size`` samples, or of as many as the model insists on."""
    rows = 0
    for feeds in samples.batches(size):
        count = 1 if samples.whole else _count(feeds, samples)
        labels = None if samples.labels is None else samples.labels[rows : rows + count]
        rows += count
        mask = None if samples.shared or samples.whole else padding_mask(feeds)
        yield Batch(feeds, labels, mask)


def _count(feeds: dict[str, Array], samples: Samples) -> int:
    return next((len(a) for name, a in feeds.items() if name not in samples.shared), 1)


def parts(samples: Samples, fraction: float, seed: int) -> tuple[Samples, Samples]:
    """The samples to learn from and those held out, which nothing is ever fitted to.

    Raises:
        CalibrationError: there are too few to have both.
    """
    held_out, fitted = samples.split(min(fraction, _JUDGES / len(samples)), seed)
    return fitted, held_out


class Order:
    """The samples in an order of its own for each epoch.

    Args:
        samples: to learn from.
        size: of a step; a model that takes fewer at a time runs several times for one step.
        seed: of the order.
    """

    def __init__(self, samples: Samples, size: int, seed: int) -> None:
        least = samples.size or 1
        self._samples, self._seed = samples, seed
        self.size = min(max(least, size // least * least), max(least, len(samples) // least * least))
        self.per_epoch = max(1, len(samples) // self.size)
        self._epoch, self._rows = -1, np.zeros(0, np.int64)

    def where(self, step: int) -> tuple[int, int]:
        """Epoch and batch of a step."""
        return divmod(step, self.per_epoch)

    def rows(self, step: int) -> npt.NDArray[np.int64]:
        """Which samples a step looks at."""
        epoch, batch = self.where(step)
        if epoch != self._epoch:
            self._rows = np.random.default_rng([self._seed, epoch]).permutation(len(self._samples))
            self._epoch = epoch
        return self._rows[batch * self.size : (batch + 1) * self.size]

    def at(self, step: int) -> list[Batch]:
        """The runs of a step."""
        return list(cut(self._samples.pick(self.rows(step)), self.size))
