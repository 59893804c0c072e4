"""Compensators: what do the kept weights become?

A compensator is a callable object: ``compensator(evidence, removed, pruned) -> pruned``, with new weights for
the layers that lost something to read.  It runs behind the cut, whose correctness was checked before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt
from graphprune.passes.compensators.parallel import Parallel
from graphprune.passes.compensators.sequential import Sequential

from graphprune.calibration.evidence import Evidence
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
    "sequential": Sequential(),
}
