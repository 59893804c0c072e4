"""Measured effects, counted: how far the outputs move when units go."""

from __future__ import annotations

import math
import time

from graphprune.passes.allocators.allocation import Allocation, Removed

from graphprune.errors import UsageError

#: Stands for outputs that are no numbers any more: worse than anything, and still to be reckoned with.
_BROKEN = 1e30


class Meter:
    """Measures effects while calls and time last.

    Results depend on the number of calls alone; where the time runs out first, the report says so.

    Args:
        allocation: gives the effect and takes the report.
        name: of the allocator, for the error.
        calls: at most.
        seconds: at most; a call that has begun is finished.

    Raises:
        UsageError: there is nothing to measure on.
    """

    def __init__(self, allocation: Allocation, name: str, calls: int, seconds: float) -> None:
        if allocation.effect is None:
            message = f"the allocator '{name}' needs calibration samples"
            raise UsageError(
                message,
                because="it measures how far the outputs move when units go",
                hint="--calibration FILE.npz, or the allocator 'rate-distortion'",
            )
        self._effect, self._report = allocation.effect, allocation.report
        self._progress = allocation.progress
        self._calls, self._seconds = calls, seconds
        self._start = time.perf_counter()
        self._report["effect_calls"] = 0

    def __call__(self, removed: Removed) -> float | None:
        """Effect of a cut; None once calls or time are used up."""
        if self._report["effect_calls"] >= self._calls:
            return None
        if time.perf_counter() - self._start > self._seconds:
            self._report["stopped_after_seconds"] = self._seconds
            return None
        self._progress("measuring cuts", self._report["effect_calls"], self._calls)
        self._report["effect_calls"] += 1
        value = float(self._effect(removed))
        self._progress("measuring cuts", self._report["effect_calls"], self._calls)
        return max(value, 0.0) if math.isfinite(value) else _BROKEN
