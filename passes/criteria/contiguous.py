"""A contiguous run of blocks goes: the one whose ends differ least (Gromov et al. 2024; PPCL)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from graphprune.passes.criteria.block_change import angles_between, ends_of, feature_axis_of
from graphprune.passes.criteria.blocks import blocks_of
from graphprune.passes.criteria.magnitude import Magnitude

from graphprune.blocks import Block
from graphprune.calibration.evidence import Evidence

Scores = npt.NDArray[np.float64]
#: Samples whose streams are compared.
SAMPLES = 32
_PIECE = 4


@dataclass(frozen=True)
class Contiguous:
    """Ranks blocks by the growing run that they are part of, in the longest chain of blocks.

    A run begins with one block and takes the neighbour that leaves its ends nearer to each other; of all
    beginnings, that whose runs have the least angles in sum.  Blocks outside of the chain go last.

    Attributes:
        base: of all units but blocks.
        additive: these are ranks.
    """

    base: Callable[[Evidence], Scores] = field(default_factory=Magnitude)
    additive: bool = False

    def __call__(self, evidence: Evidence) -> Scores:
        """Scores ``[len(algebra)]``."""
        scores = self.base(evidence).copy()
        chain = longest_chain(evidence.graph.analysis.blocks)
        order = run_order(angles_of_runs(evidence, chain)) if chain else []
        ranks = {chain[i].unit: rank + 1.0 for rank, i in enumerate(order)}
        for group in blocks_of(evidence):
            unit = int(group.units[0])
            scores[unit] = ranks.get(unit, len(ranks) + 1.0)
        return scores


def longest_chain(blocks: Sequence[Block]) -> list[Block]:
    """The most blocks of which each begins where the one before ends."""
    best: list[Block] = []
    ending: dict[object, list[Block]] = {}
    for block in blocks:
        start, end = ends_of(block)
        chain = [*ending.get(start, []), block] if start is not None else [block]
        if len(chain) > len(ending.get(end, [])):
            ending[end] = chain
        best = max(best, chain, key=len)
    return best


def angles_of_runs(evidence: Evidence, chain: Sequence[Block]) -> Scores:
    """``[blocks + 1, blocks + 1]``: mean angle between the stream before one block and before another."""
    first = ends_of(chain[0])[0]
    assert first is not None
    values = [first, *(ends_of(block)[1] for block in chain)]
    axis = feature_axis_of(evidence, values[-1])
    session = evidence.exposing(values)
    names = [output.name for output in session.get_outputs()]
    read = [value.name for value in session.get_inputs()]
    total, count = np.zeros((len(values), len(values))), 0
    for batch in evidence.samples.take(SAMPLES).batches(_PIECE):
        found = dict(zip(names, session.run(names, {n: batch[n] for n in read}), strict=True)) | batch
        streams = [found[value.name or ""] for value in values]
        count += 1
        for i in range(len(values)):
            for j in range(i + 1, len(values)):
                total[i, j] += float(angles_between(streams[i], streams[j], axis).mean())
    return total / max(count, 1)


def run_order(angles: Scores) -> list[int]:
    """Blocks in the order in which the best growing run takes them."""
    many = len(angles) - 1
    best: tuple[float, list[int]] | None = None
    for start in range(many):
        low, high, order = start, start + 1, [start]
        total = angles[low, high]
        while len(order) < many:
            before = angles[low - 1, high] if low > 0 else np.inf
            after = angles[low, high + 1] if high < many else np.inf
            if before <= after:
                low -= 1
                order.append(low)
            else:
                order.append(high)
                high += 1
            total += min(before, after)
        if best is None or total < best[0]:
            best = (total, order)
    return best[1] if best is not None else []
