"""What was done to a file of weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from graphprune.plan import Plan

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class CarriedArray:
    """An array of the source that was cut or changed.

    Attributes:
        name: in the source.
        before: its shape.
        after: its new shape; None for one that went.
        how: how it was found in the ONNX model: ``name``, ``value``, ``batch norm``, ``order``; ``with
            others`` where arrays that it belongs to told; ``new`` for one that the source did not have.
        is_updated: did its numbers change as well?
    """

    name: str
    before: tuple[int, ...] | None
    after: tuple[int, ...] | None
    how: str
    is_updated: bool = False


def smaller_heads(plan: Plan) -> str | None:
    """What code of attention has to follow where heads get smaller; None where none does."""
    found = [group for group in plan.groups if group.kind == "head_dim" and len(group.keep) < group.size]
    if not found:
        return None
    return (
        f"the heads of attention got smaller ({len(found)} of the plan's groups): code that computes the "
        "scale from head_dim must keep the old scale, 1/sqrt(head_dim before the cut)"
    )


@dataclass(frozen=True)
class CarryReport:
    """What :func:`graphprune.carry` did to a file.

    Attributes:
        source: as given.
        out: what was written; None if nothing was.
        arrays: those that were cut or changed, in the source's order.
        parameters: numbers before and after.
        error: largest relative difference between constants made of the carried arrays and those of the
            pruned ONNX model.
        notes: what a user should know.
    """

    source: str
    out: str | None
    arrays: tuple[CarriedArray, ...]
    parameters: tuple[int, int]
    error: float
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The report as plain dicts and lists."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}
