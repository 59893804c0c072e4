"""From options to the objects that decide: what is asked for, checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graphprune.calibration.evidence import Evidence
from graphprune.calibration.samples import SampleSource
from graphprune.errors import UsageError
from graphprune.graph import DependencyGraph
from graphprune.passes.allocators import ALLOCATORS
from graphprune.passes.compensators import COMPENSATORS
from graphprune.passes.criteria import CRITERIA
from graphprune.passes.recipes import DEFAULT, RECIPES, Recipe, choose
from graphprune.progress import Progress
from graphprune.realnumbers.standin import StandIn


@dataclass(frozen=True)
class Strategy:
    """A recipe, and the samples that it may look at.

    Attributes:
        recipe: criterion, allocator and compensator.
        calibration: the user's samples; None: they are made up when somebody asks for them.
        samples: how many are used.
        seed: of everything random.
        dims: sizes for symbolic dimensions of made-up samples.
        progress: is told how far which stage is.
        name: of the recipe, as the user gave it.
    """

    recipe: Recipe
    calibration: SampleSource | None = None
    samples: int | None = None
    seed: int = 0
    dims: Mapping[str, int] | None = None
    progress: Progress | None = None
    name: str = DEFAULT
    _known: dict[int, tuple[DependencyGraph, Evidence]] = field(default_factory=dict)
    _stand_ins: dict[int, StandIn | None] = field(default_factory=dict)

    def evidence(self, graph: DependencyGraph) -> Evidence:
        """The samples together with a graph; the same object for the same graph.

        Raises:
            CalibrationError: the samples don't fit the model.
        """
        known = self._known.get(id(graph))
        if known is None:
            found = Evidence(
                graph, self.calibration, limit=self.samples, seed=self.seed, dims=self.dims,
                progress=self.progress,
            )  # fmt: skip
            known = self._known[id(graph)] = (graph, found)
        return known[1]

    def stand_in(self, graph: DependencyGraph) -> StandIn | None:
        """What is judged and re-solved in place of a model of few digits; None for any other.

        Raises:
            CalibrationError: the samples don't fit the model.
        """
        if id(graph) not in self._stand_ins:
            self._stand_ins[id(graph)] = StandIn.of(self.evidence(graph))
        return self._stand_ins[id(graph)]

    @property
    def restriction(self) -> str:
        """Which kinds of groups the recipe cuts, as a clause; empty if all."""
        kinds = self.recipe.kinds
        return f"the recipe '{self.name}' removes {', '.join(kinds)} only" if kinds is not None else ""

    @property
    def is_default(self) -> bool:
        """Did the user leave the choice to us?"""
        return self.recipe is RECIPES[DEFAULT]

    def weight_options(self) -> dict[str, Any]:
        """What of :meth:`options` is about the kept weights."""
        found = self.options()
        return {name: found[name] for name in ("compensator", "calibration")}

    def options(self) -> dict[str, Any]:
        """For the plan's record."""
        return {
            "criterion": self.recipe.criterion,
            "allocator": self.recipe.allocator,
            "compensator": self.recipe.compensator,
            "calibration": "none" if self.calibration is None else "samples",
        }


def strategy(
    *,
    recipe: str | None = None,
    criterion: str | None = None,
    allocator: str | None = None,
    compensator: str | None = None,
    calibration: SampleSource | None = None,
    samples: int | None = None,
    seed: int = 0,
    dims: Mapping[str, int] | None = None,
    progress: Progress | None = None,
) -> Strategy:
    """What the options ask for.

    Raises:
        UsageError: a name is unknown, or the number of samples is none.
    """
    chosen = choose(recipe, criterion=criterion, allocator=allocator, compensator=compensator)
    tables: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
        ("criterion", chosen.criterion, CRITERIA),
        ("allocator", chosen.allocator, ALLOCATORS),
        ("compensator", chosen.compensator, COMPENSATORS),
    )
    for noun, name, table in tables:
        if name not in table:
            message = f"unknown {noun} '{name}'"
            raise UsageError(message, hint=f"one of {', '.join(sorted(table))}")
    if samples is not None and samples < 1:
        message = f"{samples} calibration samples are none"
        raise UsageError(message, hint="at least one, better a few hundred")
    given = (
        None if chosen.data_free or (isinstance(calibration, str) and calibration == "none") else calibration
    )
    return Strategy(chosen, given, samples, seed, dims, progress, recipe or DEFAULT)
