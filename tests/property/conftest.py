"""The helpers here and of the rule tests are importable; hypothesis is quick, and the same every time."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import settings

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "rules")]
settings.register_profile("graphprune", max_examples=60, deadline=None, derandomize=True, database=None)
settings.load_profile("graphprune")
