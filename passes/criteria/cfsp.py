"""Coarse to fine: how much a block matters, and within it, how much each unit does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from graphprune.passes.criteria.block_change import angular_changes, block_of_node
from graphprune.passes.criteria.readers import Reader, readers_of, shares_of_magnitude

from graphprune.calibration.evidence import Consumer, Evidence
from graphprune.groups import Group

Scores = npt.NDArray[np.float64]
_TINY = float(np.finfo(float).tiny)


@dataclass(frozen=True)
class CoarseToFine:
    """CFSP (Wang et al. 2024), with weights that count.

    Fine: the norm of a unit's activations, times its share of the weights: of ``|W_jo| ‖x_j‖`` among all that
    add to an output at the layers that read it, of ``|W_ij|`` among all that are made of an input at those
    that make it.  (The released code normalises along the axis that it averages over, so that the weights
    cancel.)  The fine scores of a group add up to 1.

    Coarse: they are multiplied by how much the blocks that read the group turn their input together (the mean
    of ``arccos(cos(x_in, x_out)) / pi``, relative to that over all blocks): without a stream, none of its
    blocks works.  A group that no block reads counts like one average block.  A block itself gets its coarse
    number.

    Attributes:
        additive: a score is the share of a group's effect that goes with a unit.
    """

    additive: bool = True

    def __call__(self, evidence: Evidence) -> Scores:
        """Scores ``[len(algebra)]``.

        Raises:
            ModelError: a weight is NaN.
        """
        graph = evidence.graph
        coarse = _relative(angular_changes(evidence))
        block_of = block_of_node(graph.analysis.blocks)
        scores = shares_of_magnitude(evidence)
        for group in evidence.groups:
            if group.kind == "blocks":
                scores[group.units] = coarse.get(int(group.units[0]), 1.0)
                continue
            readers = list(readers_of(evidence, group)) if group.prunable else []
            if not readers:
                continue
            nodes = [reader.consumer.layer.node for reader in readers]
            own = {block_of[n] for n in nodes if n in block_of} & coarse.keys()
            fine = _fine(evidence, group, readers)
            weight = sum(coarse[unit] for unit in own) if own else 1.0
            scores[group.units] = fine / max(float(fine.sum()), _TINY) * weight
        return scores


def _relative(changes: dict[int, float]) -> dict[int, float]:
    mean = float(np.mean(list(changes.values()))) if changes else 0.0
    return {unit: change / mean for unit, change in changes.items()} if mean > 0 else {}


def _fine(evidence: Evidence, group: Group, readers: list[Reader]) -> Scores:
    norms = np.zeros(group.size)
    shares = np.zeros(group.size)
    for reader in readers:
        norms += np.sqrt(reader.of_units(reader.power) / max(float(reader.power.sum()), _TINY))
        inflow = np.abs(reader.weight) * np.sqrt(reader.power)[:, :, None]
        per_output = inflow / np.maximum(inflow.sum(axis=1, keepdims=True), _TINY)
        shares += reader.of_units(per_output.mean(axis=2))
    for consumer in evidence.consumers:
        made = _made(evidence, consumer, group)
        if made is not None:
            shares += made
    return norms * shares


def _made(evidence: Evidence, consumer: Consumer, group: Group) -> Scores | None:
    """Mean share of what each input is turned into that goes to each unit; None: not made here."""
    axis = consumer.use.axes[consumer.layer.made]
    if axis.is_plain:
        return None
    algebra = evidence.graph.analysis.algebra
    number = np.full(len(algebra), -1, np.int64)
    number[group.units] = np.arange(group.size)
    owner = number[algebra.live(axis)]
    if (owner < 0).all():
        return None
    weight = np.abs(consumer.matrices)
    local = (weight / np.maximum(weight.sum(axis=2, keepdims=True), _TINY)).mean(axis=1).ravel()
    position, column = np.nonzero(owner >= 0)
    made = np.zeros(group.size)
    np.add.at(made, owner[position, column], local[position])
    return made
