"""First and second order expansions of the loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from graphprune.passes.criteria.gradients import UnitSums, batch_size, gradients_of

from graphprune.calibration.evidence import Evidence

Scores = npt.NDArray[np.float64]
#: Samples with labels are differentiated one by one, and more of them say little more.
SINGLE_SAMPLES = 256


@dataclass(frozen=True)
class Taylor:
    """Taylor (Molchanov et al. 2019, "Importance estimation for neural network pruning").

    ``score(u) = mean over batches of (sum over member slices of w * dL/dw)^2``: the squared change of the
    loss that the unit's removal makes, to first order. Without labels, of all outputs (see
    :mod:`graphprune.converters.torch_graph.objective`).

    Attributes:
        seed: of the random readings of outputs without labels.
        additive: the scores only rank.
    """

    seed: int = 0
    additive: bool = False

    def __call__(self, evidence: Evidence) -> Scores:
        """Scores ``[len(algebra)]``.

        Raises:
            ModelError: torch is missing or can't run the model, or a weight or gradient is not finite.
            CalibrationError: there are labels that are no classes of an output.
        """
        gradients = gradients_of(evidence, self.seed)
        sums = UnitSums(evidence.graph, gradients.module)
        squares = [np.square(sums(part)) for part in gradients.products(batch_size(evidence))]
        return np.asarray(np.mean(squares, axis=0))


@dataclass(frozen=True)
class Fisher:
    """Optimal brain damage (LeCun et al. 1990) with the diagonal of the Fisher information for the Hessian.

    ``score(u) = 1/2 sum over member slices of w^2 E_n[g_n^2]``, with g_n the gradient of a single sample.
    With labels that is the empirical Fisher information, one sample after the other; without them, that of
    the outputs under unit noise, for which whole batches of independent random readings do.

    Attributes:
        seed: of the random readings of outputs without labels.
        additive: a score is the rise of the loss, to second order and without products of weights.
    """

    seed: int = 0
    additive: bool = True

    def __call__(self, evidence: Evidence) -> Scores:
        """Scores ``[len(algebra)]``.

        Raises:
            ModelError: torch is missing or can't run the model, or a weight or gradient is not finite.
            CalibrationError: there are labels that are no classes of an output.
        """
        gradients = gradients_of(evidence, self.seed)
        is_labelled = evidence.samples.labels is not None
        parts = (
            gradients.products(1, SINGLE_SAMPLES) if is_labelled else gradients.products(batch_size(evidence))
        )
        total: dict[str, npt.NDArray[np.float64]] = {}
        count = 0
        for arrays in parts:
            count += 1
            for key, array in arrays.items():
                square = np.square(array, dtype=np.float64)
                if key in total:
                    total[key] += square
                else:
                    total[key] = square
        return np.asarray(0.5 * UnitSums(evidence.graph, gradients.module)(total) / count)
