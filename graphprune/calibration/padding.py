"""Padding: which positions of a sample are none, and batches without columns that are nothing else."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.calibration.samples import Samples
from graphprune.model import Model

Feeds = dict[str, npt.NDArray[np.generic]]


def padding_mask(batch: Mapping[str, npt.NDArray[np.generic]]) -> npt.NDArray[np.bool_] | None:
    """The input that marks padding: whole numbers 0 and 1, and another input is the same wherever it is 0."""
    for name, array in batch.items():
        if array.ndim != 2 or array.dtype.kind not in "iub" or not np.isin(array, (0, 1)).all():
            continue
        mask = array.astype(bool)
        # What stands at padded positions is one number, that of the padding token.
        partners = [
            k for k, v in batch.items()
            if k != name and v.shape == array.shape and len(np.unique(v[~mask])) == 1
        ]  # fmt: skip
        if partners and mask.any(axis=1).all() and not mask.all():
            return mask
    return None


def batches_of(samples: Samples, model: Model, size: int, seed: int) -> list[Feeds]:
    """Batches of samples; where the model takes any length, samples of about the same length go together.

    Columns at the end that are padding in the whole batch are left out, so that they cost nothing.
    """
    mask = padding_mask(samples.feeds) if not samples.shared and not samples.whole else None
    if mask is None or not _any_length(model, samples, mask.shape):
        return list(samples.batches(size))
    lengths = mask.shape[1] - np.argmax(mask[:, ::-1], axis=1)
    ordered = samples.pick(np.argsort(lengths, kind="stable"))
    found = []
    for batch in ordered.batches(3 * size):
        own = padding_mask(batch)
        longest = mask.shape[1] if own is None else int(np.flatnonzero(own.any(axis=0)).max()) + 1
        cut = {k: a[:, :longest] if a.shape[:2] == (len(a), mask.shape[1]) else a for k, a in batch.items()}
        found.append({k: np.ascontiguousarray(a) for k, a in cut.items()})
    # Whoever looks at the first few only shall see all lengths.
    order = np.random.default_rng(seed).permutation(len(found))
    return [found[i] for i in order]


def _any_length(model: Model, samples: Samples, shape: tuple[int, ...]) -> bool:
    """Is the second axis of all that is shaped like the mask free, and of nothing else?"""
    names: set[str] = set()
    for value in model.ir.graph.inputs:
        array = samples.feeds.get(value.name or "")
        if array is None or array.shape != shape or value.shape is None:
            return False
        dim = value.shape[1]
        if not isinstance(dim, ir.SymbolicDim) or dim.value is None:
            return False
        names.add(dim.value)
    for value in model.ir.graph.outputs:
        dims = value.shape.dims if value.shape is not None else [None]
        free = [d for d in list(dims)[1:] if not isinstance(d, int)]
        if free or value.shape is None:
            return False
    return len(names) == 1
