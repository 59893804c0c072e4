"""Weights times activations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from graphprune.passes.criteria.readers import Reader, sum_over_readers

from graphprune.calibration.evidence import Evidence


@dataclass(frozen=True)
class Wanda:
    """Wanda (Sun et al. 2024), structured as in FLAP's baseline Wanda-sp (An et al. 2024).

    ``score(u) = sum over the layers that read u, over its features j: ‖x_j‖ sum_o |W_jo|``, with the root
    mean square for the norm; relative to the root of the energy of what the layer's output becomes part of.

    Attributes:
        additive: the scores only rank; they estimate no error.
    """

    additive: bool = False

    def __call__(self, evidence: Evidence) -> npt.NDArray[np.float64]:
        """Scores ``[len(algebra)]``."""
        return sum_over_readers(evidence, _judge)


def _judge(reader: Reader) -> npt.NDArray[np.float64]:
    features = np.sqrt(reader.power) * reader.outgoing(1)
    return np.asarray(reader.of_units(features) * np.sqrt(reader.scale))
