"""Least squares in one pass: every layer by the moments of the original's activations.

``W_K ← W_K + (C_KK)⁻¹ C_KR W_R`` for kept features K and removed ones R, with ``C`` the covariance and the
bias taking the means (``C = E[x xᵀ]`` where there is no bias).  It is what the updates of OBS add
up to, whatever the order of removal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from graphprune.passes.compensators.pairs import pairs_of
from graphprune.passes.compensators.slots import add_bias, bias_slot, read, write

from graphprune.axes_kept import Keeps
from graphprune.calibration.evidence import Consumer, Evidence
from graphprune.calibration.linear import Linear
from graphprune.calibration.rows import is_weighted
from graphprune.calibration.shrinkage import shrunk
from graphprune.model import Model

Removed = npt.NDArray[np.bool_]
Matrix = npt.NDArray[np.float64]
#: Relative to the mean of the diagonal.
DAMPING = 1e-3


@dataclass(frozen=True)
class Parallel:
    """Re-solves every layer that lost inputs, each from the original's moments alone.

    Attributes:
        damping: added to the diagonal, relative to its mean.
        weights: re-solve the weights; otherwise only the bias takes the means of what went (FLAP).
        shrink: shrink correlations as far as the number of rows calls for.
    """

    damping: float = DAMPING
    weights: bool = True
    shrink: bool = True

    def __call__(self, evidence: Evidence, removed: Removed, pruned: Model) -> Model:
        """New weights for ``pruned``, which is changed and returned."""
        keeps = Keeps(evidence.graph.analysis, removed)
        for layer, consumer in pairs_of(evidence, keeps, pruned):
            # A weight that several layers share would have to become several.
            is_own = len(list(layer.constant.uses())) == 1
            if is_own and keeps.of(consumer.axis) is not None and layer.groups == consumer.layer.groups:
                self._solve(pruned.ir.graph, evidence, consumer, layer, keeps)
        return pruned

    def _solve(
        self,
        graph: ir.Graph,
        evidence: Evidence,
        consumer: Consumer,
        layer: Linear,
        keeps: Keeps,
    ) -> None:
        landing = evidence.landing(layer.output)
        # Means over rows that count differently are no bias.
        slot = None if is_weighted(layer, landing) else bias_slot(layer, landing)
        found = evidence.moments.get(consumer.layer)
        if found is None:  # not in question
            return
        shape = tuple(consumer.use.value.const_value.shape.numpy())  # type: ignore[union-attr]
        kept = keeps.of(consumer.axis)
        assert kept is not None
        stays = consumer.layer.features_of(np.flatnonzero(kept), shape).ravel()
        goes = consumer.layer.features_of(np.flatnonzero(~kept), shape).ravel()
        made = keeps.of(consumer.use.axes[consumer.layer.made])
        outputs = _outputs(made, layer.groups, consumer.matrices.shape[2])
        now = read(layer.constant)
        old = layer.matrices(now)
        if outputs is None or old.shape[1:] != (len(stays), outputs.shape[1]):
            return  # the cut gave this layer another form
        second = found.covariance if slot is not None else found.second
        new, shift = old.copy(), np.zeros((layer.groups, outputs.shape[1]))
        for g, (matrix, moment) in enumerate(zip(consumer.matrices, second, strict=True)):
            if self.shrink:
                moment = shrunk(moment, found.count)
            lost = matrix[np.ix_(goes, outputs[g])]
            if self.weights:
                own = moment[np.ix_(stays, stays)]
                load = self.damping * float(np.trace(own)) / max(len(own), 1) + np.finfo(float).tiny
                solved = np.linalg.solve(own + np.eye(len(own)) * load, moment[np.ix_(stays, goes)] @ lost)
                new[g] = old[g] + solved
            shift[g] = found.mean[g, goes] @ lost - found.mean[g, stays] @ (new[g] - old[g])
        if self.weights:
            write(graph, *layer.place, layer.updated(now, new))
        if slot is not None:
            add_bias(graph, layer, slot, shift.reshape(-1))


def _outputs(made: npt.NDArray[np.bool_] | None, groups: int, per_group: int) -> npt.NDArray[np.int64] | None:
    """Kept outputs of each group, ``[groups, o]``; None if they keep different numbers."""
    if made is None:
        return np.tile(np.arange(per_group), (groups, 1))
    rows = [np.flatnonzero(mask) for mask in made.reshape(groups, per_group)]
    return np.stack(rows) if len({len(r) for r in rows}) == 1 else None
