"""Where a pruned file comes from: a note in the model's own metadata, the same bytes for the same job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from graphprune.plan import Plan
from graphprune.version import VERSION

PREFIX = "graphprune."
_METRICS = ("macs", "params", "bytes")


@dataclass(frozen=True)
class Origin:
    """What a pruned file says of itself.

    Attributes:
        plan_sha256: of the plan that it was cut by: of the file that ``--plan-out`` writes.
        source_sha256: of the file that was pruned.
        version: of graphprune.
        reached: what is kept of the original's cost; None where it was not measured.
    """

    plan_sha256: str
    source_sha256: str
    version: str
    reached: Mapping[str, float] | None = None

    @classmethod
    def of(cls, plan: Plan, source_sha256: str, reached: Mapping[str, float] | None = None) -> Origin:
        """Of the model that a plan has made."""
        return cls(plan.sha256, source_sha256, VERSION, reached)

    @classmethod
    def read(cls, model: ir.Model) -> Origin | None:
        """What a model says of itself; None if nothing, or nothing that can be read."""
        found = {
            key.removeprefix(PREFIX): text
            for key, text in model.metadata_props.items()
            if key.startswith(PREFIX)
        }
        try:
            pairs = [item.split("=") for item in found["reached"].split()] if "reached" in found else None
            reached = {metric: float(share) for metric, share in pairs} if pairs is not None else None
            return cls(found["plan_sha256"], found["source_sha256"], found["version"], reached)
        except (KeyError, ValueError):
            return None

    def entries(self) -> dict[str, str]:
        """As metadata."""
        found = {
            "plan_sha256": self.plan_sha256,
            "source_sha256": self.source_sha256,
            "version": self.version,
        }
        if self.reached is not None:  # always as long, so that the size of a file is known beforehand
            found["reached"] = " ".join(f"{metric}={self.reached[metric]:.6f}" for metric in _METRICS)
        return {PREFIX + key: text for key, text in found.items()}

    def note_in(self, model: ir.Model) -> None:
        """Writes it into a model's metadata."""
        for key in [key for key in model.metadata_props if key.startswith(PREFIX)]:
            del model.metadata_props[key]
        model.metadata_props.update(self.entries())


#: As long as every note will be: hashes and numbers have a fixed width.
_BLANK = Origin("0" * 64, "0" * 64, VERSION, dict.fromkeys(_METRICS, 0.0))
_FRAMES = 2 + 2 + 2  # tag and length of an entry, of its key and of its text


def leave_room(model: ir.Model) -> None:
    """Notes nothing in as many bytes as the note will have, before sizes are measured."""
    _BLANK.note_in(model)


#: What a file grows by.
NOTE_BYTES = sum(len(key) + len(text) + _FRAMES for key, text in _BLANK.entries().items())
