"""Criteria for whole experts: how often they are chosen, what they say, what the layer is without them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from graphprune.passes.criteria.expert_subsets import eliminated
from graphprune.passes.criteria.magnitude import Magnitude
from graphprune.passes.criteria.routers import Router, router_of

from graphprune.calibration.evidence import Consumer, Evidence
from graphprune.calibration.gathered import Gathered
from graphprune.calibration.rows import is_weighted, weights_of
from graphprune.groups import Group

Scores = npt.NDArray[np.float64]
#: Scores of a router's experts, one per position.
Judge = Callable[[Evidence, Router], "Scores | str"]


@dataclass(frozen=True)
class ExpertCriterion:
    """Scores experts by a judge of their own, and all other units by another criterion.

    Attributes:
        judge: of the experts.
        base: of all else, and of experts whose router is not recognised.
        additive: do sums of the experts' scores estimate an error?
        refused: per group of experts, why the judge could not score it.
    """

    judge: Judge
    base: Callable[[Evidence], Scores] = field(default_factory=Magnitude)
    additive: bool = False
    refused: dict[str, str] = field(default_factory=dict, compare=False)

    def __call__(self, evidence: Evidence) -> Scores:
        """Scores ``[len(algebra)]``."""
        scores = self.base(evidence).copy()
        for group in evidence.groups:
            if group.kind == "experts" and group.prunable:
                found = judged(evidence, group, self.judge)
                if isinstance(found, str):
                    self.refused[group.id] = found
                else:
                    scores[group.units] = found
        return scores


def judged(evidence: Evidence, group: Group, judge: Judge) -> Scores | str:
    """Scores ``[size]`` of a group of experts, or why there are none."""
    router = router_of(evidence, group)
    if isinstance(router, str):
        return router
    found = judge(evidence, router)
    if isinstance(found, str):
        return found
    place = {unit: i for i, unit in enumerate(router.units.tolist())}
    return np.asarray(found[[place[unit] for unit in group.units.tolist()]])


def frequency(evidence: Evidence, router: Router) -> Scores:
    """Share of the tokens that each expert is chosen for."""
    counts, tokens = np.zeros(len(router.units)), 0
    session = evidence.exposing([router.chosen])
    read = [value.name for value in session.get_inputs()]
    for batch in evidence.batches:
        chosen = np.asarray(session.run(None, {n: batch[n] for n in read})[0])
        counts += np.bincount(chosen.ravel(), minlength=len(counts))
        tokens += chosen.size // chosen.shape[-1]
    return counts / max(tokens, 1)


def reap(evidence: Evidence, router: Router) -> Scores | str:
    """Mean over its tokens of ``gate * ||expert(x)||`` (REAP, Lasby et al. 2025), 0 without tokens."""
    last = _last_layers(evidence, router)
    if len(last) < len(router.units):
        return "not every expert has a last layer whose rows a gate multiplies"
    wanted = {v.name: v for c in last.values() for v in (*c.layer.reads, c.layer.output)}
    gates = (c.landing.importance for c in last.values())
    wanted |= {v.name: v for v in gates if v is not None}
    session = evidence.exposing(list(wanted.values()))
    names = [output.name for output in session.get_outputs()]
    read = [value.name for value in session.get_inputs()]
    said, rows = np.zeros(len(router.units)), np.zeros(len(router.units))
    for batch in evidence.batches:
        found = dict(zip(names, session.run(names, {n: batch[n] for n in read}), strict=True)) | batch
        for i, unit in enumerate(router.units.tolist()):
            layer, landing = last[unit].layer, last[unit].landing
            output = found[layer.output.name or ""]
            weights = weights_of(layer, landing, found, output.shape)
            assert weights is not None
            own = weights.scaled(weights.take(layer.targets(output)))[0]
            said[i] += float(np.linalg.norm(own, axis=1).sum())
            rows[i] += len(own)
    return said / np.maximum(rows, 1)


def _last_layers(evidence: Evidence, router: Router) -> dict[int, Consumer]:
    """Unit -> the layer that makes what the expert says, before the gate."""
    analysis = evidence.graph.analysis
    owner = {node: unit for unit in router.units.tolist() for node in analysis.spans.get(unit, ())}
    last: dict[int, Consumer] = {}
    for consumer in evidence.consumers:
        layer = consumer.layer
        if not is_weighted(layer, consumer.landing):
            continue
        if isinstance(layer, Gathered):
            units = analysis.algebra.live(consumer.use.axes[0])
            unit = int(units[layer.expert, 0]) if units.shape[1] else 0
        else:
            unit = owner.get(layer.node, 0)
        if unit in set(router.units.tolist()):
            last[unit] = consumer
    return last


def routing_frequency() -> ExpertCriterion:
    """Experts by how often they are chosen."""
    return ExpertCriterion(frequency)


def reap_criterion() -> ExpertCriterion:
    """Experts by what they add to the tokens that go to them."""
    return ExpertCriterion(reap)


def expert_subset() -> ExpertCriterion:
    """Experts by the error of the layer's output without them."""
    return ExpertCriterion(eliminated)
