"""This machine as a place to measure."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from graphprune.nvidia.bench import TensorRT
from graphprune.profiling.providers import TENSORRT
from graphprune.profiling.setups import Progress, Setup, explained
from graphprune.remote.bundle import script
from graphprune.runner.alone import alone
from graphprune.runner.serving import information
from graphprune.runner.sessions import open_run
from graphprune.runner.timing import measure
from graphprune.runner.tracing import trace


class LocalBench:
    """onnxruntime in this process, and TensorRT."""

    def __init__(self) -> None:
        self._tensorrt = TensorRT()

    @cached_property
    def information(self) -> dict[str, Any]:
        """See :class:`~graphprune.profiling.setups.Bench`."""
        return information(Path(tempfile.gettempdir()))

    def measure(
        self, setups: Sequence[Setup], shared: dict[str, Any], progress: Progress | None = None
    ) -> dict[str, Any]:
        """See :class:`~graphprune.profiling.setups.Bench`."""
        opened: list[Callable[[], object]] = []
        for setup in setups:
            if setup.provider is TENSORRT:
                opened.append(self._tensorrt.open(setup))
                continue
            with explained(setup):
                opened.append(open_run({**setup.ask, "model": setup.source}))
        card = any(setup.provider.on_card for setup in setups)
        try:
            return measure({**shared, "card": card}, progress, opened)
        finally:
            self._tensorrt.close()

    def alone(self, setup: Setup) -> dict[str, Any]:
        """See :class:`~graphprune.profiling.setups.Bench`."""
        if setup.provider is TENSORRT:
            return self._tensorrt.alone(setup)
        with tempfile.TemporaryDirectory(prefix="graphprune-") as folder, explained(setup):
            runner = Path(folder) / "runner.py"
            runner.write_text(script(), encoding="utf-8")
            return alone({**setup.ask, "model": str(setup.model)}, str(runner))

    def trace(self, setup: Setup, seconds: float) -> tuple[list[dict[str, Any]], bytes | None]:
        """See :class:`~graphprune.profiling.setups.Bench`."""
        if setup.provider is TENSORRT:
            return self._tensorrt.trace(setup), None
        with tempfile.TemporaryDirectory(prefix="graphprune-") as folder, explained(setup):
            ask = {**setup.ask, "model": str(setup.model), "seconds": seconds}
            found, optimized = trace(ask, folder)
            return found["nodes"], None if optimized is None else Path(optimized).read_bytes()
