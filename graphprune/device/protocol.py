"""What a machine has to offer, so that graphprune can plan for it: timing models, and nodes within them.

Planning asks nothing else of a machine, so whatever can time an ONNX file can be planned for: this process,
a board behind ssh, a phone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Identity:
    """All that a latency depends on besides the model; tables are kept by it.

    Attributes:
        device: name of the processor or graphics card.
        flags: instruction sets, as far as they are known.
        runtime: ``onnxruntime``, ``tensorrt``.
        version: of the runtime.
        provider: short name of the execution provider.
        threads: within an operator; None: as the runtime chooses.
        cores: that it can choose from, where the choice is its own; two machines of one processor's name
            may differ in that.
    """

    device: str
    flags: tuple[str, ...]
    runtime: str
    version: str
    provider: str
    threads: int | None
    cores: int | None = None

    @property
    def key(self) -> str:
        """A short name for files, different for different machines and settings."""
        known = asdict(self)
        if self.threads is not None or self.cores is None:
            del known["cores"]
        return sha256(repr(sorted(known.items())).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """For documents."""
        return {**asdict(self), "flags": list(self.flags)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Identity:
        """The inverse of :meth:`to_json`."""
        names = ("device", "runtime", "version", "provider", "threads")
        known = {name: document[name] for name in names}
        return cls(flags=tuple(document["flags"]), cores=document.get("cores"), **known)


@dataclass(frozen=True)
class Job:
    """A model to be timed, on random inputs.

    Attributes:
        model: an ONNX file, with its external data where the file says; or the bytes of one.
        batch: size of symbolic first axes.
        dims: sizes of other symbolic axes, by name.
        comes_again: will it be timed more than once?  Then it stays on the device in between.
    """

    model: Path | bytes
    batch: int = 1
    dims: Mapping[str, int] = field(default_factory=dict)
    comes_again: bool = False


@dataclass(frozen=True)
class Times:
    """What was measured of one model.

    Attributes:
        milliseconds: of each counted run, in order.
        medians: one for each round of the alternation; the rounds of models that were measured together
            correspond, so that ratios are taken round by round.
    """

    milliseconds: tuple[float, ...]
    medians: tuple[float, ...]


class Device(Protocol):
    """A machine with a runtime."""

    @property
    def identity(self) -> Identity:
        """What the machine is."""

    def measure(self, jobs: Sequence[Job], *, seconds: float = 3.0) -> list[Times]:
        """Times models in alternation, warmed up.

        Args:
            jobs: the models.
            seconds: about so long for each, warm-up excluded.

        Raises:
            ModelError: a model does not run there, or the machine can't be reached.
        """

    def node_times(self, job: Job, *, seconds: float = 1.0) -> Mapping[str, float] | None:
        """Milliseconds per run by node, named as the runtime's own profiler does; medians over some runs.

        None if the machine has no such profiler: whole graphs are timed then.

        Raises:
            ModelError: the model does not run there.
        """
