"""What a plan takes from a machine: widths that it likes, and a latency to meet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from graphprune.device.align import group_steps
from graphprune.device.goal import LatencyGoal
from graphprune.device.options import Tuning
from graphprune.device.profiles import find_profile
from graphprune.errors import UsageError
from graphprune.graph import DependencyGraph
from graphprune.passes.allocators.limits import Limits
from graphprune.progress import Progress

LATENCY = "latency"


def aligned(
    graph: DependencyGraph, limits: Limits, tuning: Tuning | None, target: Collection[str], progress: Progress
) -> tuple[Limits, dict[str, Any] | None]:
    """The limits with steps for each group, as the machine likes widths; and what the plan records of it.

    Args:
        graph: of the model.
        limits: with one alignment for all.
        tuning: the machine; None: nothing is asked of it.
        target: metrics.
        progress: is told how far measuring is.
    """
    asks = tuning is not None and (LATENCY in target if tuning.auto_align is None else tuning.auto_align)
    if tuning is None or not asks:
        return limits, None
    profile = find_profile(tuning.device(), progress)
    multiples = profile.multiples(_dtype(graph)) or profile.multiples()
    return replace(limits, steps=group_steps(graph, multiples)), {
        "auto": multiples,
        "profile": profile.origin,
    }


def _dtype(graph: DependencyGraph) -> str:
    """Element type that most of the weights have."""
    sizes: Counter[str] = Counter()
    for value in graph.model.ir.graph.initializers.values():
        if value.const_value is not None:
            sizes[value.const_value.dtype.name] += value.const_value.nbytes
    return "float16" if sizes["FLOAT16"] > sizes["FLOAT"] else "float32"


def latency_goal(
    graph: DependencyGraph, tuning: Tuning | None, target: Collection[str], progress: Progress
) -> LatencyGoal | None:
    """What a latency target asks for; None without one.

    Raises:
        UsageError: no machine is named.
    """
    if LATENCY not in target:
        return None
    if tuning is None:
        message = "a latency target without a machine"
        raise UsageError(message, hint="provider, threads and batch, as for prune")
    return LatencyGoal(graph, tuning.device(), tuning.batch, progress)
