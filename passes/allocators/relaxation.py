"""The Lagrangian of an allocation: error plus multiplier times cost, minimised group by group.

Costs are sums of products of widths.  Around a given cut they are told apart in two ways:

* *linear*: a unit of a group has a price.  Exact where no two groups meet in one tensor.
* *logarithmic*: sums of products are convex in the logarithms of the widths, so the tangent there,
  ``c(k) >= c(k0) + sum_g price_g k0_g log(k_g / k0_g)``, lies below the cost everywhere.  It makes any value
  of the Lagrangian a lower bound on the error of every cut that meets the targets, coupled or not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from graphprune.passes.allocators.tables import Choice, Tables, Values

#: Multipliers are tried by powers of this until the targets lie between two.
_FACTOR = 8.0
_EXPANSIONS = 60
_HALVINGS = 30
#: Steps of the search for the best bound.
_BOUND_STEPS = 60
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Tangent:
    """Costs around a cut, told apart by group.

    Attributes:
        tables: error tables.
        charges: cost of each entry of the tables, up to a constant.
        load: cost at the cut itself, in the same unit.
        at: charges of the cut itself.
        limit: what is allowed, in the same unit.
    """

    tables: Tables
    charges: Values
    load: float
    at: float
    limit: float

    def best(self, multiplier: float) -> Choice:
        """The cut of least error plus ``multiplier`` times cost."""
        return self.tables.lowest(self.tables.errors + multiplier * self.charges)

    def charge(self, choice: Choice) -> float:
        """What the tangent takes a cut's cost for."""
        return self.load - self.at + float(self.charges[self.tables.starts + choice].sum())

    def bound(self) -> float:
        """The largest value of the Lagrangian: no cut that meets the targets has less error.

        Holds if the tangent is nowhere above the cost.
        """
        start = max(float(self.tables.errors.max(initial=0.0)), 1e-30)
        low, high = np.log(start) - 40.0, np.log(start) + 40.0
        for _ in range(_BOUND_STEPS):  # it is concave in the multiplier
            left, right = low + (high - low) / 3, high - (high - low) / 3
            if self._value(np.exp(left)) < self._value(np.exp(right)):
                low = left
            else:
                high = right
        return max(self._value(np.exp((low + high) / 2)), 0.0)

    def _value(self, multiplier: float) -> float:
        choice = self.best(multiplier)
        return self.tables.error(choice) + multiplier * (self.charge(choice) - self.limit)


def tangent(tables: Tables, choice: Choice, weights: Values, *, logarithmic: bool) -> Tangent:
    """The costs around a cut.

    Args:
        tables: error tables.
        choice: the cut.
        weights: of the targets, when there are several: only their weighed sum is looked at.
        logarithmic: which kind.
    """
    kept = tables.kept.astype(np.float64)
    if logarithmic:
        # What can go altogether has no logarithm.
        has_log = tables.kept[tables.starts + tables.smallest] > 0
        slopes = tables.slopes(choice) @ weights
        scaled = np.where(has_log, slopes * tables.widths(choice), slopes)
        charges = scaled[tables.owner] * np.where(has_log[tables.owner], np.log(np.maximum(kept, 1.0)), kept)
    else:
        charges = (tables.prices(choice) @ weights)[tables.owner] * kept
    load = float(tables.loads(choice) @ weights)
    return Tangent(tables, charges, load, float(charges[tables.starts + choice].sum()), float(weights.sum()))


def is_below(found: Tangent, weights: Values, choices: list[Choice]) -> bool:
    """Is a tangent below the cost at all of these cuts?"""
    exact = [float(found.tables.loads(choice) @ weights) for choice in choices]
    return all(found.charge(c) <= load + _TOLERANCE for c, load in zip(choices, exact, strict=True))


def solve(choose: Callable[[float], Choice], meets: Callable[[Choice], bool], start: float) -> Choice | None:
    """The cut at the smallest multiplier that meets the targets by exact cost; None if none does.

    Args:
        choose: cut at a multiplier; a larger one removes more.
        meets: are the targets met?
        start: the first multiplier to try.
    """
    high = max(start, 1e-30)
    found = choose(high)
    tries = 0
    while not meets(found):
        tries, high = tries + 1, high * _FACTOR
        found = choose(high)
        if tries > _EXPANSIONS:
            return None
    low = high / _FACTOR
    while tries < _EXPANSIONS and meets(candidate := choose(low)):
        tries, high, low, found = tries + 1, low, low / _FACTOR, candidate
    for _ in range(_HALVINGS):
        middle = float(np.sqrt(low * high))
        candidate = choose(middle)
        if np.array_equal(candidate, found):
            high = middle
        elif meets(candidate):
            high, found = middle, candidate
        else:
            low = middle
    return found
