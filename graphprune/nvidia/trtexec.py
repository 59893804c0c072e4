"""A model as a TensorRT engine in NVIDIA's own program, where the Python package is missing."""

from __future__ import annotations

import json
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from graphprune.errors import ModelError
from graphprune.nvidia.engine import Shapes
from graphprune.profiling.feeds import declared_inputs
from graphprune.runner.timing import Blockwise

_PRECISIONS = {None: [], "fp32": ["--noTF32"], "fp16": ["--fp16"], "int8": ["--fp16", "--int8"]}


class TrtexecRun(Blockwise):
    """An engine that a new process of trtexec loads for every block of runs.

    Args:
        model: an ONNX file.
        precision: ``fp32``, ``fp16``, ``int8`` or None.
        inputs: what to feed, for its sizes.
        shapes: the least, the usual and the largest shape of inputs with symbolic axes.
        cache: file of the timing cache.

    Raises:
        ModelError: trtexec refuses the model.
    """

    def __init__(
        self,
        model: Path,
        precision: str | None,
        inputs: list[dict[str, Any]],
        shapes: Shapes,
        cache: Path | None,
    ) -> None:
        self._model = model
        # It takes no shapes for what has no symbolic axis.
        free = {v.name for v in declared_inputs(model) if any(not isinstance(d, int) for d in v.shape)}
        shapes = {name: three for name, three in shapes.items() if name in free}
        self._folder = tempfile.TemporaryDirectory(prefix="graphprune-")
        self._engine = Path(self._folder.name) / "model.engine"
        words = [
            f"--onnx={model}",
            f"--saveEngine={self._engine}",
            "--skipInference",
            *_PRECISIONS[precision],
        ]
        for kind, number in (("min", 0), ("opt", 1), ("max", 2)):
            if shapes:
                sizes = ",".join(f"{name}:{_sizes(three[number])}" for name, three in shapes.items())
                words.append(f"--{kind}Shapes={sizes}")
        if cache is not None:
            with suppress(OSError):  # a home that can't be written to costs time, nothing else
                cache.parent.mkdir(parents=True, exist_ok=True)
                words.append(f"--timingCacheFile={cache}")
        self._run(words)
        self._shapes = ",".join(f"{v['name']}:{_sizes(v['shape'])}" for v in inputs if v["name"] in shapes)

    def times(self, count: int) -> list[float]:
        """Milliseconds of so many runs, the copies to the card and back included."""
        results = Path(self._folder.name) / "times.json"
        words = [f"--loadEngine={self._engine}", f"--iterations={count}", "--duration=0", "--warmUp=50"]
        words += ["--avgRuns=1", f"--exportTimes={results}"]
        if self._shapes:
            words.append(f"--shapes={self._shapes}")
        self._run(words)
        return read_times(results.read_text(encoding="utf-8"))[-count:]

    def layer_times(self, runs: int) -> list[tuple[str, list[float]]]:
        """Mean milliseconds of every layer, over so many runs at least."""
        results = Path(self._folder.name) / "profile.json"
        words = [f"--loadEngine={self._engine}", f"--iterations={runs}", "--dumpProfile"]
        words += ["--separateProfileRun", f"--exportProfile={results}"]
        if self._shapes:
            words.append(f"--shapes={self._shapes}")
        self._run(words)
        entries = json.loads(results.read_text(encoding="utf-8"))
        return [(entry["name"], [float(entry["averageMs"])]) for entry in entries if "name" in entry]

    def close(self) -> None:
        """Removes the engine."""
        self._folder.cleanup()

    def _run(self, words: list[str]) -> None:
        done = subprocess.run(["trtexec", *words], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            lines = [line for line in (done.stdout + done.stderr).splitlines() if "[E]" in line]
            what = f"trtexec fails with '{self._model}'"
            raise ModelError(what, because=lines[0] if lines else f"it ended with status {done.returncode}")


def read_times(text: str) -> list[float]:
    """The latencies in a file of ``--exportTimes``, in milliseconds."""
    return [float(entry["latencyMs"]) for entry in json.loads(text)]


def _sizes(shape: Any) -> str:
    return "x".join(str(size) for size in shape) or "scalar"
