"""Exact improvement of a cut: give back what fits, and trade steps of one group for steps of others."""

from __future__ import annotations

import numpy as np
from graphprune.passes.allocators.tables import Choice, Tables, Values

#: Exact evaluations of the cost that an improvement may take.
_EVALUATIONS = 4000
_PASSES = 4
_SPARE = 1e-12


class Exchange:
    """Improves cuts by the exact cost, one step of a group's table at a time.

    Args:
        tables: error tables.
        evaluations: of the cost, at most, per cut.
    """

    def __init__(self, tables: Tables, evaluations: int = _EVALUATIONS) -> None:
        self._tables = tables
        self._evaluations = self._left = evaluations
        self._prices: Values = np.zeros((0, 0))

    def __call__(self, choice: Choice) -> Choice:
        """A cut that meets the targets as well, with no more error.

        Args:
            choice: meets the targets.
        """
        if not len(self._tables) or not choice.any():
            return choice
        self._left = self._evaluations - len(self._tables)
        self._prices = self._tables.prices(choice)
        best = self._give_back(choice)
        for _ in range(_PASSES):
            before = self._tables.error(best)
            for i in range(len(self._tables)):
                for step in (-1, 1):
                    best = self._better(best, i, step)
            if self._left <= 0 or self._tables.error(best) >= before:
                break
            self._left -= len(self._tables)
            self._prices = self._tables.prices(best)
        return best

    def _better(self, choice: Choice, i: int, step: int) -> Choice:
        """The cut with one group a step on and others back, or the other way round, if that is better."""
        place = choice[i] + step
        if self._left <= 0 or not 0 <= place < self._tables.lengths[i]:
            return choice
        moved = choice.copy()
        moved[i] = place
        if step < 0:
            taken = self._take(moved, i, self._tables.error(choice))
            if taken is None:
                return choice
            moved = taken
        moved = self._give_back(moved, i if step > 0 else -1)
        return moved if self._tables.error(moved) < self._tables.error(choice) * (1 - 1e-9) else choice

    def _take(self, choice: Choice, spared: int, limit: float) -> Choice | None:
        """Steps elsewhere until the targets are met again; None if that costs more error than ``limit``."""
        choice = choice.copy()
        while self._left > 0:
            self._left -= 1
            loads = self._tables.loads(choice)
            if self._tables.meets(choice):
                return choice
            rise, units = self._step(choice, 1)
            saved = (self._prices * units[:, None]) @ np.maximum(loads - 1.0, 0.0)
            rise[spared] = np.inf
            rise[saved <= 0] = np.inf
            ratio = rise / np.maximum(saved, _SPARE)
            i = int(np.argmin(ratio))
            if not np.isfinite(rise[i]) or self._tables.error(choice) + rise[i] >= limit:
                return None
            choice[i] += 1
        return None

    def _give_back(self, choice: Choice, spared: int = -1) -> Choice:
        """Steps back wherever they fit, those of most error for their cost first."""
        choice = choice.copy()
        self._left -= 1
        slack = 1.0 - self._tables.loads(choice)
        stuck = np.zeros(len(choice), bool)
        if spared >= 0:
            stuck[spared] = True
        while self._left > 0:
            gain, units = self._step(choice, -1)
            cost = self._prices * units[:, None]
            fits = (gain > 0) & ~stuck & (cost <= slack * 1.1 + _SPARE).all(axis=1)
            if not fits.any():
                return choice
            i = int(np.argmax(np.where(fits, gain / np.maximum(cost.sum(axis=1), _SPARE), -1.0)))
            candidate = choice.copy()
            candidate[i] -= 1
            self._left -= 1
            if self._tables.meets(candidate):
                choice, slack = candidate, 1.0 - self._tables.loads(candidate)
            else:
                stuck[i] = True
        return choice

    def _step(self, choice: Choice, step: int) -> tuple[Values, Values]:
        """Change of error and number of units of a step in each group; infinite, or none, at the end."""
        tables = self._tables
        possible = (choice + step >= 0) & (choice + step < tables.lengths)
        here, there = tables.starts + choice, tables.starts + np.where(possible, choice + step, choice)
        change = np.abs(tables.errors[there] - tables.errors[here])
        units = np.abs(tables.kept[there] - tables.kept[here]).astype(np.float64)
        return np.where(possible, change, np.inf if step > 0 else 0.0), units
