"""What is to be measured, and what a place must offer to do it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from graphprune.errors import ModelError
from graphprune.profiling.providers import Provider
from graphprune.runner.sessions import Refused

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Setup:
    """One model on one provider, at one set of sizes.

    Attributes:
        model: the file, or its bytes.
        name: short name of the provider.
        provider: what it is.
        threads: within an operator; None leaves the choice to onnxruntime.
        batch: size of the symbolic first axes.
        inputs: what to feed, see :func:`graphprune.profiling.feeds.describe`.
        options: of the provider.
        precision: ``fp32``, ``fp16`` or ``int8``, where the provider chooses it.
        dims: sizes of other symbolic axes, by name, as they were asked for.
        span: the least, the usual and the largest shape of every input, over all that is measured.
    """

    model: Path | bytes
    name: str
    provider: Provider
    threads: int | None
    batch: int
    inputs: list[dict[str, Any]]
    options: dict[str, str] = field(default_factory=dict)
    precision: str | None = None
    dims: dict[str, int] = field(default_factory=dict)
    span: Mapping[str, tuple[Sequence[int], Sequence[int], Sequence[int]]] = field(default_factory=dict)

    @property
    def ask(self) -> dict[str, Any]:
        """As the runner reads it, without the model."""
        return {
            "provider": self.provider.name,
            "options": self.options,
            "threads": self.threads,
            "inputs": self.inputs,
            "card": self.provider.on_card,
        }

    @property
    def title(self) -> str:
        """What to call the model in a sentence."""
        return "the model" if isinstance(self.model, bytes) else f"'{self.model}'"

    @property
    def source(self) -> str | bytes:
        """What onnxruntime loads."""
        return self.model if isinstance(self.model, bytes) else str(self.model)

    @property
    def sizes(self) -> str:
        """The inputs' sizes, for people."""
        return ", ".join(f"{value['name']} {value['shape']}" for value in self.inputs)


class Bench(Protocol):
    """A place to measure."""

    @property
    def information(self) -> dict[str, Any]:
        """The machine and its runtime."""

    def measure(
        self, setups: Sequence[Setup], shared: dict[str, Any], progress: Progress | None = None
    ) -> dict[str, Any]:
        """Latency in alternation, see :func:`graphprune.runner.timing.measure`."""

    def alone(self, setup: Setup) -> dict[str, Any]:
        """Memory and load time, see :func:`graphprune.runner.alone.alone`."""

    def trace(self, setup: Setup, seconds: float) -> tuple[list[dict[str, Any]], bytes | None]:
        """Time by node, and the graph that onnxruntime made."""


@contextmanager
def explained(setup: Setup) -> Iterator[None]:
    """What the runner refuses, as an error for people."""
    try:
        yield
    except Refused as error:
        raise explain(setup, error.kind, str(error)) from error


def explain(setup: Setup, kind: str, because: str) -> ModelError:
    """An error of the runner on this machine."""
    if kind == "load":
        what = f"onnxruntime cannot load {setup.title}"
        # onnxruntime's CPU has hardly any kernel for bfloat16.
        hint = "a --provider with kernels for the model's types" if "NOT_IMPLEMENTED" in because else None
        return ModelError(what, because=because, hint=hint)
    if kind == "run":
        what = f"{setup.title} does not run on inputs of the chosen sizes"
        return ModelError(what, where=setup.sizes, because=because, hint="--dim NAME=SIZE")
    if kind == "no-provider":
        what = f"{setup.title} does not run on {setup.provider.name}"
        return ModelError(what, because=because, hint=setup.provider.source)
    if kind == "alone":
        what = f"{setup.title} cannot be run in a process of its own to measure its memory"
        return ModelError(what, because=because)
    what = f"{setup.title} cannot be measured"
    return ModelError(what, because=because)
