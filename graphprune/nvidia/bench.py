"""TensorRT as a place to measure, by its Python package or by trtexec."""

from __future__ import annotations

import os
import statistics
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from graphprune.errors import ModelError
from graphprune.nvidia.driver import Card
from graphprune.nvidia.engine import Engine, build
from graphprune.nvidia.trtexec import TrtexecRun
from graphprune.profiling.setups import Setup

_TRACED_RUNS = 30


class TensorRT:
    """Engines by setup; each is built once."""

    def __init__(self) -> None:
        self._plans: dict[int, bytes] = {}
        self._open: list[Engine | TrtexecRun] = []

    def open(self, setup: Setup) -> Engine | TrtexecRun:
        """An engine that is ready to run; :meth:`close` ends all of them."""
        model = _file(setup)
        run: Engine | TrtexecRun
        if find_spec("tensorrt") is None:
            run = TrtexecRun(model, setup.precision, setup.inputs, setup.span, timing_cache())
        else:
            run = Engine(self._plan(setup), setup.inputs)
        self._open.append(run)
        return run

    def alone(self, setup: Setup) -> dict[str, Any]:
        """Time of loading the engine, and what it takes on the card; the process is not one of its own."""
        if find_spec("tensorrt") is None:
            return {"idle": None, "peak": None, "card": None, "load_ms": None}
        card = Card()
        before, start = card.used(), time.perf_counter()
        engine = Engine(self._plan(setup), setup.inputs)
        engine()
        milliseconds = (time.perf_counter() - start) * 1e3
        taken = max(0, card.used() - before)
        engine.close()
        return {"idle": None, "peak": None, "card": taken, "load_ms": milliseconds}

    def trace(self, setup: Setup) -> list[dict[str, Any]]:
        """Time by layer, the slowest first."""
        run = self.open(setup)
        times = run.layer_times(_TRACED_RUNS)
        self.close()
        found = [
            {"name": name, "op_type": "layer", "provider": "TensorRT", "ms": statistics.median(ms)}
            for name, ms in times
        ]
        return sorted(found, key=lambda layer: -float(str(layer["ms"])))

    def close(self) -> None:
        """Frees the card."""
        while self._open:
            self._open.pop().close()

    def _plan(self, setup: Setup) -> bytes:
        if id(setup) not in self._plans:
            self._plans[id(setup)] = build(_file(setup), setup.precision, setup.span, timing_cache())
        return self._plans[id(setup)]


def timing_cache() -> Path:
    """Where TensorRT keeps what it measured while it built; it depends on the card and the version."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "graphprune" / "tensorrt-timing.cache"


def _file(setup: Setup) -> Path:
    if isinstance(setup.model, bytes):
        what = "TensorRT takes models as files only"
        raise ModelError(what)
    return setup.model
