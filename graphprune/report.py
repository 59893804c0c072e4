"""What `inspect` and `prune` found, as data: one dataclass, read as an object, a table or JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from graphprune.graph import DependencyGraph
from graphprune.interface_axes import Protection, protections
from graphprune.layers import layer_of
from graphprune.registry import normal_domain
from graphprune.rules import RULES

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ModelSummary:
    """Size and cost of a model at its nominal input sizes."""

    nodes: int
    macs: int
    params: int
    bytes: int
    opset: int
    dims: dict[str, int]


@dataclass(frozen=True)
class MemberSummary:
    """One parameter axis of a group."""

    name: str
    axis: int


@dataclass(frozen=True)
class GroupSummary:
    """One group.

    Attributes:
        id: name of the group.
        kind: "channels", "heads", "head_dim", ...
        size: number of units.
        prunable: can units go?
        exact: does removal equal zeroing?
        reason: why it is blocked; None if it is not.
        changes: statistics that run over its axes, for a group that is not exact.
        layer: the part of the network that its first parameter belongs to.
        members: parameter axes that shrink together.
        macs: multiply-adds of the nodes that shrink with it.
        params: elements of the parameters that shrink with it.
    """

    id: str
    kind: str
    size: int
    prunable: bool
    exact: bool
    reason: str | None
    changes: tuple[str, ...]
    layer: str
    members: tuple[MemberSummary, ...]
    macs: int
    params: int


@dataclass(frozen=True)
class OpSummary:
    """An operator of the model, and whether it has a coupling rule."""

    domain: str
    op_type: str
    count: int
    rule: bool


@dataclass(frozen=True)
class InspectReport:
    """What there is to prune in a model."""

    model: ModelSummary
    groups: tuple[GroupSummary, ...]
    ops: tuple[OpSummary, ...]
    prunable_params_fraction: float
    interface: tuple[Protection, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The report as a document with ``schema_version``."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}


def inspect(graph: DependencyGraph) -> InspectReport:
    """Summarises a dependency graph."""
    cost = graph.cost.evaluate()
    analysis = graph.analysis
    macs = _macs_of_groups(graph)
    sizes = {use.value.name or "": use.value.const_value for use in analysis.uses.values()}
    groups = []
    for i, group in enumerate(graph.groups):
        tensors = {m.name: sizes[m.name] for m in group.members}
        groups.append(
            GroupSummary(
                id=group.id,
                kind=group.kind,
                size=group.size,
                prunable=group.prunable,
                exact=group.exact,
                reason=group.reason,
                changes=group.changes,
                layer=layer_of(graph.uses_by_key[group.members[0].use].node),
                members=tuple(
                    MemberSummary(n, a) for n, a in dict.fromkeys((m.name, m.axis) for m in group.members)
                ),
                macs=macs[i],
                params=sum(t.size for t in tensors.values() if t is not None),
            )
        )
    counts = Counter((normal_domain(n.domain), n.op_type) for n in graph.model.ir.graph.all_nodes())
    opsets = graph.model.ir.opset_imports
    declared = analysis.declarations.table
    ops = tuple(
        OpSummary(d or "ai.onnx", o, n, (d, o) in declared or RULES.find(d, o, opsets.get(d, 1)) is not None)
        for (d, o), n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )
    summary = ModelSummary(
        nodes=sum(1 for _ in graph.model.ir.graph.all_nodes()),
        macs=cost.macs,
        params=cost.params,
        bytes=cost.bytes,
        opset=graph.model.opset,
        dims=dict(analysis.trace.nominal_dims),
    )
    ends = tuple(protections(analysis))
    return InspectReport(summary, tuple(groups), ops, graph.prunable_params_fraction(), ends)


def _macs_of_groups(graph: DependencyGraph) -> list[int]:
    total = [0] * len(graph.groups)
    for node, terms in graph.cost.nodes.items():
        axes = [factor.axis for factors in terms for factor in factors if not factor.axis.is_plain]
        units = [np.unique(graph.analysis.algebra.resolve(axis)) for axis in axes]
        if units:
            touched = np.unique(graph.group_of_unit[np.concatenate(units)])
            for i in touched[touched >= 0].tolist():
                total[i] += graph.cost.node_macs(node)
    for i, group in enumerate(graph.groups):  # what goes as a whole with one of the units
        dying = {node for unit in group.units.tolist() for node in graph.analysis.spans.get(unit, ())}
        total[i] += sum(graph.cost.node_macs(node) for node in dying)
    return total
