"""Compensators: what do the kept weights become?

A compensator is a callable object: ``compensator(evidence, removed, pruned) -> pruned``, with new weights for
the layers that lost something to read.  It runs behind the cut, whose correctness was checked before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
from graphprune.passes.compensators.parallel import Parallel
from graphprune.passes.compensators.rematch import Rematch
from graphprune.passes.compensators.room import Room
from graphprune.passes.compensators.sequential import Sequential

from graphprune.calibration.evidence import Evidence
from graphprune.calibration.weight_moments import WeightMoments
from graphprune.graph import DependencyGraph
from graphprune.model import Model


class Compensator(Protocol):
    """Re-solves weights."""

    def __call__(self, evidence: Evidence, removed: npt.NDArray[np.bool_], pruned: Model) -> Model:
        """``pruned``, changed in place."""
        ...


#: Names for the command line and :func:`graphprune.apply`; None leaves the weights as they are.
COMPENSATORS: Mapping[str, Compensator | None] = {
    "none": None,
    "bias": Parallel(weights=False),
    "obs": Parallel(),
    "combination": Parallel(source=WeightMoments.of, shrink=False, centred=False),
    "rematch": Rematch(),
    "sequential": Sequential(joint=False),
    "joint": Sequential(),
}


def compensator_for(
    name: str,
    graph: DependencyGraph,
    removed: npt.NDArray[np.bool_],
    pruned: Model,
    targets: Mapping[str, float],
) -> Compensator | None:
    """A compensator that adds no biases where the cut model would miss a target with them.

    Args:
        name: in the table.
        graph: of the original.
        removed: the removed units.
        pruned: the cut model.
        targets: metric -> fraction of the original that may be kept.
    """
    found = COMPENSATORS[name]
    counted = not {"params", "bytes"}.isdisjoint(targets)
    if counted and isinstance(found, (Parallel, Sequential, Rematch)):
        found = replace(found, grows=Room(graph).is_there(removed, pruned, targets))
        # Room is left for biases only.
        return replace(found, copies=False) if isinstance(found, Rematch) else found
    return found
