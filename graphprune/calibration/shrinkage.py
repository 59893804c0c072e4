"""Covariances from few rows: what looks like a dependence, or like a dead feature, may be chance.

With fewer rows than features some features are linear combinations of others on these rows, and on no
others; rows of one sample resemble each other, so that they count as fewer than they are; and a feature that
never spoke may speak on the next sample.  So correlations are shrunk towards zero, and variances towards
their mean.  Rows that were held out decide how far: the shares under which a normal distribution of that
covariance finds them likeliest.  Without such rows correlations alone are shrunk, as far as the number of
rows calls for: the oracle approximating shrinkage of Chen et al. 2010 (arXiv:0907.4698).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
#: Shares that are tried.
VARIANCES = (0.0, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0)
CORRELATIONS = (1e-4, 1e-3, 3e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)
#: From here on the eigenvalues cost more than they are worth.
_LARGE = 3000
#: Variances are at least this part of their mean where their logarithm is taken.
_LEAST = 1e-9


@dataclass(frozen=True)
class Shrinkage:
    """How far covariances of one layer are shrunk.

    Attributes:
        correlations: share of zero in the correlations; None: what the number of rows calls for.
        variances: share of their mean in the variances.
    """

    correlations: float | None = None
    variances: float = 0.0

    def __call__(self, covariance: Matrix, count: int) -> Matrix:
        """A covariance ``[d, d]`` from ``count`` rows, shrunk."""
        share = oracle_share(covariance, count) if self.correlations is None else self.correlations
        own = np.diag(covariance)
        new = (1.0 - self.variances) * own + self.variances * own.mean()
        scale = np.sqrt(np.divide(new, own, where=own > 0, out=np.zeros_like(own)))
        spread = covariance * scale[:, None] * scale[None, :]
        np.fill_diagonal(spread, new)
        return np.asarray((1.0 - share) * spread + share * np.diag(new))


def oracle_share(covariance: Matrix, count: int) -> float:
    """Share of zero in the correlations of ``count`` independent rows."""
    d = len(covariance)
    variances = np.diag(covariance)
    scale = np.sqrt(np.where(variances > 0, variances, 1.0))
    squared = float(np.sum(np.square(covariance / scale[:, None] / scale[None, :])))
    spread = (count + 1 - 2 / d) * (squared - d)
    return 1.0 if spread <= 0 else min(1.0, ((1 - 2 / d) * squared + d * d) / spread)


def likeliest(covariance: Matrix, held_out: Matrix) -> Shrinkage:
    """The shrinkage under which rows that were held out are likeliest.

    Args:
        covariance: ``[groups, d, d]``.
        held_out: the same of rows that ``covariance`` knows nothing of, about the same means.
    """
    d = covariance.shape[-1]
    own = np.einsum("gdd->gd", covariance).clip(min=0.0)
    mean = own.mean(axis=1, keepdims=True)
    if d > _LARGE or not (mean > 0).all() or not np.isfinite(held_out).all():
        return Shrinkage()
    scale = np.sqrt(np.where(own > 0, own, np.inf))
    correlation = covariance / scale[:, :, None] / scale[:, None, :]
    correlation[:, np.arange(d), np.arange(d)] = 1.0
    values, vectors = np.linalg.eigh(correlation)
    values = values.clip(min=0.0)
    best, found = np.inf, Shrinkage()
    for variances in VARIANCES:
        new = ((1.0 - variances) * own + variances * mean).clip(min=_LEAST * mean)
        root = np.sqrt(new)
        scaled = held_out / root[:, :, None] / root[:, None, :]
        turned = np.einsum("gij,gij->gj", vectors, scaled @ vectors)
        for share in CORRELATIONS:
            spread = (1.0 - share) * values + share
            surprise = float(np.log(new).sum() + np.log(spread).sum() + (turned / spread).sum())
            if surprise < best:
                best, found = surprise, Shrinkage(share, variances)
    return found
