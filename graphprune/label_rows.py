"""Operations on rows of unit ids: ``[n, k]`` arrays padded with 0, "no unit"."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int32]
#: Rows of so few units are compared column by column.
_FEW = 4


def compact(labels: Labels) -> Labels:
    """Units to the left within each row (order kept), empty columns dropped."""
    width = labels.shape[1]
    if width <= 1:
        return labels if np.count_nonzero(labels) else labels[:, :0]
    if width > _FEW:
        order = np.argsort(labels == 0, axis=1, kind="stable")
        labels = np.take_along_axis(labels, order, axis=1)
    else:
        labels = _shifted(labels)
    used = labels.any(axis=0)
    return labels if used.all() else labels[:, used]


def _shifted(labels: Labels) -> Labels:
    """Gaps move right, from column to column."""
    for last in range(labels.shape[1] - 1, 0, -1):
        for column in range(last):
            left, right = labels[:, column], labels[:, column + 1]
            gap = (left == 0) & (right != 0)
            if gap.any():
                labels = labels.copy()
                labels[gap, column], labels[gap, column + 1] = right[gap], 0
    return labels


def without_repetitions(labels: Labels) -> Labels:
    """0 in place of a unit that stands further left in its row already."""
    if labels.shape[1] > _FEW:
        order = np.argsort(labels, axis=1, kind="stable")
        ascending = np.take_along_axis(labels, order, axis=1)
        again = np.zeros(labels.shape, bool)
        np.put_along_axis(again, order[:, 1:], ascending[:, 1:] == ascending[:, :-1], axis=1)
        return np.where(again, 0, labels)
    for column in range(1, labels.shape[1]):
        again = (labels[:, :column] == labels[:, column : column + 1]).any(axis=1) & (labels[:, column] > 0)
        if again.any():
            labels = labels.copy()
            labels[again, column] = 0
    return labels


def differences(left: Labels, right: Labels) -> tuple[Labels, Labels, npt.NDArray[np.bool_]]:
    """What each row has that the same row of the other lacks, and whether they share a unit."""
    left, right = left.copy(), right.copy()
    shared = np.zeros(len(left), bool)
    for i in range(left.shape[1]):
        for j in range(right.shape[1]):
            both = (left[:, i] == right[:, j]) & (left[:, i] > 0)
            if both.any():
                left[both, i] = 0
                right[both, j] = 0
                shared |= both
    return compact(left), compact(right), shared


def widen(labels: Labels, width: int) -> Labels:
    """Empty columns added, up to ``width``."""
    have = labels.shape[1]
    if width <= have:
        return labels
    wide = np.zeros((len(labels), width), np.int32)
    wide[:, :have] = labels
    return wide
