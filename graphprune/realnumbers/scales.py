"""Scales for new numbers: where these no longer fit the old ones, or would be written finer under others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
#: Of the range that holds all numbers.  Where there are few steps, some numbers are better cut off.
_PARTS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6)
#: Other scales have to make the squared error smaller by this part: the old ones keep what has not changed.
_WORTH_IT = 0.02


def best_factors(
    numbers: Numbers,
    scales: Numbers,
    points: Numbers,
    which: npt.NDArray[np.int64],
    limits: tuple[int, int],
    rounded: Callable[[Numbers], Numbers],
) -> Numbers:
    """What to multiply each scale with.

    Args:
        numbers: to be written.
        scales: all old scales, flat.
        points: the zero point of each number.
        which: the scale of each number.
        limits: least and largest integer.
        rounded: numbers in the type of the scales.
    """
    low, high = limits
    flat, at, zero = numbers.ravel(), which.ravel(), points.ravel()
    ends = np.where(flat < 0, low - zero, high - zero)
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = np.where(ends != 0, flat / ends, 0.0)
    whole = np.zeros(len(scales))
    np.maximum.at(whole, at, needed)
    best, least = scales.copy(), _errors(flat, scales, zero, at, limits)
    least = least * (1.0 - _WORTH_IT)
    for part in _PARTS:
        tried = rounded(whole * part)
        tried = np.where(tried > 0, tried, scales)
        errors = _errors(flat, tried, zero, at, limits)
        better = errors < least
        best, least = np.where(better, tried, best), np.where(better, errors, least)
    return np.asarray(np.divide(best, scales, out=np.ones_like(best), where=scales != 0))


def _errors(
    flat: Numbers, scales: Numbers, zero: Numbers, at: npt.NDArray[np.int64], limits: tuple[int, int]
) -> Numbers:
    """Squared errors of what is written, added up for each scale."""
    own = scales[at]
    codes = np.clip(np.rint(np.divide(flat, own, out=np.zeros_like(flat), where=own != 0) + zero), *limits)
    return np.asarray(np.bincount(at, np.square((codes - zero) * own - flat), len(scales)), np.float64)
