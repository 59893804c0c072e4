"""The stand-in: what criteria, effects and compensators look at in place of a model of few digits.

Scores, measured effects and least squares need real numbers and layers that multiply by a constant.  A
quantized model has neither, and one in 16 bits overflows and rounds where sums are taken.  So they are
given its copy in real numbers; the cut itself is made in the file's own graph, and new weights are written
in the file's own types.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from graphprune.analysis import Analysis
from graphprune.axes_kept import Keeps
from graphprune.calibration.evidence import Evidence
from graphprune.calibration.samples import Samples
from graphprune.graph import DependencyGraph
from graphprune.groups import Group
from graphprune.model import Model
from graphprune.passes.compensators import Compensator
from graphprune.passes.compensators.parallel import Parallel
from graphprune.passes.compensators.rematch import Rematch
from graphprune.passes.compensators.sequential import Sequential
from graphprune.passes.effect import Effect
from graphprune.realnumbers.copying import has_few_digits, real_copy
from graphprune.realnumbers.places import Places
from graphprune.realnumbers.units import Correspondence, pairs_of
from graphprune.realnumbers.writing_back import constants_of, write_back
from graphprune.rewrite import cut
from graphprune.shapes.fold_shapes import prepare
from graphprune.widened import wide_float

Removed = npt.NDArray[np.bool_]


class StandInEvidence(Evidence):
    """Evidence on a stand-in, with the samples of the model that it stands for."""

    def __init__(self, graph: DependencyGraph, own: Evidence) -> None:
        super().__init__(graph, seed=own.seed, threads=own.threads, progress=own.progress)
        self._own, self.journal = own, own.journal

    @property
    def is_synthetic(self) -> bool:
        """Are the samples made up?"""
        return self._own.is_synthetic

    @cached_property
    def samples(self) -> Samples:
        """The same, in float32."""
        own = self._own.samples
        feeds = {name: wide_float(array) for name, array in own.feeds.items()}
        return Samples(feeds, own.labels, own.shared, own.size, own.whole)


class StandIn:
    """A model's copy in real numbers, and how the two hang together.

    Args:
        own: evidence on the file's model.
        graph: of the copy.
        places: where its constants stand in the file.
    """

    def __init__(self, own: Evidence, graph: DependencyGraph, places: Places) -> None:
        self._own, self._graph, self._places = own, graph, places
        self._units = Correspondence(own.graph, graph, pairs_of(own.graph, graph, places))
        self.evidence = StandInEvidence(graph, own)
        self._effect, self._own_effect = Effect(self.evidence), Effect(own)

    @classmethod
    def of(cls, own: Evidence) -> StandIn | None:
        """For a model of few digits; None for any other, and where an operator needs the integers."""
        graph = own.graph
        if not has_few_digits(graph.model):
            return None
        found = real_copy(graph.model)
        if found is None:
            return None
        prepared, trace = prepare(found[0], graph.analysis.trace.nominal_dims, in_place=True)
        analysis = Analysis(
            prepared, trace, declarations=graph.analysis.declarations, open_axes=graph.analysis.open_axes
        ).run()
        return cls(own, DependencyGraph(analysis, prepared.file_bytes, prepared.digest()), found[1])

    @property
    def is_quantized(self) -> bool:
        """Are weights of the model integers?"""
        return self._places.is_quantized

    def admit(self, groups: Sequence[Group]) -> None:
        """Only these groups of the file's model are in question."""
        mine = np.zeros(len(self._own.graph.analysis.algebra), bool)
        for group in groups:
            mine[group.units] = True
        theirs = np.zeros(len(self._graph.analysis.algebra), bool)
        theirs[self._units.theirs[mine[self._units.mine]]] = True
        self.evidence.admit([g for g in self._graph.groups if g.prunable and theirs[g.units].any()])

    def scores(
        self,
        judge: Callable[[Evidence], npt.NDArray[np.float64]],
        fallback: Callable[[Evidence], npt.NDArray[np.float64]],
    ) -> npt.NDArray[np.float64]:
        """Scores of the file's units; by ``fallback`` for those that the stand-in does not know."""
        found = self._units.scores(judge(self.evidence))
        if np.isnan(found).any():
            found = np.where(np.isnan(found), fallback(self._own), found)
        return found

    def effect(self, removed: Removed) -> float:
        """Relative squared error of the outputs for a cut of the file's model; by its own if it must be."""
        theirs = self._units.removed(removed)
        return self._own_effect(removed) if theirs is None else self._effect(theirs)

    def streams(self) -> set[str]:
        """Ids of the file's groups that are the widths of residual streams."""
        ids = self.evidence.streams()
        theirs = np.zeros(len(self._graph.analysis.algebra), bool)
        for group in self._graph.groups:
            if group.id in ids:
                theirs[group.units] = True
        mine = np.zeros(len(self._own.graph.analysis.algebra), bool)
        mine[self._units.mine[theirs[self._units.theirs]]] = True
        return {group.id for group in self._own.graph.groups if mine[group.units].any()}

    def compensate(
        self, change: Compensator, removed: Removed, pruned: Model, counted: Collection[str]
    ) -> Model:
        """New weights for a cut of the file's model, which is changed and returned.

        Args:
            change: what the kept weights become.
            removed: units of the file's model that are gone.
            pruned: the cut.
            counted: metrics of the targets.
        """
        theirs = self._units.removed(removed)
        if theirs is None:
            return pruned
        if (
            self._places.is_quantized
            or (self._places.is_recast and not {"params", "bytes"}.isdisjoint(counted))
        ) and isinstance(change, (Parallel, Sequential, Rematch)):
            change = replace(change, grows=False)
        stand_in = cut(self._graph.analysis, theirs)
        places = {
            use.key: place
            for use in self._graph.analysis.uses.values()
            if (place := self._places.by_name.get(use.value.name or "")) is not None
        }
        with self.evidence.substitutes.applied(stand_in, Keeps(self._graph.analysis, theirs)):
            _ = self.evidence.batches
            before = constants_of(stand_in)
            stand_in = change(self.evidence, theirs, stand_in)
            write_back(pruned, before, constants_of(stand_in), places)
        return pruned
