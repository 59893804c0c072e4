"""Scales of normalisations as importance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from graphprune.passes.criteria.magnitude import Magnitude
from graphprune.passes.criteria.members import finite_numbers_of, slices_of

from graphprune.calibration.evidence import Evidence

#: Where normalisations take the factor of each channel: (operator, input).
SCALES = {
    ("BatchNormalization", 1), ("InstanceNormalization", 1), ("GroupNormalization", 1),
    ("LayerNormalization", 1), ("RMSNormalization", 1), ("SimplifiedLayerNormalization", 1),
    ("SkipLayerNormalization", 2), ("SkipSimplifiedLayerNormalization", 2),
}  # fmt: skip


@dataclass(frozen=True)
class NormScale:
    """Network slimming (Liu et al. 2017): ``|gamma|`` of the normalisations that scale a unit, added up.

    A group that no normalisation scales is ranked by the L2 norm of its weights; where several members
    normalise a group, each is taken relative to its mean, so that one of large scale does not drown the rest.

    Attributes:
        additive: the scores only rank; they estimate no error.
    """

    additive: bool = False

    def __call__(self, evidence: Evidence) -> npt.NDArray[np.float64]:
        """Scores ``[len(algebra)]``.

        Raises:
            ModelError: a weight is NaN.
        """
        graph = evidence.graph
        total, is_scaled = np.zeros(len(graph.analysis.algebra)), np.zeros(len(graph.analysis.algebra), bool)
        for part in slices_of(graph):
            if (part.use.node.op_type, part.use.index) not in SCALES:
                continue
            gamma = np.abs(finite_numbers_of(part.use)).astype(np.float64)
            mean = float(gamma.mean()) if gamma.size else 0.0
            for d, rows in part.rows.items():
                local = gamma.sum(axis=tuple(i for i in range(gamma.ndim) if i != d)) / (mean or 1.0)
                for column in rows.T:
                    np.add.at(total, column, local)
                is_scaled[rows] = True
        scores = Magnitude(2)(evidence)
        for group in graph.groups:
            if is_scaled[group.units].all():
                scores[group.units] = total[group.units]
        scores[0] = 0.0
        return scores
