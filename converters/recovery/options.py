"""What a user can set for a recovery, checked before anything is read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from graphprune.errors import UsageError

#: Minutes that a run takes if nobody says how long it may.
MINUTES = 20.0
LOSSES = ("auto", "kl", "error")
PRECISIONS = ("float32", "bfloat16")
AUGMENTATIONS = ("flip", "shift")
AUTO = "auto"


@dataclass(frozen=True)
class Options:
    """Settings of one run; `graphprune.converters.recovery.recover` says what they mean."""

    epochs: float | None = None
    minutes: float | None = None
    batch_size: int = 64
    lr: float = 2e-3
    weight_decay: float = 0.0
    loss: str = "auto"
    temperature: float = 4.0
    label_weight: float = 0.1
    hidden: tuple[str, ...] = ()
    hidden_weight: float = 1.0
    mix: float = 0.5
    augment: tuple[str, ...] = ()
    held_out: float = 0.1
    patience: int = 6
    precision: str = "float32"
    device: str = "cpu"
    threads: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Every number is one that makes sense.

        Raises:
            UsageError: one does not.
        """
        if self.epochs is None and self.minutes is None:
            object.__setattr__(self, "minutes", MINUTES)
        for name in ("epochs", "minutes", "lr", "temperature"):
            _require(name, getattr(self, name), lambda x: 0 < x < float("inf"), "a number above 0")
        for name in ("batch_size", "patience"):
            _require(name, getattr(self, name), lambda x: x >= 1, "a whole number, at least 1")
        for name in ("weight_decay", "hidden_weight"):
            _require(name, getattr(self, name), lambda x: 0 <= x < float("inf"), "0 or more")
        for name in ("threads", "seed"):
            _require(name, getattr(self, name), lambda x: x >= 0, "a whole number, 0 or more")
        for name in ("mix", "label_weight"):
            _require(name, getattr(self, name), lambda x: 0 <= x <= 1, "a share between 0 and 1")
        _require("held_out", self.held_out, lambda x: 0 < x < 1, "a share between 0 and 1")
        _require_one_of("loss", self.loss, LOSSES)
        _require_one_of("precision", self.precision, PRECISIONS)
        for item in self.augment:
            _require_one_of("augment", item, AUGMENTATIONS)

    def fixed(self) -> dict[str, Any]:
        """What a run that is taken up again must have in common with the first one, as plain numbers."""
        found = asdict(self)
        for name in ("threads", "device"):  # where and how fast it runs may change
            del found[name]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in found.items()}


def _require(name: str, value: Any, is_right: Any, hint: str) -> None:
    if value is not None and not is_right(value):
        message = f"{name} can't be {value}"
        raise UsageError(message, hint=hint)


def _require_one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        message = f"there is no {name} '{value}'"
        raise UsageError(message, hint=f"one of {', '.join(known)}")
