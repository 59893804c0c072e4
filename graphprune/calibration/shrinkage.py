"""Covariances from few rows: what looks like a dependence may be chance.

With fewer rows than features some features are linear combinations of others on these rows, and on no others.
So correlations are shrunk towards zero as far as the number of rows calls for: the oracle approximating
shrinkage of Chen et al. 2010 (arXiv:0907.4698), with the variances as they are.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]


def shrunk(covariance: Matrix, count: int) -> Matrix:
    """A covariance ``[d, d]`` from ``count`` rows, with its correlations shrunk."""
    d = len(covariance)
    variances = np.diag(covariance)
    scale = np.sqrt(np.where(variances > 0, variances, 1.0))
    squared = float(np.sum(np.square(covariance / scale[:, None] / scale[None, :])))
    spread = (count + 1 - 2 / d) * (squared - d)
    share = 1.0 if spread <= 0 else min(1.0, ((1 - 2 / d) * squared + d * d) / spread)
    return np.asarray((1.0 - share) * covariance + share * np.diag(variances))
