"""Criteria: how much does each unit of each group matter?

A criterion is a callable object: ``criterion(graph) -> scores``, one number per unit id of the algebra,
higher is more important.  Local scores of all member tensors are added up through their rows, so a unit
answers for everything that goes with it (group-level importance, as in DepGraph and SPA).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphprune.analysis import Use
from graphprune.errors import ModelError
from graphprune.graph import DependencyGraph

Scores = npt.NDArray[np.float64]
Criterion = Callable[[DependencyGraph], Scores]


@dataclass(frozen=True)
class Magnitude:
    """Norm of everything that a unit removes.

    ``score(u) = (sum over member slices of |w|^p) ^ (1/p)``.

    Attributes:
        p: 1 or 2.
    """

    p: int = 2

    def __call__(self, graph: DependencyGraph) -> Scores:
        """Scores ``[len(algebra)]``.

        Raises:
            ModelError: a weight is NaN.
        """
        algebra = graph.analysis.algebra
        total = np.zeros(len(algebra))
        seen: set[tuple[int, int]] = set()
        for use in graph.analysis.uses.values():
            for d, axis in enumerate(use.axes):
                # A tied matrix counts once, however often it is used.
                key = (id(use.value), id(axis.labels))
                if axis.is_plain or key in seen or not counts(use):
                    continue
                seen.add(key)
                rows = algebra.live(axis)
                local = self._along(use, d)
                for column in range(rows.shape[1]):
                    np.add.at(total, rows[:, column], local)
        total[0] = 0.0
        return np.asarray(total ** (1.0 / self.p))

    def _along(self, use: Use, d: int) -> Scores:
        tensor = use.value.const_value
        assert tensor is not None
        weights = np.abs(tensor.numpy().astype(np.float32))
        if np.isnan(weights).any():
            message = f"the weights of '{use.value.name}' hold NaN"
            raise ModelError(
                message,
                where=f"{use.node.op_type} '{use.node.name}', input {use.index}",
                because="no importance can be computed from them",
                hint="export the model again from a checkpoint that is finite",
            )
        others = tuple(i for i in range(weights.ndim) if i != d)
        powers = weights if self.p == 1 else np.square(weights)
        return np.asarray(powers.sum(axis=others, dtype=np.float64))


def counts(use: Use) -> bool:
    """Does this constant carry signal?  Divisors, running statistics and integers don't."""
    tensor = use.value.const_value
    return use.is_zeroed and tensor is not None and tensor.dtype.is_floating_point()


@dataclass(frozen=True)
class Random:
    """Uniform random scores: the baseline every criterion has to beat.

    Attributes:
        seed: of the generator.
    """

    seed: int = 0

    def __call__(self, graph: DependencyGraph) -> Scores:
        """Scores ``[len(algebra)]``."""
        return np.random.default_rng(self.seed).random(len(graph.analysis.algebra))


#: Names for the command line and :func:`graphprune.plan`; each takes the seed.
CRITERIA: Mapping[str, Callable[[int], Criterion]] = {
    "l1": lambda seed: Magnitude(1),
    "l2": lambda seed: Magnitude(2),
    "random": Random,
}
