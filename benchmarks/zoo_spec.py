"""What the benchmark zoo is made of: networks, their inputs, and the files to write of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

SEED = 20260901
STATISTICS_BATCH = 8
#: The source network: from inputs by name to its outputs.
Network = Callable[[dict[str, np.ndarray]], list[np.ndarray]]

Exporter = Literal["legacy", "dynamo", "tf", "jax"]
BOTH: tuple[Exporter, ...] = ("legacy", "dynamo")
LEGACY: tuple[Exporter, ...] = ("legacy",)
DYNAMO: tuple[Exporter, ...] = ("dynamo",)

#: Sizes of the open axes: while tracing, and when the written file is checked.
TRACED = {"batch": 2, "sequence": 11, "past": 7}
CHECKED = ({"batch": 1, "sequence": 8, "past": 5}, {"batch": 5, "sequence": 23, "past": 3})


@dataclass(frozen=True)
class Input:
    """One input: its axes (a size, or the name of an open one) and what its values are.

    ``bound`` is the number of different ids; 0 for floats, -1 for a mask of ones.
    """

    shape: tuple[int | str, ...]
    bound: int = 0

    def sample(self, sizes: Mapping[str, int], rng: np.random.Generator) -> np.ndarray:
        shape = tuple(sum(sizes[a] for a in n.split(" + ")) if isinstance(n, str) else n for n in self.shape)
        if self.bound < 0:
            return np.ones(shape, np.int64)
        if self.bound:
            return rng.integers(0, self.bound, shape)
        return rng.standard_normal(shape).astype(np.float32)

    @property
    def open_axes(self) -> dict[int, str]:
        return {axis: name for axis, name in enumerate(self.shape) if isinstance(name, str)}


@dataclass(frozen=True)
class Spec:
    """One network.

    Attributes:
        name: of the architecture; files are ``NAME.EXPORTER.onnx``.
        build: makes the network; frameworks are imported inside it.
        inputs: by name.
        exporters: who writes it.
        raw: also write a variant whose fresh parameters are left as they are.
        keywords: are the inputs passed by name?
        pick: picks the outputs of the network's result; None: the first.
    """

    name: str
    build: Callable[[], Any]
    inputs: Mapping[str, Input]
    exporters: tuple[Exporter, ...] = BOTH
    raw: bool = False
    keywords: bool = False
    pick: Callable[[Any], Any] | None = None

    def sample(self, sizes: Mapping[str, int], seed: int = 0) -> dict[str, np.ndarray]:
        """Random inputs, the same for a seed."""
        rng = np.random.default_rng(seed)
        return {name: value.sample(sizes, rng) for name, value in self.inputs.items()}


@dataclass(frozen=True)
class Job:
    """One file to write."""

    spec: Spec
    exporter: Exporter
    raw: bool = False

    @property
    def file(self) -> str:
        return f"{self.spec.name}{'.raw' if self.raw else ''}.{self.exporter}.onnx"


def image(side: int = 224, channels: int = 3) -> dict[str, Input]:
    """A batch of square images."""
    return {"image": Input(("batch", channels, side, side))}


def text(vocabulary: int) -> dict[str, Input]:
    """Token ids with a mask.

    Without a mask, transformers looks for packed sequences by an operator that the TorchScript
    exporter does not know (aten::diff).
    """
    mask = Input(("batch", "sequence"), -1)
    return {"input_ids": Input(("batch", "sequence"), vocabulary), "attention_mask": mask}


def jobs_of(specs: list[Spec]) -> list[Job]:
    """All files; what the dynamo exporter writes comes last, since it takes 3 to 30 times as long."""
    jobs = [
        Job(spec, exporter, raw)
        for spec in specs
        for exporter in spec.exporters
        for raw in ((False, True) if spec.raw else (False,))
    ]
    return sorted(jobs, key=lambda job: job.exporter == "dynamo")


def perturbed(name: str, value: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise of a tenth of the tensor's spread; 0.02 where all values are equal."""
    if name.endswith(("running_var", "moving_variance")):
        return (value * rng.uniform(0.75, 1.5, value.shape)).astype(value.dtype)
    # Rounding gives equal values a spread that is not quite 0, so that is asked of the extremes.
    spread = 0.1 * float(value.std()) if value.size and np.ptp(value) else 0.02
    noise = rng.standard_normal(value.shape).astype(value.dtype)
    return np.asarray(value + spread * noise, value.dtype)
