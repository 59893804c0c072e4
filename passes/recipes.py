"""Recipes: named combinations of a criterion, an allocator and a compensator.

Each has a page in ``docs/recipes.md`` with its paper, its formula and measured numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from graphprune.errors import UsageError


@dataclass(frozen=True)
class Recipe:
    """What decides a plan and the weights that are left.

    Attributes:
        criterion: importance of a unit.
        allocator: how the budget is shared.
        compensator: what the kept weights become.
        source: the paper or project that it follows.
        kinds: kinds of groups that it cuts; None: all that keep the model's interface.
        spares_streams: residual streams are cut only where the target calls for it.
        data_free: samples are always made up, whatever the user gives.
    """

    criterion: str
    allocator: str = "auto"
    compensator: str = "none"
    source: str = ""
    kinds: tuple[str, ...] | None = None
    data_free: bool = False
    spares_streams: bool = False


#: The one that is used when nothing is named.
DEFAULT = "graphprune"

#: Names for the command line and :func:`graphprune.prune`.
RECIPES: Mapping[str, Recipe] = {
    DEFAULT: Recipe("structures", "auto", "joint", "this project", spares_streams=True),
    "spa-l1": Recipe("l1", "global", "none", "Wang et al. 2024, arXiv:2403.18955"),
    "obspa": Recipe("obs", "global", "obs", "Wang et al. 2024, arXiv:2403.18955"),
    "obspa-datafree": Recipe("obs", "global", "obs", "Wang et al. 2024, arXiv:2403.18955", data_free=True),
    "dfpc": Recipe("dfpc", "global", "none", "Narshana et al. 2023, ICLR", data_free=True),
    "lamp": Recipe("lamp", "global", "none", "Lee et al. 2021, arXiv:2010.07611"),
    "flap": Recipe("flap", "global", "bias", "An et al. 2024, arXiv:2312.11983"),
    "wanda-sp": Recipe("wanda", "uniform", "none", "Sun et al. 2024, arXiv:2306.11695, structured by FLAP"),
    "cfsp": Recipe("cfsp", "rate-distortion", "none", "Wang et al. 2025, arXiv:2409.13199"),
    "udfc": Recipe(
        "combination",
        "global",
        "combination",
        "Bai et al. 2023, arXiv:2308.07209",
        data_free=True,
        spares_streams=True,
    ),
    "ziplm": Recipe("obs", "knapsack", "obs", "Kurtic et al. 2023, arXiv:2302.04089"),
    "k-prune": Recipe("obs", "global", "sequential", "Park et al. 2024, arXiv:2308.03449"),
    "rocket": Recipe("variance", "knapsack", "sequential", "ROCKET, the allocation only"),
    "evopress": Recipe("obs", "evolutionary", "obs", "Sieberling et al. 2025, arXiv:2410.14649"),
    "darwin": Recipe("obs", "evolutionary", "obs", "Tang et al. 2025, arXiv:2502.07780"),
    "tyr": Recipe("obs", "evolutionary", "sequential", "Li et al. 2025, arXiv:2503.09657"),
    "shortened": Recipe("block-effect", "auto", "none", "Kim et al. 2024, arXiv:2402.02834", ("blocks",)),
    "blockprune": Recipe("contiguous", "global", "none", "Gromov et al. 2024, arXiv:2403.17887", ("blocks",)),
    "expert-drop": Recipe(
        "expert-subset", "global", "none", "Lu et al. 2024, arXiv:2402.14800", ("experts",)
    ),
    "reap": Recipe("reap", "global", "none", "Lasby et al. 2025, arXiv:2510.13999", ("experts",)),
}


def choose(
    recipe: str | None = None,
    *,
    criterion: str | None = None,
    allocator: str | None = None,
    compensator: str | None = None,
) -> Recipe:
    """The combination that the options ask for.

    A named part replaces the recipe's.  A criterion without a recipe stands for itself: the budget is shared
    as suits its scores, and the weights stay as they are.

    Raises:
        UsageError: there is no such recipe.
    """
    if recipe is not None and recipe not in RECIPES:
        message = f"unknown recipe '{recipe}'"
        raise UsageError(message, hint=f"one of {', '.join(sorted(RECIPES))}")
    stands_alone = recipe is None and criterion is not None
    base = Recipe(criterion) if stands_alone and criterion else RECIPES[recipe or DEFAULT]
    named = {"criterion": criterion, "allocator": allocator, "compensator": compensator}
    for part, name in named.items():
        if name is not None and name != getattr(base, part):
            base = replace(base, **{part: name})  # type: ignore[arg-type]
    return base
