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
from graphprune.passes.compensators.shared import Pair, by_weight, joint
from graphprune.passes.compensators.slots import Slot, add_bias, bias_slot, read, rewrite, write

from graphprune.axes_kept import Keeps
from graphprune.calibration.evidence import Evidence
from graphprune.calibration.linear import Linear
from graphprune.calibration.moments import Moments
from graphprune.calibration.rows import is_weighted
from graphprune.calibration.weight_moments import Source, measured
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
        shrink: shrink covariances as far as rows that were held out call for.
        source: of the moments: measured on the samples, or known from the weights.
        centred: biases take the means.
        grows: layers without a bias of their own get one.
        shared_only: leave alone the weights that one layer has for itself.
    """

    damping: float = DAMPING
    weights: bool = True
    shrink: bool = True
    source: Source = measured
    centred: bool = True
    grows: bool = True
    shared_only: bool = False

    def __call__(self, evidence: Evidence, removed: Removed, pruned: Model) -> Model:
        """New weights for ``pruned``, which is changed and returned."""
        keeps = Keeps(evidence.graph.analysis, removed)
        moments = self.source(evidence)
        for pairs in by_weight(evidence, keeps, pruned):
            if len(pairs) > 1 or not self.shared_only:
                found = [moments(consumer) for _, consumer in pairs]
                known = [m for m in found if m is not None]
                if len(known) == len(found):  # others are not in question
                    self._solve(pruned.ir.graph, evidence, known, pairs, keeps)
        return pruned

    def _solve(
        self, graph: ir.Graph, evidence: Evidence, found: list[Moments], pairs: list[Pair], keeps: Keeps
    ) -> None:
        layer, consumer = pairs[0]
        slots = [self._slot(evidence, own) for own, _ in pairs]
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
        second = joint(found, [slot is not None for slot in slots], shrink=self.shrink)
        new, lost = old.copy(), []
        for g, (matrix, moment) in enumerate(zip(consumer.matrices, second, strict=True)):
            lost.append(matrix[np.ix_(goes, outputs[g])])
            if self.weights:
                own = moment[np.ix_(stays, stays)]
                load = self.damping * float(np.trace(own)) / max(len(own), 1) + np.finfo(float).tiny
                solved = np.linalg.solve(own + np.eye(len(own)) * load, moment[np.ix_(stays, goes)] @ lost[g])
                new[g] = old[g] + solved
        if self.weights and len(pairs) == 1:
            write(graph, *layer.place, layer.updated(now, new))
        elif self.weights:
            rewrite(layer.constant, layer.updated(now, new))
        for (own, _), slot, known in zip(pairs, slots, found, strict=True):
            if slot is not None:
                gone = np.einsum("gd,gdo->go", known.mean[:, goes], np.stack(lost))
                made_up = np.einsum("gd,gdo->go", known.mean[:, stays], new - old)
                add_bias(graph, own, slot, (gone - made_up).reshape(-1))

    def _slot(self, evidence: Evidence, layer: Linear) -> Slot | None:
        landing = evidence.landing(layer.output)
        # Means over rows that count differently are no bias.
        centred = self.centred and not is_weighted(layer, landing)
        return bias_slot(layer, landing, grows=self.grows) if centred else None


def _outputs(made: npt.NDArray[np.bool_] | None, groups: int, per_group: int) -> npt.NDArray[np.int64] | None:
    """Kept outputs of each group, ``[groups, o]``; None if they keep different numbers."""
    if made is None:
        return np.tile(np.arange(per_group), (groups, 1))
    rows = [np.flatnonzero(mask) for mask in made.reshape(groups, per_group)]
    return np.stack(rows) if len({len(r) for r in rows}) == 1 else None
