"""Which output do labels belong to?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from graphprune.converters.recovery.outputs import LOGITS, Kind

from graphprune.errors import CalibrationError

Array = npt.NDArray[np.generic]


def labelled_output(
    labels: Array | None, answers: Mapping[str, Array], kinds: Mapping[str, Kind]
) -> tuple[str, int] | None:
    """The output of logits with one class axis more than the labels have axes, and that axis.

    Args:
        labels: of some samples; negative ones are none.
        answers: the reference's outputs for the same samples.
        kinds: of the outputs.

    Raises:
        CalibrationError: there are labels, and they are classes of no output, or of several.
    """
    if labels is None:
        return None
    shapes = {name: answers[name].shape for name in kinds}
    fitting = fitting_axes({n: s for n, s in shapes.items() if kinds[n].name == LOGITS}, labels)
    if len(fitting) == 1:
        return next(iter(fitting.items()))
    message = "the labels are no classes of any output"
    hint = (
        "whole numbers, one per row of logits (negative: none), or data without labels; "
        "--loss kl if logits were taken for other values"
    )
    if fitting:
        message = "the labels may be classes of several outputs"
        hint = "a model and a reference with one of these outputs, or data without labels"
    listed = ", ".join(f"'{name}' {list(shape)} ({kinds[name].name})" for name, shape in shapes.items())
    because = (
        f"labels {labels.dtype.name}{list(labels.shape)} up to {labels.max(initial=0)}; outputs {listed}"
    )
    raise CalibrationError(message, because=because, hint=hint)


def fitting_axes(shapes: Mapping[str, Sequence[int]], labels: Array) -> dict[str, int]:
    """The outputs that have one class axis more than the labels have axes, by name, and that axis."""
    found: dict[str, int] = {}
    if labels.dtype.kind not in "iu":
        return found
    for name, shape in shapes.items():
        for axis in (len(shape) - 1, 1):
            rest = (*shape[:axis], *shape[axis + 1 :])
            if len(shape) > 1 and rest == labels.shape and labels.max(initial=0) < shape[axis]:
                found.setdefault(name, axis)
    return found
