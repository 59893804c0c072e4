"""What kind of numbers an output holds, told from the reference's answers; how far two answers are apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]
#: Guesses that are spread over all classes, beyond this share of the greatest entropy, are none.
_SPREAD = 0.75
#: Logits are seldom further than this above their mean.
_HIGHEST = 60.0
#: Rows that are looked at.
_ROWS = 4096
LOGITS, PROBABILITIES, VALUES = "logits", "probabilities", "values"


@dataclass(frozen=True)
class Kind:
    """What is known of an output.

    Attributes:
        name: ``logits``, ``probabilities`` or ``values``.
        axis: of the classes, where there are some.
        scale: mean square of the reference's numbers about their mean over samples; errors are divided by it.
    """

    name: str
    axis: int
    scale: float


def kind_of(answers: Array, wanted: str) -> Kind:
    """The kind of an output.

    Args:
        answers: the reference's, for some samples (the first axis).
        wanted: the option ``loss``: ``kl`` takes all outputs with two classes or more for logits,
            ``error`` none.
    """
    numbers = answers.astype(np.float64)
    about = numbers.mean(axis=0, keepdims=True) if len(numbers) > 1 else 0.0
    scale = float(np.mean((numbers - about) ** 2)) if numbers.size else 0.0
    if scale <= 0:  # the same for all samples
        scale = float(np.mean(numbers**2)) if numbers.size else 0.0
    scale = scale or 1.0
    axis = 1 if numbers.ndim >= 4 else numbers.ndim - 1
    if wanted == "error" or numbers.ndim < 2 or numbers.shape[axis] < 2:
        return Kind(VALUES, axis, scale)
    rows = np.moveaxis(numbers, axis, -1).reshape(-1, numbers.shape[axis])
    rows = rows[:: max(1, len(rows) // _ROWS)]
    if (rows >= 0).all() and np.allclose(rows.sum(axis=1), 1, atol=1e-2):
        return Kind(PROBABILITIES, axis, scale)
    return Kind(LOGITS if wanted == "kl" or _are_logits(rows) else VALUES, axis, scale)


def _are_logits(rows: Floats) -> bool:
    """Do the softmaxes of the rows guess something, and not always the same?"""
    above = rows.max(axis=1) - rows.mean(axis=1)
    guesses = np.unique(rows.argmax(axis=1))
    if not 0 < above.mean() < _HIGHEST or len(guesses) < 2:
        return False
    return bool(entropy(rows).mean() < _SPREAD * np.log(rows.shape[1]))


def entropy(rows: Floats) -> Floats:
    """Of the softmax of each row, in nats."""
    shifted = rows - rows.max(axis=1, keepdims=True)
    weights = np.exp(shifted)
    total = weights.sum(axis=1, keepdims=True)
    found: Floats = (np.log(total) - (weights * shifted).sum(axis=1, keepdims=True) / total)[:, 0]
    return found


@dataclass(frozen=True)
class Standing:
    """How a model does on the samples that are held out.

    Attributes:
        error: relative squared error by output: of the differences from the reference's, against how much
            these vary.
        agreement: by output with classes: how often its first choice is the reference's.
        accuracy: how often the first choice is the label's, if there are labels.
    """

    error: dict[str, float]
    agreement: dict[str, float]
    accuracy: float | None = None


class Tally:
    """Sums over batches that make a :class:`Standing`."""

    def __init__(self, kinds: Mapping[str, Kind], labelled: tuple[str, int] | None) -> None:
        self._kinds, self._labelled = kinds, labelled
        self._squares = dict.fromkeys(kinds, 0.0)
        self._counts = dict.fromkeys(kinds, 0)
        self._same: dict[str, list[float]] = {n: [0, 0] for n, k in kinds.items() if k.name != VALUES}
        self._right = [0, 0]

    def add(
        self,
        expected: Mapping[str, Array],
        found: Mapping[str, Array],
        mask: npt.NDArray[np.bool_] | None,
        labels: Array | None,
    ) -> None:
        """One batch; positions outside ``mask`` (its first axes) don't count."""
        for name, kind in self._kinds.items():
            a, b = expected[name].astype(np.float64), found[name].astype(np.float64)
            counts = mask if mask is not None and a.shape[: mask.ndim] == mask.shape else None
            squares = (a - b) ** 2
            if counts is not None:
                squares = squares[counts]
            self._squares[name] += float(squares.sum())
            self._counts[name] += squares.size
            if name in self._same:
                same = a.argmax(axis=kind.axis) == b.argmax(axis=kind.axis)
                if counts is not None and same.shape[: counts.ndim] == counts.shape:
                    same = same[counts]
                self._same[name][0] += int(same.sum())
                self._same[name][1] += same.size
        if self._labelled is not None and labels is not None:
            name, axis = self._labelled
            known = labels.astype(np.int64) >= 0
            self._right[0] += int((found[name].argmax(axis=axis) == labels)[known].sum())
            self._right[1] += int(known.sum())

    def standing(self) -> Standing:
        """Of all batches."""
        error = {
            name: self._squares[name] / max(self._counts[name], 1) / kind.scale
            for name, kind in self._kinds.items()
        }
        agreement = {name: same / max(count, 1) for name, (same, count) in self._same.items()}
        right, known = self._right
        return Standing(error, agreement, right / known if known else None)
