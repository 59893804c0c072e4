"""Which output do labels belong to?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from graphprune.converters.recovery.outputs import PROBABILITIES, Kind

from graphprune.errors import CalibrationError

Array = npt.NDArray[np.generic]


def labelled_output(
    labels: Array | None, answers: Mapping[str, Array], kinds: Mapping[str, Kind]
) -> tuple[str, int] | None:
    """The first output with one class axis more than the labels have axes, and that axis.

    Args:
        labels: of some samples; negative ones are none.
        answers: the reference's outputs for the same samples.
        kinds: of the outputs.

    Raises:
        CalibrationError: there are labels, and they are no classes of any output.
    """
    if labels is None:
        return None
    shapes = {name: answers[name].shape for name in kinds}
    if labels.dtype.kind in "iu":
        for name, shape in shapes.items():
            if kinds[name].name == PROBABILITIES:
                continue
            for axis in (len(shape) - 1, 1):
                rest = shape[:axis] + shape[axis + 1 :]
                if len(shape) > 1 and rest == labels.shape and labels.max(initial=0) < shape[axis]:
                    return name, axis
    message = "the labels are no classes of any output"
    listed = ", ".join(f"'{name}' {list(shape)}" for name, shape in shapes.items())
    because = (
        f"labels {labels.dtype.name}{list(labels.shape)} up to {labels.max(initial=0)}; outputs {listed}"
    )
    hint = "whole numbers, one per row of logits (negative: none), or data without labels"
    raise CalibrationError(message, because=because, hint=hint)
