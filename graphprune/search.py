"""From scores and targets to the units that go, until the file itself is small enough."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

import numpy as np

from graphprune.errors import TargetError
from graphprune.origin import NOTE_BYTES
from graphprune.passes.allocators import Allocation, Allocator
from graphprune.passes.allocators.allocation import Removed
from graphprune.rewrite import cut

_BYTE_ROUNDS = 16
#: What the report says of residual streams that are not cut.
SPARED = "left alone"
#: Part of the effect that has to be left where residual streams are cut.
_WORTH_IT = 0.5


def search(allocation: Allocation, allocator: Allocator) -> Removed:
    """The cut that an allocator finds to meet all targets, with room for what a compensator adds if it can.

    Raises:
        TargetError: even the largest cut does not; says how far it goes and what blocks the rest.
    """
    if allocation.effect is not None and not isinstance(allocation.effect, Remembered):
        allocation = replace(allocation, effect=Remembered(allocation.effect))
    try:
        return _meet(allocation, allocator)
    except TargetError:
        if allocation.room is None:
            raise
    removed = _meet(replace(allocation, room=None), allocator)
    allocation.report.update(new_biases="none: the target leaves no room for them")
    return removed


def _meet(allocation: Allocation, allocator: Allocator) -> Removed:
    removed = allocator(allocation)
    return _meet_bytes(allocation, allocator, removed) if "bytes" in allocation.targets else removed


def search_sparing(allocation: Allocation, allocator: Allocator, streams: Collection[str]) -> Removed:
    """The same, with the residual streams left alone unless they are worth it.

    An error in a stream reaches every layer behind it, and what single layers make up for says too little
    about that.  So streams are cut where the target can't be reached without, or where cutting them too at
    least halves the measured effect.

    Args:
        allocation: of all groups.
        allocator: shares the budget.
        streams: ids of the groups in question.

    Raises:
        TargetError: even the largest cut of all groups does not meet all targets.
    """
    inner = [group for group in allocation.groups if group.id not in streams]
    everywhere = search(allocation, allocator)
    if len(inner) in (0, len(allocation.groups)) or allocation.effect is None:
        return everywhere
    said = dict(allocation.report)
    try:
        spared = search(replace(allocation, groups=inner), allocator)  # the report stays the same dict
    except TargetError:
        allocation.report.clear()
        allocation.report.update(said, streams="cut: the target needs them")
        return everywhere
    with_streams, without = allocation.effect(everywhere), allocation.effect(spared)
    if not 0 < with_streams <= _WORTH_IT * without:
        allocation.report.update(streams=SPARED)
        return spared
    allocation.report.clear()
    allocation.report.update(said, streams=f"cut: effect {with_streams:.3g} instead of {without:.3g}")
    return everywhere


def solver(
    allocation: Allocation, allocator: Allocator, streams: Collection[str] | None
) -> Callable[[float | None], Removed]:
    """A search that can be asked again and again, for other shares of the latency.

    What becomes of the residual streams is decided at the first time: it takes two measured effects.

    Args:
        allocation: of all groups.
        allocator: shares the budget.
        streams: ids of the groups that are spared unless they are worth it; None: there are none.
    """
    known: list[Allocation] = []

    def solve(share: float | None) -> Removed:
        wanted = dict(allocation.targets) if share is None else {**allocation.targets, "latency": share}
        if known:
            try:
                return search(replace(known[0], targets=wanted), allocator)
            except TargetError:
                if known[0] is allocation:
                    raise
            allocation.report.update(streams="cut: the target needs them")
            known[0] = allocation
            return search(replace(allocation, targets=wanted), allocator)
        asked = replace(allocation, targets=wanted)  # the report stays the same dict
        if streams is None:
            return search(asked, allocator)
        removed = search_sparing(asked, allocator, streams)
        is_spared = allocation.report.get("streams") == SPARED
        inner = [group for group in allocation.groups if group.id not in streams]
        known.append(replace(allocation, groups=inner) if is_spared else allocation)
        return removed

    return solve


def _meet_bytes(allocation: Allocation, allocator: Allocator, removed: Removed) -> Removed:
    """Cuts further until the file itself is small enough.

    The file also holds node names, new shape constants and separate copies of constants that were
    shared, which the cost model does not see; so it is written to memory and measured.

    Raises:
        TargetError: the file stays too large.
    """
    graph, target = allocation.graph, allocation.targets["bytes"]
    dense = graph.cost.evaluate()
    allowed = target * dense.bytes
    asked = dict(allocation.targets)
    for _ in range(_BYTE_ROUNDS):
        found = cut(graph.analysis, removed).file_bytes + NOTE_BYTES
        found += allocation.room.extra_bytes(removed) if allocation.room is not None else 0
        if found <= allowed:
            return removed
        cost = graph.cost if allocation.room is None else allocation.room.cost
        estimate = cost.evaluate(removed).ratio(dense)["bytes"]
        # Less than this cut was thought to need, or the same one would be found again.
        asked["bytes"] = 0.999 * min(asked["bytes"], estimate) * allowed / found
        try:
            removed = allocator(replace(allocation, targets=asked))  # the report stays the same dict
        except TargetError:
            break
    message = f"cannot reach bytes={target:.1%}"
    raise TargetError(
        message,
        where=f"the smallest file found has {found} bytes, {found / dense.bytes:.1%} of the original",
        because="names, shape constants and copies of shared constants don't shrink with the weights",
        hint="a larger target, or params=… instead of bytes=…",
    )


class Remembered:
    """An effect that is measured once per cut: files that stay too large make allocators start again."""

    def __init__(self, effect: Callable[[Removed], float]) -> None:
        self._effect = effect
        self._known: dict[bytes, float] = {}

    def __call__(self, removed: Removed) -> float:
        """Effect of a cut."""
        key = np.packbits(removed).tobytes()
        if key not in self._known:
            self._known[key] = self._effect(removed)
        return self._known[key]
