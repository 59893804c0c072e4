"""Seconds per stage of a long command."""

from __future__ import annotations

import time


class Clock:
    """Seconds per stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def stop(self, name: str) -> None:
        """Ends a stage."""
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now
