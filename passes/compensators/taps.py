"""How a layer reads rows of a hidden tensor: as windows of ``w`` taps, in groups of channels.

Weights are ``[groups, w * k / groups, o / groups]``, features ordered tap by tap.  With one group windows are
put side by side and multiplied once; with many (a depthwise convolution) that would move more than it
multiplies, so it goes tap by tap.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Index = npt.NDArray[np.int64]


def windows(values: Array, reads: Index, groups: int) -> Array:
    """``[groups, n, w * k / groups]``.

    Args:
        values: ``[rows, k]``.
        reads: ``[n, w]`` rows; the number of rows for padding.
        groups: of the channels.
    """
    n, w = reads.shape
    taken = values[:, None] if w == 1 else np.take(_padded(values), reads, axis=0, mode="clip")
    if groups == 1:
        return np.asarray(taken.reshape(1, n, -1))
    turned = taken.reshape(n, w, groups, -1).transpose(2, 0, 1, 3)
    return np.ascontiguousarray(turned).reshape(groups, n, -1)


def forward(values: Array, reads: Index, weights: Array) -> Array:
    """What the layer makes of these rows, without its bias, ``[n, o]``."""
    groups, w = len(weights), reads.shape[1]
    if groups == 1:
        return np.asarray(windows(values, reads, 1)[0] @ weights[0])
    padded = values if w == 1 else _padded(values)
    by_tap = weights.reshape(groups, w, -1, weights.shape[2])
    found = np.zeros((len(reads), groups, weights.shape[2]), np.float32)
    for tap in range(w):
        taken = (padded if w == 1 else np.take(padded, reads[:, tap], axis=0, mode="clip")).reshape(
            len(reads), groups, -1
        )
        found += _product(taken, by_tap[:, tap])
    return found.reshape(len(reads), -1)


def backward(rest: Array, reads: Index, weights: Array, rows: int) -> Array:
    """What each value of the hidden tensor is worth, ``[rows, k]``, for what is missing ``[n, o]``."""
    groups, (n, w) = len(weights), reads.shape
    by_tap = weights.reshape(groups, w, -1, weights.shape[2])
    by_group = rest.reshape(n, groups, -1)
    worth = np.zeros((rows + 1, groups * by_tap.shape[2]), np.float32)
    for tap in range(w):
        back = _product(by_group, by_tap[:, tap].transpose(0, 2, 1)).reshape(n, -1)
        if w == 1:
            return back
        worth[reads[:, tap]] += back  # a tap reads each row once
    return worth[:-1]


def _padded(values: Array) -> Array:
    return np.concatenate([values, np.zeros_like(values[:1])])


def _product(rows: Array, matrices: Array) -> Array:
    """``[n, groups, a]`` times ``[groups, a, b]``."""
    if len(matrices) == 1:
        return np.asarray((rows[:, 0] @ matrices[0])[:, None])
    if matrices.shape[1] == 1:
        return np.asarray(rows * matrices[:, 0])
    return np.asarray(np.matmul(rows.transpose(1, 0, 2), matrices).transpose(1, 0, 2))
