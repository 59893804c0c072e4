"""What a recovery did."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from graphprune.converters.recovery.outputs import Standing

from graphprune.model import Model


@dataclass(frozen=True)
class RecoverResult:
    """A recovered model and how it does on samples that it was never fitted to.

    Attributes:
        model: the recovered model; the one that was given if nothing got better.
        output: the file, if one was written.
        improved: did anything get better?
        before: the model that was given, on the held-out samples.
        after: the recovered one.
        loss: held-out loss before and after.
        history: part of the run and held-out loss, look by look.
        kinds: what each output was taken for.
        hidden: tensors in between that were learned.
        ignored: outputs that were not learned.
        steps: of the optimizer.
        epochs: times that every sample was seen.
        seconds: of training.
        fitted: number of samples learned from.
        held_out: number of samples held out.
        trained: number of parameters that were trained.
        notes: what a user should know.
    """

    model: Model
    output: Path | None
    improved: bool
    before: Standing
    after: Standing
    loss: tuple[float, float]
    history: tuple[tuple[float, float], ...]
    kinds: dict[str, str]
    hidden: tuple[str, ...]
    ignored: tuple[str, ...]
    steps: int
    epochs: float
    seconds: float
    fitted: int
    held_out: int
    trained: int
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Everything but the model itself."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "model"}
        fields["output"] = None if self.output is None else str(self.output)
        fields["before"], fields["after"] = asdict(self.before), asdict(self.after)
        for name in ("loss", "history", "hidden", "ignored", "notes"):
            fields[name] = list(fields[name])
        return fields
