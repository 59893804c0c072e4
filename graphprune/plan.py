"""The plan: which positions of which parameters stay.  A JSON document, and all that a cut needs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graphprune.documents import parse_json, read_text
from graphprune.errors import PlanError
from graphprune.storage.text_files import text_ready_at

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class GroupPlan:
    """What stays of one group: ``keep`` are sorted positions within the group."""

    id: str
    kind: str
    exact: bool
    size: int
    keep: list[int]


@dataclass(frozen=True)
class ParameterPlan:
    """What stays along one axis of one constant.

    Attributes:
        name: of the constant in the input file.
        axis: the axis that shrinks.
        size: its size before.
        keep: sorted positions that stay; none along axis 0 of a constant that goes whole.
        uses: consuming inputs (``OUTPUT_NAME:INPUT_INDEX``) this entry is for; None: all.
        groups: ids of the groups that the axis depends on.
    """

    name: str
    axis: int
    size: int
    keep: list[int]
    uses: list[str] | None
    groups: list[str]


@dataclass(frozen=True)
class InterfacePlan:
    """What stays along one axis of a model input or output.

    Attributes:
        name: of the input or output.
        kind: "input" or "output".
        axis: the axis that shrinks.
        size: its size before.
        keep: sorted positions that stay.
    """

    name: str
    kind: str
    axis: int
    size: int
    keep: list[int]


@dataclass(frozen=True)
class Plan:
    """A decision, ready to be saved, compared, applied again or carried to another framework.

    Attributes:
        model_file: the model's path as it was given; None for a model in memory. ``model_sha256`` tells
            whether the file is still the same.
    """

    model_sha256: str
    target: dict[str, float]
    reached: dict[str, float]
    groups: list[GroupPlan]
    parameters: list[ParameterPlan]
    schema_version: int = SCHEMA_VERSION
    options: dict[str, Any] = field(default_factory=dict)
    interface: list[InterfacePlan] = field(default_factory=list)
    model_file: str | None = None

    def noting(self, **options: Any) -> Plan:
        """The same with these options on record."""
        return replace(self, options={**self.options, **options})

    def to_json(self) -> dict[str, Any]:
        """The document as plain dicts and lists."""
        return asdict(self)

    def text(self) -> str:
        """The document as a file has it."""
        return json.dumps(self.to_json(), indent=1) + "\n"

    @property
    def sha256(self) -> str:
        """SHA-256 of the file that :meth:`save` writes."""
        return hashlib.sha256(self.text().encode()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Writes the document; the file appears whole or not at all.

        Raises:
            ModelError: the path can't be written.
        """
        with self.ready_at(path):
            pass

    @contextmanager
    def ready_at(self, path: str | Path | None) -> Iterator[None]:
        """Writes the document beside its place; it takes this place when the block ends well.

        Args:
            path: the file; None: nothing is written.

        Raises:
            ModelError: the path can't be written.
        """
        if path is None:
            yield
            return
        with text_ready_at(Path(path), self.text(), "the plan"):
            yield

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Reads a plan file.

        Raises:
            PlanError: the file is missing, no JSON, or no plan of this version.
        """
        try:
            document = parse_json(read_text(path))
        except OSError as error:
            message = f"cannot read the plan '{path}'"
            raise PlanError(message, because=str(error.strerror)) from error
        except ValueError as error:
            message = f"'{path}' is not a plan file"
            raise PlanError(message, because=f"no valid JSON: {error}") from error
        return cls.from_json(document, where=str(path))

    @classmethod
    def from_json(cls, document: Mapping[str, Any], where: str = "the plan") -> Plan:
        """A plan from its document, checked.

        Raises:
            PlanError: a field is missing or of the wrong type, or the version is unknown.
        """
        version = document.get("schema_version") if isinstance(document, Mapping) else None
        if version != SCHEMA_VERSION:
            message = f"cannot read a plan of schema_version {version!r}"
            raise PlanError(message, where=where, hint=f"schema_version {SCHEMA_VERSION}")
        try:
            return cls(
                model_sha256=str(document["model_sha256"]),
                target=_amounts(document["target"]),
                reached=_amounts(document["reached"]),
                groups=[_group(g) for g in document["groups"]],
                parameters=[_parameter(p, where) for p in document["parameters"]],
                options=dict(document.get("options", {})),
                interface=[_interface(e, where) for e in document.get("interface", [])],
                model_file=_optional_text(document.get("model_file")),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            message = "the plan is incomplete or malformed"
            raise PlanError(message, where=where, because=f"{type(error).__name__}: {error}") from error


def _amounts(entry: Mapping[str, Any]) -> dict[str, float]:
    found = {str(metric): float(amount) for metric, amount in entry.items()}
    _require(all(map(math.isfinite, found.values())), "targets and what was reached are finite numbers")
    return found


def _group(entry: Mapping[str, Any]) -> GroupPlan:
    plan = GroupPlan(**entry)
    _require(isinstance(plan.id, str) and isinstance(plan.kind, str), "a group's id and kind are texts")
    _require(isinstance(plan.exact, bool), f"'exact' of group '{plan.id}' is true or false")
    _require(_are_ints([plan.size]) and _are_ints(plan.keep), f"sizes of group '{plan.id}' are integers")
    is_sorted = all(a < b for a, b in pairwise([-1, *plan.keep, plan.size]))
    _require(is_sorted, f"what group '{plan.id}' keeps is sorted, distinct and within 0..{plan.size - 1}")
    return plan


def _parameter(entry: Mapping[str, Any], where: str) -> ParameterPlan:
    plan = ParameterPlan(**entry)
    _require(isinstance(plan.name, str), "a parameter's name is a text")
    _require(_are_ints([plan.axis, plan.size]), f"axis and size of '{plan.name}' are integers")
    _require(
        plan.uses is None or _are_texts(plan.uses), f"'uses' of '{plan.name}' is null or a list of texts"
    )
    _require(_are_texts(plan.groups), f"'groups' of '{plan.name}' is a list of texts")
    _check_keep(plan, where)
    return plan


def _interface(entry: Mapping[str, Any], where: str) -> InterfacePlan:
    plan = InterfacePlan(**entry)
    _require(isinstance(plan.name, str), "the name of an input or output is a text")
    _require(plan.kind in ("input", "output"), f"'kind' of '{plan.name}' is input or output")
    _require(_are_ints([plan.axis, plan.size]), f"axis and size of '{plan.name}' are integers")
    _check_keep(plan, where)
    _require(bool(plan.keep), f"'{plan.name}' keeps a position of axis {plan.axis}")
    return plan


def _optional_text(entry: Any) -> str | None:
    _require(entry is None or isinstance(entry, str), "'model_file' is null or a text")
    return None if entry is None else str(entry)


def _check_keep(plan: ParameterPlan | InterfacePlan, where: str) -> None:
    ok = _are_ints(plan.keep) and all(a < b for a, b in pairwise([-1, *plan.keep, plan.size]))
    if not ok or plan.axis < 0:
        message = f"the kept indices of '{plan.name}', axis {plan.axis} are not valid"
        raise PlanError(
            message,
            where=where,
            because=f"they must be sorted, distinct and within 0..{plan.size - 1}, the axis at least 0",
        )


def _require(holds: bool, expected: str) -> None:
    if not holds:
        raise TypeError(expected)


def _are_ints(items: Any) -> bool:
    return isinstance(items, list) and all(type(item) is int for item in items)


def _are_texts(items: Any) -> bool:
    return isinstance(items, list) and all(isinstance(item, str) for item in items)


def positions(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Kept positions of a mask, as the plan file writes them."""
    return list(np.flatnonzero(mask).tolist())
