"""Samples for a model whose user has none.

Inputs that look like pictures get pictures, in the range that the model seems to expect; indices of a table
are drawn, and rewritten by the model itself where it predicts the next one; masks are ones; what is left
is standard normal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.calibration.hidden_batch import as_run
from graphprune.calibration.images import pictures
from graphprune.calibration.input_range import BYTES, RANGES, InputRange, best_range
from graphprune.calibration.own_text import rewritten
from graphprune.calibration.sample_axes import SampleAxes
from graphprune.calibration.samples import Samples
from graphprune.model import Model
from graphprune.sample_inputs import sample_inputs
from graphprune.shapes.sizes import Interface
from graphprune.shapes.trace import trace

Array = npt.NDArray[np.generic]
_PROBES = 16
_LEAST_SIDE = 8


def synthetic_samples(
    model: Model, dims: Mapping[str, int] | None = None, *, count: int = 512, seed: int = 0
) -> Samples:
    """Made-up samples, the same for the same seed.

    Args:
        model: whose inputs they are.
        dims: sizes for symbolic dims; others get the usual ones (length 128, sides 224).
        count: how many; more where a batch has a fixed size.
        seed: of everything random.
    """
    axes = SampleAxes.of(model)
    rng = np.random.default_rng(seed)
    sizes = trace(model, dims, only_nominal=True).nominal_dims
    if not axes.counted:
        runs = [sample_inputs(model, sizes, rng) for _ in range(count)]
        return Samples({name: np.stack([r[name] for r in runs]) for name in axes.inputs}, whole=True)
    least = axes.size or 1
    count = -(-count // least) * least
    shapes = Interface(model.ir).shapes(sizes)
    one = sample_inputs(model, sizes, rng)
    shared = frozenset(axes.inputs) - axes.counted
    feeds = {name: array for name, array in one.items() if name in shared}
    drawn: dict[str, tuple[npt.NDArray[np.float32], bool]] = {}
    for name in (name for name in one if name in axes.counted):
        value, shape = axes.inputs[name], (count, *shapes[name][1:])
        layout = _picture_layout(value, shape)
        if layout is not None:
            channels, height, width = (shape[axis] for axis in layout)
            drawn[name] = (pictures(count, channels, height, width, rng), layout[0] == 3)
        else:
            feeds[name] = _drawn(model, name, sizes, shape, rng)
    samples = Samples(feeds, None, shared, axes.size)
    if drawn:
        return _with_pictures(model, samples, drawn)
    samples = as_run(model, samples)
    return replace(samples, feeds=rewritten(model, samples, rng))


def _drawn(
    model: Model, name: str, sizes: Mapping[str, int], shape: tuple[int, ...], rng: np.random.Generator
) -> Array:
    """Values of one input, sample after sample as `sample_inputs` draws them."""
    rows: list[Array] = []
    found = 0
    while found < shape[0]:
        rows.append(sample_inputs(model, sizes, rng)[name])
        found += len(rows[-1])
    return np.concatenate(rows)[: shape[0]]


def _picture_layout(value: ir.Value, shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Axes of channels, height and width, if this can be a picture."""
    is_byte = value.dtype == ir.DataType.UINT8
    if len(shape) != 4 or value.dtype is None or not (value.dtype.is_floating_point() or is_byte):
        return None
    for channel, height, width in ((1, 2, 3), (3, 1, 2)):
        if shape[channel] in (1, 3, 4) and min(shape[height], shape[width]) >= _LEAST_SIDE:
            return channel, height, width
    return None


def _with_pictures(
    model: Model, samples: Samples, drawn: Mapping[str, tuple[npt.NDArray[np.float32], bool]]
) -> Samples:
    """The samples with pictures (and whether their channels come last), in the range that suits the model."""
    dtypes = {v.name or "": v.dtype.numpy() for v in model.ir.graph.inputs if v.dtype is not None}

    def placed(scale: InputRange, count: int | None) -> Samples:
        feeds = {k: v if k in samples.shared else v[:count] for k, v in samples.feeds.items()}
        for name, (array, channels_last) in drawn.items():
            scaled = (BYTES if dtypes[name] == np.uint8 else scale).of(array[:count])
            turned = np.moveaxis(scaled, 1, -1) if channels_last else scaled
            feeds[name] = np.ascontiguousarray(turned).astype(dtypes[name], copy=False)
        return replace(samples, feeds=feeds)

    least = samples.size or 1
    few = -(-_PROBES // least) * least
    samples = replace(samples, size=as_run(model, placed(BYTES, few)).size)
    probes = {scale: list(placed(scale, few).batches(_PROBES)) for scale in RANGES}
    return placed(best_range(model, next(iter(drawn)), probes), None)
