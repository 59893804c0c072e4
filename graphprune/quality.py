"""How well a pruned model does on samples that it was not fitted to: accuracy, agreement, distance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphprune.calibration.samples import Samples, SampleSource, load_samples
from graphprune.compare import run, session
from graphprune.errors import CalibrationError
from graphprune.model import Model

Array = npt.NDArray[np.generic]
_BATCH = 64
#: Numbers that the outputs of all samples have at most; of more, the first samples are taken.
_NUMBERS = 1 << 27


@dataclass(frozen=True)
class Quality:
    """What became of the outputs.

    Attributes:
        samples: how many were run.
        accuracy: share of samples whose largest output is the one that the label says; None without labels.
        agreement: share whose largest output is that of the original; None where outputs are no choices.
        error: relative squared error of all outputs against the original's; None if none can be compared.
    """

    samples: int
    accuracy: float | None
    agreement: float | None
    error: float | None


class Judge:
    """Runs models on the same samples as the original.

    Args:
        original: the model that was pruned.
        data: samples, with ``labels`` or without.

    Raises:
        CalibrationError: the data don't fit the model, or the labels its outputs.
    """

    def __init__(self, original: Model, data: SampleSource) -> None:
        self._samples: Samples = load_samples(data, original)
        few = self._samples.take(1)
        numbers = sum(y.size for y in self._run(original, few).values()) // len(few)
        self._samples = self._samples.take(max(_NUMBERS // max(numbers, 1), 1))
        self._expected = self._run(original, self._samples)
        self._scale = {name: _scale(y) for name, y in self._expected.items()}
        labels = self._samples.labels
        self._labels = None if labels is None else np.asarray(labels)
        if self._labels is not None and self._choice(self._expected, self._labels.shape) is None:
            shapes = ", ".join(f"'{name}' {list(y.shape)}" for name, y in self._expected.items())
            message = f"the labels have the shape {list(self._labels.shape)}, which no output chooses"
            raise CalibrationError(
                message, where=shapes,
                because="a label is the index of the largest value along the last axis",
                hint="leave `labels` out: then outputs are compared with the original's",
            )  # fmt: skip

    def of(self, model: Model) -> Quality:
        """Quality of a model with the original's outputs."""
        found = self._run(model, self._samples)
        errors = [
            float(np.sum(np.square(found[name] - y), dtype=np.float64)) / self._scale[name]
            for name, y in self._expected.items()
            if name in found and found[name].shape == y.shape
        ]
        chosen, wanted = self._choice(found), self._choice(self._expected)
        agreement = accuracy = None
        if chosen is not None and wanted is not None and chosen.shape == wanted.shape:
            agreement = float(np.mean(chosen == wanted))
        if self._labels is not None:
            answers = self._choice(found, self._labels.shape)
            accuracy = None if answers is None else float(np.mean(answers == self._labels))
        error = float(np.mean(errors)) if errors else np.nan
        known = error if np.isfinite(error) else None
        return Quality(len(self._samples), accuracy, agreement, known)

    @staticmethod
    def _choice(outputs: Mapping[str, Array], shape: Sequence[int] | None = None) -> Array | None:
        """Index of the largest value of the first output that has several along its last axis."""
        for y in outputs.values():
            if y.ndim > 1 and y.shape[-1] > 1 and (shape is None or y.shape[:-1] == tuple(shape)):
                return np.asarray(y.argmax(axis=-1))
        return None

    @staticmethod
    def _run(model: Model, samples: Samples) -> dict[str, npt.NDArray[np.float32]]:
        """All outputs that are measures, samples along the first axis."""
        runner = session(model, optimize=True)
        pieces: dict[str, list[npt.NDArray[np.float32]]] = {}
        for batch in samples.batches(_BATCH):
            for name, y in run(runner, batch).items():
                if isinstance(y, np.ndarray) and y.dtype.kind == "f":
                    pieces.setdefault(name, []).append(np.atleast_1d(y).astype(np.float32))
        return {
            n: np.concatenate(found) for n, found in pieces.items() if len({y.shape[1:] for y in found}) == 1
        }


def _scale(y: npt.NDArray[np.float32]) -> float:
    """The spread over the samples; of an output without any, its size."""
    spread = float(np.sum(np.square(y - y.mean(axis=0)), dtype=np.float64))
    size = float(np.sum(np.square(y), dtype=np.float64))
    return max(spread if spread > 1e-9 * size else size, 1e-12)
