"""What the reference says to samples: computed when it is asked for, or once where samples never change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
from graphprune.converters.recovery.batches import cut

from graphprune.calibration.pieces import exposing
from graphprune.calibration.samples import Samples
from graphprune.model import Model
from graphprune.progress import Progress, counted
from graphprune.widened import widened

Array = npt.NDArray[np.generic]
#: Answers that are kept take no more memory than this.
_BYTES = 1 << 31


class Answers(Protocol):
    """Asks a model for some tensors."""

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Their values for one batch."""


class Asked:
    """Answers by onnxruntime.

    Args:
        model: who is asked.
        names: of tensors that nodes make.
        threads: of onnxruntime; 0 leaves it to onnxruntime.
    """

    def __init__(self, model: Model, names: Sequence[str], threads: int = 0) -> None:
        wide = widened(model)
        made = {v.name: v for node in wide.ir.graph for v in node.outputs if v.name in names}
        self._session = exposing(wide, [made[n] for n in names], threads)
        self._names = [value.name for value in self._session.get_outputs()]
        self._read = {value.name: value.type for value in self._session.get_inputs()}

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Values by name.

        Raises:
            ModelError: onnxruntime can't run the model on these samples.
        """
        given = {name: array for name, array in feeds.items() if name in self._read}
        for name, array in given.items():
            if self._read[name] == "tensor(float)" and array.dtype != np.float32:  # see `widened`
                given[name] = array.astype(np.float32)
        return dict(zip(self._names, self._session.run(None, given), strict=True))


class Kept:
    """Answers for all samples, so that the reference need not be asked again.

    Attributes:
        arrays: by tensor, one row per sample.
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self.arrays = arrays

    def at(self, rows: npt.NDArray[np.int64]) -> dict[str, Array]:
        """Of some samples."""
        return {name: array[rows] for name, array in self.arrays.items()}


def kept(answers: Answers, samples: Samples, size: int, progress: Progress) -> Kept | None:
    """All answers, if they have one row per sample and fit into memory; else None."""
    if samples.whole or samples.shared:
        return None
    found: dict[str, list[Array]] = {}
    batches = list(cut(samples, size))
    for i, batch in enumerate(counted(progress, "asking the reference", batches)):
        made = answers(batch.feeds)
        count = len(next(iter(batch.feeds.values())))
        if i == 0:
            bytes_each = sum(array.nbytes for array in made.values()) / count
            if bytes_each * len(samples) > _BYTES:
                return None
        if any(array.ndim == 0 or len(array) != count for array in made.values()):
            return None
        for name, array in made.items():
            found.setdefault(name, []).append(array)
    if any(len({a.shape[1:] for a in arrays}) > 1 for arrays in found.values()):
        return None
    return Kept({name: np.concatenate(arrays) for name, arrays in found.items()})
