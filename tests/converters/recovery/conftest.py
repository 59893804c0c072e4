"""One thread: results are compared bit by bit."""

from __future__ import annotations

import sys
from pathlib import Path

# `teachers` is importable from every test here.
sys.path.insert(0, str(Path(__file__).parent))
