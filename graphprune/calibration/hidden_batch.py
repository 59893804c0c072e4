"""Models that take one sample at a time, though their inputs say that any number will do.

An exporter may write the batch that it saw, one sample, into a Reshape further behind.  Two samples then
fail, or, where the rest of the shape is open, become one long sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort

from graphprune.calibration.by_parts import values_of
from graphprune.calibration.pieces import exposing
from graphprune.calibration.samples import Samples
from graphprune.errors import ModelError
from graphprune.model import Model
from graphprune.parts import is_big

#: All outputs, batch by batch.
Run = Callable[["Sequence[Feeds]"], "list[list[object]]"]
Array = npt.NDArray[np.generic]
Feeds = Mapping[str, Array]
#: Samples that change more than this by another's company, relatively, are not run together.
_OTHER = 0.1


def as_run(
    model: Model, samples: Samples, threads: int = 0, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> Samples:
    """The samples as the model takes them: two are run together and one alone, to see if that is the same.

    Args:
        model: the model.
        samples: for its inputs.
        threads: of onnxruntime; 0 leaves it to onnxruntime.
        shapes: of the model's values, for a large one, which is run in parts.
    """
    if samples.whole or samples.size is not None or len(samples) < 2:
        return samples
    made = [v for v in model.ir.graph.outputs if v.producer() is not None]
    one, two = next(samples.batches(1)), next(samples.batches(2))
    run = _in_parts(model, made, threads, shapes or {}) if is_big(model) else _whole(model, made, threads)
    try:
        (alone,) = run([one])
    except ModelError:  # there is nothing to compare with; whoever needs a run will say why it fails
        return samples
    try:
        (together,) = run([two])
    except ModelError:
        return replace(samples, size=1)
    return samples if _is_same(alone, together) else replace(samples, size=1)


def _whole(model: Model, made: Sequence[ir.Value], threads: int) -> Run:
    session: list[ort.InferenceSession] = []

    def run(batches: Sequence[Feeds]) -> list[list[object]]:
        if not session:
            session.append(exposing(model, made, threads))
        return [_outputs(session[0], batch) for batch in batches]

    return run


def _in_parts(
    model: Model, made: Sequence[ir.Value], threads: int, shapes: Mapping[str, tuple[int, ...]]
) -> Run:
    return lambda batches: [list(found) for found in values_of(model, shapes, made, batches, threads)]


def _outputs(session: ort.InferenceSession, feeds: Feeds) -> list[object]:
    read = {value.name for value in session.get_inputs()}
    return list(session.run(None, {name: array for name, array in feeds.items() if name in read}))


def _is_same(alone: list[object], together: list[object]) -> bool:
    """Is what the model makes of the first sample the same in both runs, and are there two of something?"""
    changed, counted = False, False
    for one, two in zip(alone, together, strict=True):
        if not isinstance(one, np.ndarray) or not isinstance(two, np.ndarray) or one.ndim != two.ndim:
            continue
        axes = [d for d, (a, b) in enumerate(zip(one.shape, two.shape, strict=True)) if a != b]
        changed |= bool(axes)
        if len(axes) != 1 or two.shape[axes[0]] != 2 * one.shape[axes[0]]:
            continue
        counted |= axes[0] == 0
        if one.dtype.kind == "f" and _apart(one, np.split(two, 2, axis=axes[0])[0]) > _OTHER:
            return False
    return counted or not changed


def _apart(expected: Array, found: Array) -> float:
    known = np.isfinite(expected) & np.isfinite(found)
    a, b = expected[known].astype(np.float64), found[known].astype(np.float64)
    return float(np.linalg.norm(a - b) / max(float(np.linalg.norm(a)), np.finfo(float).tiny))
