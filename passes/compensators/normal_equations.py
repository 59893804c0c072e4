"""Least squares from sums alone: rows come and go, ``XᵀX`` and ``XᵀR`` stay.

The damping is the one that fits rows best that it was not fitted to: rows are summed up in two parts, each
damping is fitted on the first and judged on the second.  Rows that are held out are only judged by: what is
fitted to a row makes it a poor judge, also of the layers behind.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from graphprune.calibration.moments import gram
from graphprune.steady import product

Matrix = npt.NDArray[np.float64]
#: Relative to the mean of the diagonal of ``XᵀX``; the last stands for no change at all.
DAMPINGS = (*np.logspace(-7, 1, 17).tolist(), np.inf)
#: Relative to the mean square of what is rounded.
_ROUNDING = 1e-6
#: From here on the eigenvalues cost more than they are worth, and a fixed damping is used.
_LARGE = 3000


@dataclass
class Rows:
    """Sums over some rows: features ``x`` (``[groups, n, d]``) and what they should explain, ``r``."""

    count: int = 0
    xx: Matrix | float = 0.0
    xr: Matrix | float = 0.0
    x: Matrix | float = 0.0
    r: Matrix | float = 0.0
    rr: float = 0.0

    def add(self, x: npt.NDArray[np.float32], r: npt.NDArray[np.float32]) -> None:
        """More rows; those of a run that overflows say nothing."""
        with np.errstate(over="ignore", invalid="ignore"):
            xx, rr = gram(x), float(np.vdot(r, r))
            xr = np.stack([product(a.T, b) for a, b in zip(x, r, strict=True)])
            if not np.isfinite(xx.sum() + xr.sum() + rr):
                return
        self.count += x.shape[1]
        self.xx = self.xx + np.asarray(xx, np.float64)
        self.xr = self.xr + xr
        self.x = self.x + x.sum(axis=1, dtype=np.float64)
        self.r = self.r + r.sum(axis=1, dtype=np.float64)
        self.rr += rr

    def moments(self, *, centred: bool) -> tuple[Matrix, Matrix]:
        """``E[xxᵀ]`` and ``E[x rᵀ]``, about the means if a bias takes these."""
        n = max(self.count, 1)
        xx, xr = np.asarray(self.xx) / n, np.asarray(self.xr) / n
        if centred:
            x, r = np.asarray(self.x) / n, np.asarray(self.r) / n
            xx = xx - x[:, :, None] * x[:, None, :]
            xr = xr - x[:, :, None] * r[:, None, :]
        return xx, xr


@dataclass
class NormalEquations:
    """What changes of weight and bias explain the residuals of a layer best.

    Attributes:
        fitted: rows that the changes are fitted to.
        held_out: rows that choose the damping; where there are none, a fixed one is used.
    """

    fitted: Rows = field(default_factory=Rows)
    held_out: Rows = field(default_factory=Rows)

    def add(self, x: npt.NDArray[np.float32], r: npt.NDArray[np.float32], *, held_out: bool = False) -> None:
        """Rows of one batch."""
        (self.held_out if held_out else self.fitted).add(x, r)

    @property
    def is_empty(self) -> bool:
        """Is there no row?"""
        return not self.fitted.count

    def solve(self, *, centred: bool, damping: float | None = None) -> tuple[Matrix, Matrix, float]:
        """Change of the matrices ``[groups, d, o]`` and of the bias ``[groups, o]``, and the damping.

        Args:
            centred: is there a bias that may change?
            damping: None: the one that rows held out choose.
        """
        fitted = self.fitted
        xx, xr = fitted.moments(centred=centred)
        damping = self.damping(centred=centred) if damping is None else damping
        # Where means are large, what is left without them is partly rounding of single-precision products.
        means = np.square(np.asarray(fitted.x) / max(fitted.count, 1)).mean(axis=-1)
        least = means * (_ROUNDING if centred else 0.0) + np.finfo(float).tiny
        change = np.zeros_like(xr)
        if np.isfinite(damping):
            for g, matrix in enumerate(xx):
                d = len(matrix)
                loaded = matrix + np.eye(d) * (damping * max(float(np.trace(matrix)) / d, 0.0) + least[g])
                change[g] = np.linalg.solve(loaded, xr[g])
        n = max(fitted.count, 1)
        shift = np.asarray(fitted.r) / n - np.einsum("gd,gdo->go", np.asarray(fitted.x) / n, change)
        return change, shift if centred else np.zeros_like(shift), damping

    def damping(self, *, centred: bool) -> float:
        """The damping whose fit explains the rows that were held out best."""
        a, b = self.fitted, self.held_out
        if not a.count or not b.count:
            return 1e-2
        (xx, xr), (test_xx, test_xr) = a.moments(centred=centred), b.moments(centred=centred)
        if xx.shape[1] > _LARGE:
            return 1e-3
        errors = np.zeros(len(DAMPINGS))
        for g in range(len(xx)):
            values, vectors = np.linalg.eigh(xx[g])
            values = np.maximum(values, 0.0)
            turned, aim = vectors.T @ xr[g], vectors.T @ test_xr[g]
            spread = vectors.T @ test_xx[g] @ vectors
            mean = max(float(values.mean()), np.finfo(float).tiny)
            # Inputs that hardly vary: what is divided by next to nothing is no solution.
            with np.errstate(over="ignore", invalid="ignore"):
                for i, damping in enumerate(DAMPINGS[:-1]):
                    z = turned / (values + damping * mean)[:, None]
                    errors[i] += float(np.vdot(z, spread @ z) - 2 * np.vdot(z, aim))
        return float(DAMPINGS[int(np.argmin(np.where(np.isfinite(errors), errors, np.inf)))])
