"""Which axes of the model's inputs and outputs may shrink: none, unless the user names them.

Other programs feed a model and read it, so its signature is protected.  ``allow_io`` opens it: globs over
the names of inputs and outputs, each with ``:AXIS,AXIS`` behind it or not.  Without axes, all fixed axes
of the tensor are meant but the first (the batch).  Sizes that the model leaves open never shrink.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import onnx_ir as ir

from graphprune.errors import PlanError, UsageError
from graphprune.plan import InterfacePlan, Plan, positions
from graphprune.shapes.trace import Trace

if TYPE_CHECKING:
    from graphprune.analysis import Analysis
    from graphprune.axes_kept import Keeps

#: Axes by name of the input or output.
OpenAxes = Mapping[str, frozenset[int]]
_WITH_AXES = re.compile(r"(?P<name>.+):(?P<axes>-?\d+(?:,-?\d+)*)$")


@dataclass(frozen=True)
class Protection:
    """One input or output of a model.

    Attributes:
        name: its name.
        kind: "input" or "output".
        shape: sizes; a symbolic one by name, None where nothing is known.
        open_axes: axes that may shrink; it is protected when there are none.
    """

    name: str
    kind: str
    shape: list[int | str | None]
    open_axes: list[int] = field(default_factory=list)


def interface(graph: ir.Graph) -> Iterator[tuple[str, ir.Value]]:
    """Inputs and outputs of a model, with their kind; a constant that a caller may replace is none."""
    yield from (("input", value) for value in graph.inputs if not value.is_initializer())
    yield from (("output", value) for value in graph.outputs)


def find_open_axes(graph: ir.Graph, trace: Trace, allow_io: Collection[str]) -> dict[str, frozenset[int]]:
    """The axes that ``allow_io`` opens.

    Args:
        graph: of the prepared model.
        trace: its shapes.
        allow_io: globs, with axes or without.

    Raises:
        UsageError: an item matches nothing, or names an axis that can't shrink.
    """
    if isinstance(allow_io, str):
        message = f"allow_io is a list of globs, not the text '{allow_io}'"
        raise UsageError(message, hint=f"allow_io=['{allow_io}']")
    names = list(dict.fromkeys(value.name or "" for _, value in interface(graph)))
    found: dict[str, frozenset[int]] = {}
    for item in allow_io:
        pattern, axes = _parse(item, names)
        matched = [name for name in names if fnmatchcase(name, pattern)]
        if not matched:
            message = f"'{item}' matches no input or output of the model"
            raise UsageError(message, hint=f"one of {', '.join(names)}")
        for name in matched:
            fixed = _fixed_axes(name, trace)
            asked = _default(fixed, trace.shapes.get(name, ())) if axes is None else axes
            rank = len(trace.shapes.get(name, ()))
            wrong = [d for d in asked if not -rank <= d < rank or d % rank not in fixed]
            if wrong:
                message = f"axis {wrong[0]} of '{name}' can't be allowed to shrink"
                because = f"its fixed axes are {', '.join(map(str, sorted(fixed))) or 'none'}"
                raise UsageError(message, because=because, hint=f"'{pattern}' without axes")
            found[name] = found.get(name, frozenset()) | {d % rank for d in asked}
    return {name: axes for name, axes in found.items() if axes}


def _parse(item: str, names: Sequence[str]) -> tuple[str, list[int] | None]:
    """The glob and the axes of an item; a name may itself end like ``:0``."""
    with_axes = _WITH_AXES.match(item)
    if with_axes is None or any(fnmatchcase(name, item) for name in names):
        return item, None
    return with_axes["name"], [int(d) for d in with_axes["axes"].split(",")]


def _fixed_axes(name: str, trace: Trace) -> frozenset[int]:
    shape = trace.shapes.get(name, ())
    return frozenset(d for d, n in enumerate(shape) if n > 1 and not trace.is_dynamic(name, d))


def _default(fixed: Collection[int], shape: Sequence[int]) -> list[int]:
    return [d for d in sorted(fixed) if d or len(shape) == 1]


def protections(analysis: Analysis) -> list[Protection]:
    """All inputs and outputs of an analysed model."""
    found = []
    for kind, value in interface(analysis.model.ir.graph):
        name = value.name or ""
        shape = analysis.trace.nominal.get(name)
        sizes: list[int | str | None] = list(shape) if shape is not None else []
        if value.shape is not None:
            sizes = [d if isinstance(d, int) else d.value for d in value.shape]
        found.append(Protection(name, kind, sizes, sorted(analysis.open_axes.get(name, ()))))
    return found


def interface_plan(keeps: Keeps) -> list[InterfacePlan]:
    """What a cut makes of the inputs and outputs: one entry for each axis that shrinks."""
    entries = []
    for kind, value in interface(keeps.analysis.model.ir.graph):
        for d, axis in enumerate(keeps.analysis.axes.get(value.name or "", [])):
            mask = keeps.of(axis)
            if mask is not None:
                entries.append(InterfacePlan(value.name or "", kind, d, axis.size, positions(mask)))
    return entries


def allowed_by(plan: Plan) -> list[str]:
    """What a plan needs to be allowed, as items of ``allow_io``."""
    return list(dict.fromkeys(f"{glob.escape(entry.name)}:{entry.axis}" for entry in plan.interface))


def require_open(plan: Plan, analysis: Analysis) -> None:
    """What a plan does to the signature is allowed.

    Raises:
        PlanError: it is not, or the model has no such input or output.
    """
    for entry in plan.interface:
        if entry.axis not in analysis.open_axes.get(entry.name, ()):
            message = f"the plan shrinks axis {entry.axis} of '{entry.name}', which is protected"
            because = "the dependency graph was made without allow_io for this model input or output"
            raise PlanError(message, because=because, hint=f"analyze(model, allow_io={allowed_by(plan)})")


def require_interface(plan: Plan, keeps: Keeps) -> None:
    """The signature that a plan states is the one that its parameters lead to.

    Raises:
        PlanError: it is not.
    """
    stated = {(e.name, e.kind, e.axis): e.keep for e in plan.interface}
    found = {(e.name, e.kind, e.axis): e.keep for e in interface_plan(keeps)}
    for name, kind, axis in [*stated, *found]:
        if stated.get((name, kind, axis)) != found.get((name, kind, axis)):
            message = f"the plan does not fit axis {axis} of the {kind} '{name}'"
            because = "it keeps other positions there than its parameters do"
            hint = "a plan made for this model, with its 'interface' as it was written"
            raise PlanError(message, because=because, hint=hint)
