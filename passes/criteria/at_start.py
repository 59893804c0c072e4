"""Criteria that were made for networks before training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from graphprune.passes.criteria.gradients import (
    UnitSums,
    batch_size,
    gradients_of,
    require_numbers,
    require_torch,
    summed,
)

from graphprune.calibration.evidence import Evidence
from graphprune.sample_inputs import sample_inputs

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ConnectionSensitivity:
    """SNIP (Lee et al. 2019, "Single-shot network pruning based on connection sensitivity").

    ``score(u) = sum over member slices of |w * g|``, as a part of the sum over all weights, with g the
    gradient of all samples together.

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
        total = {k: np.abs(a) for k, a in summed(gradients.products(batch_size(evidence))).items()}
        whole = sum(float(a.sum(dtype=np.float64)) for a in total.values()) or 1.0
        return UnitSums(evidence.graph, gradients.module)(total) / whole


@dataclass(frozen=True)
class GradientFlow:
    """GraSP (Wang et al. 2020, "Picking winning tickets before training by preserving gradient flow").

    ``score(u) = sum over member slices of w * (H g)``: what its removal takes from ``|g|^2 / 2``, to first
    order. Removing a unit of a negative score lets more gradient through, so these go first; scores are
    counted from the lowest one. The paper's temperature for logits is not used.

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
        total = summed(gradients.hessian_products(batch_size(evidence)))
        scores = UnitSums(evidence.graph, gradients.module)(total)
        return np.asarray(scores - scores.min())


@dataclass(frozen=True)
class SynapticFlow:
    """SynFlow (Tanaka et al. 2020, "Pruning neural networks without any data"), its scores taken once.

    ``score(u) = sum over member slices of |w * dR/dw|``, with R the sum of the outputs of the network of
    absolute weights on inputs of ones, in which a softmax is a mean. The paper prunes in a hundred small
    steps and scores anew after each.

    Attributes:
        seed: of tokens, where the model reads any.
        additive: the scores only rank.
    """

    seed: int = 0
    additive: bool = False

    def __call__(self, evidence: Evidence) -> Scores:
        """Scores ``[len(algebra)]``.

        Raises:
            ModelError: torch is missing or can't run the model, or a weight or gradient is not finite.
        """
        require_torch()
        from graphprune.converters.torch_graph.gradients import synaptic_flow

        graph = evidence.graph
        require_numbers(graph)
        sizes = graph.analysis.trace.nominal_dims
        feeds = sample_inputs(graph.model, sizes, np.random.default_rng(self.seed))
        module, flow = synaptic_flow(graph.model, feeds)
        return UnitSums(graph, module)(flow)
