"""Allocators: how much goes from each group, so that the targets are met.

An allocator is a callable object: ``allocator(allocation) -> removed units``.  Every one takes any cost,
meets all targets by exact cost, and respects floors, alignment and what must stay.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphprune.passes.allocators.allocation import Allocation as Allocation
from graphprune.passes.allocators.allocation import Allocator as Allocator
from graphprune.passes.allocators.allocation import Pool as Pool
from graphprune.passes.allocators.auto import Auto
from graphprune.passes.allocators.evolutionary import Evolutionary
from graphprune.passes.allocators.isomorphic import Isomorphic
from graphprune.passes.allocators.knapsack import Knapsack
from graphprune.passes.allocators.levels import ByLevel
from graphprune.passes.allocators.levels import global_ranking as global_ranking
from graphprune.passes.allocators.levels import uniform as uniform
from graphprune.passes.allocators.limits import Limits as Limits
from graphprune.passes.allocators.measured import Measured
from graphprune.passes.allocators.rate_distortion import RateDistortion
from graphprune.passes.allocators.scaled import Scaled
from graphprune.passes.allocators.sensitivity import Sensitivity

#: Names for the command line and :func:`graphprune.plan`.
ALLOCATORS: Mapping[str, Allocator] = {
    "auto": Auto(),
    "evolutionary": Evolutionary(),
    "global": ByLevel(global_ranking),
    "isomorphic": Isomorphic(),
    "knapsack": Knapsack(),
    "measured": Measured(),
    "rate-distortion": RateDistortion(),
    "scaled": Scaled(),
    "sensitivity": Sensitivity(),
    "uniform": ByLevel(uniform),
}
