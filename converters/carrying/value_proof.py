"""Do the carried arrays make the pruned model's constants?  Computed forward again, for every constant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
import numpy.typing as npt
from graphprune.converters.carrying.explaining import Explanation
from graphprune.converters.carrying.norms import ROUNDING, rounding_of
from graphprune.converters.carrying.places import Place
from graphprune.converters.carrying.updates import NewValues, new_constants
from graphprune.converters.carrying.votes import Kept

from graphprune.model import Model

Array = npt.NDArray[Any]
#: Why new numbers are not known.
LOST = "the file with the new weights has no constant there: another tool may have renamed or folded it"


def failures(
    places: Sequence[Place],
    found: Explanation,
    kept: Kept,
    arrays: Mapping[str, Array],
    new: NewValues,
    pruned: Model | None,
    lost: Set[Place] = frozenset(),
) -> tuple[float, list[tuple[str, str, str]]]:
    """Largest relative error over all constants, and (constant, use, reason) of those that differ.

    Args:
        places: of the original model.
        found: what their constants are made of.
        kept: what stays of the arrays.
        arrays: the source's, as they were.
        new: what they become.
        pruned: the pruned model; None: the plain cut.
        lost: places of which the pruned model does not say what they are.
    """
    now = None if pruned is None else new_constants(places, pruned)
    carried = _Carried(kept, arrays, new)
    worst, failed = 0.0, []
    for place in places:
        link = found.links.get(place)
        if link is None or place.is_gone:
            continue
        if place in lost:
            failed.append((place.name, place.key, LOST))
            continue
        if not carried.touches(link.sources):
            continue
        if any(name in kept.refused or name in kept.gone for name in link.sources):
            if not any(name in kept.refused for name in link.sources):
                failed.append((place.name, place.key, "it stays, and nothing stays of its array"))
            continue
        wanted = place.cut(place.array) if now is None or place not in now else now[place]
        made = place.cut(link.forward(carried.of(link.sources)))
        if made.shape != wanted.shape:
            failed.append((place.name, place.key, f"made {list(made.shape)} of it, not {list(wanted.shape)}"))
            continue
        error = _error(made, np.asarray(wanted, np.float64))
        types = (wanted.dtype, *(arrays[name].dtype for name in link.sources))
        limit = max(2 * ROUNDING, *map(rounding_of, types))
        worst = max(worst, error)
        if not error <= limit:
            reason = f"the carried arrays make numbers that differ by {error:.2g}: other uses need others"
            failed.append((place.name, place.key, reason))
    return worst, failed


class _Carried:
    """The arrays after carrying, at their original sizes, with zeros where something went."""

    def __init__(self, kept: Kept, arrays: Mapping[str, Array], new: NewValues) -> None:
        self._kept, self._arrays, self._new = kept, arrays, new

    def touches(self, names: Sequence[str]) -> bool:
        """Did any of them change?"""
        return any(
            n in self._kept.axes or n in self._kept.gone or n in self._new.values or n in self._kept.refused
            for n in names
        )

    def of(self, names: Sequence[str]) -> dict[str, Array]:
        """These arrays."""
        found = {}
        for name in names:
            whole = self._arrays[name]
            values = self._new.values.get(name)
            part = self._kept.cut(name, whole) if values is None else values
            found[name] = self._kept.spread(name, part, whole.shape)
        return found


def _error(made: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64]) -> float:
    if not wanted.size:
        return 0.0
    scale = np.abs(wanted).max()
    difference = np.abs(made - wanted).max()
    return float(difference / scale) if scale > 0 else float(difference)
