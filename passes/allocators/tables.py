"""How much error each group makes at each number of kept units, and what cuts along these tables cost."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from graphprune.passes.allocators.allocation import Allocation, Removed
from graphprune.passes.allocators.budget import Loads

#: ``[groups]`` place in each group's table; 0 keeps the whole group.
Choice = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
#: Cuts whose cost is kept, as searches come back to the same ones.
_REMEMBERED = 50_000


class Tables:
    """Error tables of all groups, one after the other in flat arrays.

    The error of a group is the sum over the units that go, lowest first; it rises with each step.

    Args:
        allocation: groups, errors per unit and limits.

    Attributes:
        kept: units that stay, falling within each group.
        errors: estimated error of keeping so few.
        starts: where each group's table begins.
        lengths: entries of each group's table.
        owner: group of each entry.
    """

    def __init__(self, allocation: Allocation) -> None:
        self.allocation = allocation
        kept, errors = [], []
        for group in allocation.groups:
            choices = allocation.limits.choices(group)
            worst_first = allocation.errors[allocation.best_first[group.id][::-1]]
            kept.append(choices)
            errors.append(np.concatenate([[0.0], np.cumsum(worst_first)])[group.size - choices])
        self.kept = np.concatenate([np.zeros(0, np.int64), *kept])
        self.errors = np.concatenate([np.zeros(0), *errors])
        self.lengths = np.array([len(k) for k in kept], np.int64)
        self.starts = np.cumsum(np.append(0, self.lengths))[:-1]
        self.owner = np.repeat(np.arange(len(kept)), self.lengths)
        self._known: dict[bytes, tuple[Loads, bool]] = {}

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def dense(self) -> Choice:
        """Nothing goes."""
        return np.zeros(len(self), np.int64)

    @property
    def smallest(self) -> Choice:
        """All goes that the limits allow."""
        return self.lengths - 1

    def error(self, choice: Choice) -> float:
        """Estimated error of a cut."""
        return float(self.errors[self.starts + choice].sum())

    def widths(self, choice: Choice) -> npt.NDArray[np.int64]:
        """Kept units per group."""
        return np.asarray(self.kept[self.starts + choice])

    def removed(self, choice: Choice) -> Removed:
        """The units that go."""
        removed = np.zeros(len(self.allocation.scores), bool)
        widths = self.widths(choice).tolist()
        for i in np.flatnonzero(choice).tolist():
            self.allocation.remove(self.allocation.groups[i], widths[i], removed)
        return self.allocation.budget.settle(removed)

    def loads(self, choice: Choice) -> Loads:
        """Exact cost per target, as a fraction of what is allowed."""
        return self._judge(choice)[0]

    def meets(self, choice: Choice) -> bool:
        """Does the cut meet all targets?"""
        return self._judge(choice)[1]

    def _judge(self, choice: Choice) -> tuple[Loads, bool]:
        key = choice.tobytes()
        if key not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[key] = self.allocation.budget.judge(self.removed(choice))
        return self._known[key]

    def choice_of(self, removed: Removed) -> Choice:
        """The entries that keep as many units as a cut does, or the next fewer."""
        found = self.dense
        for i, group in enumerate(self.allocation.groups):
            here = self.kept[self.starts[i] : self.starts[i] + self.lengths[i]]
            stays = int((~removed[group.units]).sum())
            found[i] = min(int(np.searchsorted(-here, -stays)), len(here) - 1)
        return found

    def prices(self, choice: Choice) -> Values:
        """``[groups, targets]``: what one more unit of each group costs around a cut."""
        now = self.loads(choice)
        prices = np.zeros((len(self), len(now)))
        for i in np.flatnonzero(self.lengths > 1).tolist():
            prices[i] = self.price(choice, i, now)
        return prices

    def price(self, choice: Choice, i: int, now: Loads) -> Loads:
        """What one more unit of one group costs around a cut whose loads are ``now``."""
        near = choice.copy()
        near[i] += 1 if choice[i] + 1 < self.lengths[i] else -1
        units = int(self.kept[self.starts[i] + choice[i]] - self.kept[self.starts[i] + near[i]])
        # Where a cut dissolves what was shared, one unit less can cost more: no reason to cut there.
        return np.asarray(np.maximum((now - self.loads(near)) / units, 0.0))

    def slopes(self, choice: Choice) -> Values:
        """``[groups, targets]``: derivative of the cost by each group's width.

        A group stands at most twice in a product, so a parabola through three widths has it exactly.
        """
        slopes = np.zeros((len(self), len(self.allocation.targets)))
        for i in np.flatnonzero(self.lengths > 1).tolist():
            first = min(max(int(choice[i]) - 1, 0), max(int(self.lengths[i]) - 3, 0))
            places = np.arange(first, min(first + 3, int(self.lengths[i])))
            near = np.repeat(choice[None], len(places), axis=0)
            near[:, i] = places
            widths = self.kept[self.starts[i] + places].astype(np.float64) - self.widths(choice)[i]
            loads = np.array([self.loads(row) for row in near])
            powers = np.vander(widths, increasing=True)
            slopes[i] = np.linalg.solve(powers, loads)[1]
        return np.asarray(np.maximum(slopes, 0.0))

    def lowest(self, values: Values) -> Choice:
        """For each group the entry of the lowest value; of equal ones, that which keeps most."""
        if not len(self):
            return self.dense
        values = np.where(np.isnan(values), np.inf, values)  # of weights so large that sums overflow
        least = np.minimum.reduceat(values, self.starts)
        places = np.flatnonzero(values == least[self.owner])
        return np.asarray(places[np.searchsorted(places, self.starts)] - self.starts)
