"""A plan carried to a file of weights.

A file holds no network that could be run, so a match that rests on the order of equal arrays alone is
refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from graphprune.converters.carrying.carry_report import CarriedArray, CarryReport, smaller_heads
from graphprune.converters.carrying.hints import module_of
from graphprune.converters.carrying.layouts import is_one_number
from graphprune.converters.carrying.matching import Matching, match
from graphprune.converters.carrying.new_weights import require_new_weights
from graphprune.converters.carrying.source_cut import SourceCut
from graphprune.converters.carrying.weight_files import Weights, kind_of, open_weights
from graphprune.converters.staging import staged

from graphprune.errors import CarryError, UsageError
from graphprune.model import Model
from graphprune.plan import Plan
from graphprune.storage.stamps import Stamps
from graphprune.storage.writing import require_apart

Array = npt.NDArray[Any]
_SHOWN = 8


def carry_file(
    plan: Plan,
    source: Path,
    out: Path | None,
    *,
    model: Model,
    weights: Model | None = None,
    trust: bool = False,
) -> CarryReport:
    """Writes the weights in ``source`` as the plan leaves them.

    Args:
        plan: made for ``model``.
        source: a ``.safetensors`` file, the index of several, or a file that torch saved.
        out: the file to write, of the same kind; None: nothing is written.
        model: the ONNX model that the plan was made for.
        weights: the pruned ONNX model, where its weights were updated.
        trust: see :func:`open_weights`.

    Raises:
        CarryError: something that the plan cuts was not found; nothing is written.
        ModelError: a file can't be read or written.
        UsageError: writing would replace the source, or a file of it; or the name is one of another kind.
    """
    if out is not None and kind_of(out) != kind_of(source):
        what = f"cannot write the weights of '{source}' to '{out}'"
        because = "what is written is a file of the source's kind"
        raise UsageError(what, because=because, hint=f"a name that ends in {' or '.join(kind_of(source))}")
    read = Stamps.of([source])
    file = open_weights(source, trust=trust)
    read = read.with_those_of(source.parent / name for name in file.file_names)
    if out is not None:
        # The files that an index names keep their names: in the source's folder they would replace it.
        written = [out, *(out.parent / name for name in file.file_names)]
        require_apart(written, [source, *(source.parent / name for name in file.file_names)])
    arrays = file.arrays
    matching = match(model, plan, arrays, weights)
    require_new_weights(matching, model, plan, arrays, weights)
    require_matched(matching, str(source))
    new = carried_arrays(matching.cut, arrays)
    added = {name: (_beside(name, arrays), array) for name, array in matching.cut.added.items()}
    if out is not None:
        with staged(out) as path:
            file.write(path, new, added)
            read.require_same()
    before = sum(array.size for array in arrays.values())
    left = {**arrays, **new, **matching.cut.added}
    return CarryReport(
        source=str(source),
        out=None if out is None else str(out),
        arrays=tuple(listed(matching.cut, arrays, new)),
        parameters=(before, sum(array.size for array in left.values() if array is not None)),
        error=matching.error,
        notes=tuple(_notes(plan, matching.cut, arrays, file)),
    )


def require_matched(matching: Matching, source: str) -> None:
    """All that the plan cuts was found, and nothing by its order alone.

    Raises:
        CarryError: not so.
    """
    missing = [(each.constant, each.use, each.reason) for each in matching.unmatched]
    # Arrays that only their order tells apart are marked where it makes a difference to size or numbers.
    guessed = [name for name, how in matching.cut.how.items() if how == "order"]
    reason = "other arrays hold the same numbers, and only their order tells which is which"
    missing += [(name, "", reason) for name in guessed]
    if not missing:
        return
    constant, use, because = missing[0]
    what = f"cannot tell what the plan leaves of '{source}'"
    if len(missing) > 1:
        because = f"{because} ({len(missing) - 1} more could not be matched)"
    hint = "the checkpoint that the model was exported from"
    if guessed or all(each.needs_run for each in matching.unmatched):
        hint = "a live module, which can be run: graphprune carry PLAN module:factory OUT"
    raise CarryError(
        what, missing, where=f"'{constant}'" + (f" at {use}" if use else ""), because=because, hint=hint
    )


def carried_arrays(cut: SourceCut, arrays: Mapping[str, Array]) -> dict[str, Array | None]:
    """What each array becomes that changes; None where it goes."""
    changed: dict[str, Array | None] = {}
    for name, array in arrays.items():
        if name in cut.gone:
            changed[name] = None
        elif name in cut.values:
            changed[name] = np.ascontiguousarray(cut.values[name])
        elif name in cut.kept:
            for axis, positions in cut.kept[name].items():
                array = np.take(array, positions, axis=axis)
            changed[name] = np.ascontiguousarray(array)
    return changed


def listed(
    cut: SourceCut, arrays: Mapping[str, Array], new: Mapping[str, Array | None]
) -> list[CarriedArray]:
    """A line for each array that changed."""
    found = []
    for name, array in new.items():
        shape = None if array is None else tuple(int(n) for n in array.shape)
        how = cut.how.get(name, "with others")
        found.append(CarriedArray(name, tuple(arrays[name].shape), shape, how, name in cut.values))
    for name, array in cut.added.items():
        found.append(CarriedArray(name, None, tuple(array.shape), "new", is_updated=True))
    return found


def _beside(name: str, arrays: Mapping[str, Array]) -> str:
    return next(other for other in arrays if module_of(other) == module_of(name))


def _notes(plan: Plan, cut: SourceCut, arrays: Mapping[str, Array], file: Weights) -> list[str]:
    """What was left as it was although it may belong to the weights, and what code has to follow."""
    known = {file.container(name) for name in (*cut.how, *cut.kept)}
    others = dict.fromkeys(file.container(n) for n in arrays if file.container(n) not in known)
    notes = [f"left as it was, since the model does not read it: '{part}'" for part in others]
    if cut.added:
        notes.append(f"the module needs a bias where it had none: {', '.join(cut.added)}")
    if cut.gone:
        notes.append("whole arrays went: the code that calls these layers has to go as well")
    copies = list(_copies(cut, arrays))
    if copies:
        shown = ", ".join(f"'{name}'" for name in copies[:_SHOWN]) + (", ..." if len(copies) > _SHOWN else "")
        notes.append(f"equal to arrays that got new numbers, and left with their old ones: {shown}")
    heads = smaller_heads(plan)
    return [*notes, heads] if heads else notes


def _copies(cut: SourceCut, arrays: Mapping[str, Array]) -> Iterator[str]:
    """Second copies of updated arrays, as averaged weights are: the model reads the others."""
    told = [name for name in cut.values if name in cut.how]
    for name, array in arrays.items():
        alike = [other for other in told if arrays[other].shape == array.shape]
        if name in cut.how or name in cut.values or (alike and is_one_number(array)):
            continue
        if any(np.array_equal(arrays[other], array) for other in alike):
            yield name
