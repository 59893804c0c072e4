"""Which units of a model are which of its stand-in's: by the positions of constants that they take along."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphprune.algebra import Axis
from graphprune.analysis import Analysis, Use
from graphprune.axes_kept import Keeps
from graphprune.graph import DependencyGraph
from graphprune.realnumbers.places import Place, Places

Removed = npt.NDArray[np.bool_]
Units = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pair:
    """One constant at one place: as the file has it, and as the stand-in does."""

    own: Use
    other: Use
    place: Place

    def axes(self) -> Iterator[tuple[Axis, Axis, int]]:
        """Axis of the file's constant, of the stand-in's, and positions of that one for each of the first."""
        for d, axis in enumerate(self.other.axes):
            yield self.own.axes[self.place.axes[d]], axis, self.place.repeat[d]


def pairs_of(own: DependencyGraph, other: DependencyGraph, places: Places) -> list[Pair]:
    """All constants of both; those that are read in one place in the file may be read in several here."""
    found = []
    for use in other.analysis.uses.values():
        place = places.by_name.get(use.value.name or "")
        key = place.key if place is not None else use.key
        mine = own.uses_by_key.get(key)
        if mine is None or not use.axes:
            continue
        rank = len(use.axes)
        known = place if place is not None else Place(key, tuple(range(rank)), (1,) * rank)
        if max(known.axes) < len(mine.axes):
            found.append(Pair(mine, use, known))
    return found


class Correspondence:
    """Units of the stand-in that go where a unit of the file goes.

    A unit of the stand-in belongs to one of the file if it takes no position along that the other leaves.
    The other way round there may be several: what one scale stands for goes as a whole.

    Args:
        own: graph of the file's model.
        other: graph of the stand-in.
        pairs: constants of both.
    """

    def __init__(self, own: DependencyGraph, other: DependencyGraph, pairs: Sequence[Pair]) -> None:
        self._own, self._other, self._pairs = own.analysis, other.analysis, pairs
        mine, theirs = _inside(own.analysis, other.analysis, pairs)
        blocks = list(_blocks(own, other, pairs))
        self.mine = np.concatenate([mine, np.array([a for a, _ in blocks], np.int64)])
        self.theirs = np.concatenate([theirs, np.array([b for _, b in blocks], np.int64)])

    def removed(self, mine: Removed) -> Removed | None:
        """Units of the stand-in for a cut; None if it has no cut that leaves the same positions."""
        found = np.zeros(len(self._other.algebra), bool)
        found[self.theirs[mine[self.mine]]] = True
        own, other = Keeps(self._own, mine), Keeps(self._other, found)
        for pair in self._pairs:
            for axis, twin, repeat in pair.axes():
                kept, others = own.of(axis), other.of(twin)
                kept = np.ones(axis.size, bool) if kept is None else kept
                others = np.ones(twin.size, bool) if others is None else others
                if not np.array_equal(np.repeat(kept, repeat)[: twin.size], others):
                    return None
        return found

    def scores(self, theirs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """``[len(algebra)]`` of the file: sums over what goes with a unit; NaN for a unit with nothing."""
        found = np.full(len(self._own.algebra), np.nan)
        found[self.mine] = 0.0
        np.add.at(found, self.mine, theirs[self.theirs])
        return found


def _inside(own: Analysis, other: Analysis, pairs: Sequence[Pair]) -> tuple[Units, Units]:
    """Pairs of units of which all positions of the second are positions of the first."""
    together: list[Units] = []
    alone: list[Units] = []
    seen: set[tuple[int, int]] = set()
    width = len(other.algebra)
    for pair in pairs:
        for axis, twin, repeat in pair.axes():
            key = (id(axis.labels), id(twin.labels))
            if twin.is_plain or key in seen:
                continue
            seen.add(key)
            theirs = other.algebra.live(twin).astype(np.int64)
            alone.append(theirs.ravel())
            if axis.is_plain:
                continue
            mine = np.repeat(own.algebra.live(axis).astype(np.int64), repeat, axis=0)[: len(theirs)]
            if len(mine) == len(theirs):
                together.append((mine[:, :, None] * width + theirs[:, None, :]).ravel())
    if not together:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    codes, counts = np.unique(np.concatenate(together), return_counts=True)
    mine, theirs = codes // width, codes % width
    total = np.bincount(np.concatenate(alone), minlength=width)
    whole = (counts == total[theirs]) & (mine > 0) & (theirs > 0)
    return mine[whole], theirs[whole]


def _blocks(own: DependencyGraph, other: DependencyGraph, pairs: Sequence[Pair]) -> Iterator[tuple[int, int]]:
    """Blocks of both that take the same matrices along."""
    mine = {pair.other.key: pair.own.key for pair in pairs if len(pair.other.axes) > 1}
    known = set(mine.values())
    theirs: dict[frozenset[str], int] = {}
    for group in other.groups:
        if group.kind == "blocks":
            keys = frozenset(mine[m.use] for m in group.members if m.use in mine)
            theirs[keys] = int(group.units[0])
    for group in own.groups:
        if group.kind == "blocks":
            found = theirs.get(frozenset(m.use for m in group.members if m.use in known))
            if found is not None:
                yield int(group.units[0]), found
