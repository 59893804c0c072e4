"""Which multiples of a width a device likes, read off a measured curve.

A kernel that works in blocks takes as long for 97 channels as for 112. A kernel that is chosen only for
multiples of four makes every other width dear. So a curve is modelled as

    t(w) = a + b * ceil(w / step) * step + c * [w is no multiple of need]

with ``step`` and ``need`` from the powers of two. All pairs are fitted by least squares with ``b, c >= 0``;
that of the least Bayesian information criterion explains the curve best: what is in the model has to pay for
itself. Points far from it (an interrupted run) are left out. The preferred multiple is the larger of the two,
if widths that are multiples of it are cheaper per channel than others by a share that is worth it, and if the
steps explain a good part of what a straight line does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: Blocks that kernels are known to work in.
STEPS = (1, 2, 4, 8, 16, 32, 64)
#: Savings below this are not worth a coarser choice of widths.
WORTH = 0.02
#: Steps have to explain so much of what a straight line leaves: waves of noise look like steps as well.
SHARE = 0.25
#: Multiples of the typical deviation beyond which a point is an accident.
_FAR = 6.0
_ROUNDS = 3
_LEAST = 3

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Steps:
    """What explains a curve.

    Attributes:
        multiple: preferred multiple of the width; 1 if there is none.
        step: widths are rounded up to it.
        need: other widths than its multiples cost extra.
        penalty: how much extra, as a part of the mean time.
        gain: how much less a channel costs at multiples of ``multiple`` than on average.
        explained: part of the curve's variance that the model explains.
        left_out: points that were taken for accidents.
    """

    multiple: int
    step: int
    need: int
    penalty: float
    gain: float
    explained: float
    left_out: int


def find_steps(widths: Sequence[int], milliseconds: Sequence[float]) -> Steps:
    """What explains a curve best.

    Args:
        widths: at least 32 different ones, neighbouring.
        milliseconds: for each.
    """
    w, t = np.asarray(widths, np.int64), np.asarray(milliseconds, np.float64)
    # A block that only one width or two fill can't be told from an accident.
    steps = [step for step in STEPS if np.count_nonzero(w % step == 0) >= _LEAST]
    good = np.ones(len(w), bool)
    best = _fit(w, t, good, 1, 1)
    for _ in range(_ROUNDS):
        fits = [_fit(w, t, good, step, need) for step in steps for need in steps]
        best = min(fits, key=lambda fit: fit.criterion)
        away = np.abs(t - best.line)
        typical = float(np.median(away[good])) or 1e-12
        # The median deviation of a normal distribution is two thirds of its standard deviation.
        now = away <= _FAR * 1.4826 * typical
        if (now == good).all():
            break
        good = now
    spread = float(((t[good] - t[good].mean()) ** 2).sum())
    rest = float(((t[good] - best.line[good]) ** 2).sum())
    multiple = max(best.step, best.need)
    gain = _gain(w, best.line, multiple)
    if gain < WORTH:
        multiple = min(best.step, best.need)
        gain = _gain(w, best.line, multiple)
    straight = _fit(w, t, good, 1, 1).line
    bent = float(((t[good] - straight[good]) ** 2).sum())
    if gain < WORTH or rest > (1 - SHARE) * bent:
        multiple, gain = 1, 0.0
    return Steps(
        multiple=multiple,
        step=best.step,
        need=best.need,
        penalty=round(best.penalty / float(t[good].mean()), 4),
        gain=round(gain, 4),
        explained=round(1 - rest / spread, 4) if spread > 0 else 1.0,
        left_out=int((~good).sum()),
    )


@dataclass(frozen=True)
class _Fit:
    step: int
    need: int
    line: Numbers
    penalty: float
    criterion: float


def _fit(w: npt.NDArray[np.int64], t: Numbers, good: npt.NDArray[np.bool_], step: int, need: int) -> _Fit:
    """Least squares with a slope and a penalty that are not negative."""
    up = (-(-w // step) * step).astype(np.float64)
    misses = (w % need != 0).astype(np.float64)
    columns = [np.ones(len(w)), up, misses] if need > 1 else [np.ones(len(w)), up]
    while True:
        matrix = np.stack(columns, axis=1)
        solution = np.linalg.lstsq(matrix[good], t[good], rcond=None)[0]
        if len(columns) == 3 and solution[2] < 0:
            columns.pop()
        elif len(columns) > 1 and solution[1] < 0:
            columns.pop(1)
        else:
            break
    line = matrix @ solution
    n = int(good.sum())
    rest = max(float(((t[good] - line[good]) ** 2).sum()), 1e-18)
    numbers = len(columns) + (step > 1) + (need > 1)  # which block it is was chosen as well
    penalty = float(solution[2]) if len(columns) == 3 else 0.0
    return _Fit(step, need, line, penalty, n * float(np.log(rest / n)) + numbers * float(np.log(n)))


def _gain(w: npt.NDArray[np.int64], line: Numbers, multiple: int) -> float:
    here = w % multiple == 0
    per_channel = line / w
    if multiple == 1 or not here.any():
        return 0.0
    return float(1 - per_channel[here].mean() / per_channel.mean())
