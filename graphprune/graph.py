"""The dependency graph of a model: groups, reasons, and a networkx view of who is tied to whom."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.algebra import Axis
from graphprune.analysis import Analysis, Use
from graphprune.cost import CostModel
from graphprune.declarations import DeclarationSource, read_declarations
from graphprune.errors import UsageError
from graphprune.garbage import no_collection
from graphprune.groups import Group, find_groups, is_weight
from graphprune.interface_axes import find_open_axes
from graphprune.model import Source, load
from graphprune.registry import normal_domain
from graphprune.shapes.declared_shapes import with_declared_shapes
from graphprune.shapes.fold_shapes import prepare
from graphprune.shapes.shape_values import subgraphs


@dataclass(frozen=True)
class Step:
    """One link of an explanation: at this node, these two axes share their units."""

    node: str
    op_type: str
    source: tuple[str, int]
    target: tuple[str, int]


@dataclass(frozen=True)
class Explanation:
    """Why an axis can or can't be pruned, and what goes with it.

    Attributes:
        value: tensor name.
        axis: axis asked for.
        size: its size, at the nominal input sizes.
        groups: ids of the groups that its positions depend on and that can shrink.
        blocked: the other groups that its positions depend on, and why they can't.
        members: parameter axes that shrink with it.
        reasons: why positions are blocked; empty if each of them can go.
        chain: links from the axis to the node that blocks it.
        goes_with: groups with a unit that takes the whole tensor along: blocks, experts.
        changes: what removal changes besides, for groups that are not exact.
        is_block: is it a whole block, and no axis?
    """

    value: str
    axis: int
    size: int
    groups: list[str]
    blocked: dict[str, str]
    members: list[tuple[str, int]]
    reasons: list[str]
    chain: list[Step]
    goes_with: list[str]
    changes: list[str]
    is_block: bool = False


class DependencyGraph:
    """Everything known about what can go together.

    Attributes:
        model: the prepared model that the analysis ran on.
        analysis: axes in terms of units.
        groups: prunable and blocked groups.
        cost: the cost model.
    """

    def __init__(self, analysis: Analysis, file_bytes: int, digest: Future[str]) -> None:
        self.analysis = analysis
        self.model = analysis.model
        self._digest = digest
        self.groups: list[Group] = find_groups(analysis)
        self.cost = CostModel(analysis, file_bytes)
        self._groups_of: dict[int, tuple[Axis, list[Group]]] = {}

    @property
    def sha256(self) -> str:
        """SHA-256 of the source."""
        return self._digest.result()

    @cached_property
    def group_of_unit(self) -> npt.NDArray[np.int32]:
        """``[len(algebra)]`` index into ``groups`` of each unit, -1 for none."""
        table = np.full(len(self.analysis.algebra), -1, np.int32)
        for i, group in enumerate(self.groups):
            table[group.units] = i
        return table

    @cached_property
    def uses_by_key(self) -> dict[str, Use]:
        """Parameters by ``OUTPUT_NAME:INPUT_INDEX``."""
        return {use.key: use for use in self.analysis.uses.values()}

    @cached_property
    def nx(self) -> nx.Graph[Any]:
        """Bipartite networkx graph: ``("axis", tensor, axis)`` and ``("op", node)`` vertices.

        An edge says that this node reads or writes that axis; connected axes that share a ``groups``
        entry are coupled there.
        """
        graph: nx.Graph[Any] = nx.Graph()
        for node in self.model.ir.graph.all_nodes():
            op = ("op", node.outputs[0].name)
            graph.add_node(op, op_type=node.op_type, name=node.name or "", domain=node.domain)
            for name, axes in self._axes_at(node):
                for d, axis in enumerate(axes):
                    ids = self.groups_of(axis)
                    if not ids:
                        continue
                    vertex = ("axis", name, d)
                    if vertex not in graph:
                        graph.add_node(vertex, size=axis.size, groups=[g.id for g in ids])
                    graph.add_edge(op, vertex)
        return graph

    def _axes_at(self, node: ir.Node) -> Iterable[tuple[str, list[Axis]]]:
        for i, value in enumerate(node.inputs):
            if value is None:
                continue
            use = self.analysis.uses.get((node, i))
            axes = use.axes if use is not None else self.analysis.axes.get(value.name or "")
            if axes is not None:
                yield value.name or "", axes
        edges = [value for body in subgraphs(node) for value in (*body.inputs, *body.outputs)]
        for value in (*node.outputs, *edges):
            if (value.name or "") in self.analysis.axes:
                yield value.name or "", self.analysis.axes[value.name or ""]

    def groups_of(self, axis: Axis) -> list[Group]:
        """Groups whose units the axis' positions depend on, frozen ones included."""
        if axis.is_plain:
            return []
        known = self._groups_of.get(id(axis.labels))
        if known is None:
            found = np.unique(self.group_of_unit[self.analysis.algebra.resolve(axis)])
            groups = [self.groups[i] for i in found.tolist() if i >= 0]
            # The labels are kept, so that their id stays their own.
            known = self._groups_of[id(axis.labels)] = (axis, groups)
        return known[1]

    def has_tensor(self, name: str) -> bool:
        """Does the prepared model have a tensor of this name?"""
        return name in self.analysis.axes or name in self.model.ir.graph.initializers

    def axes_named(self, name: str) -> list[Axis]:
        """Axes of a value or constant.

        Raises:
            UsageError: the model has no such tensor.
        """
        if name in self.analysis.axes:
            return self.analysis.axes[name]
        for use in self.analysis.uses.values():
            if use.value.name == name:
                return use.axes
        value = self.model.ir.graph.initializers.get(name)
        if value is not None and value.const_value is not None:
            return [self.analysis.algebra.plain(int(n)) for n in value.const_value.shape.numpy()]
        message = f"the model has no tensor '{name}'"
        names = self._names()
        close = get_close_matches(name, names, n=3) or [n for n in names if name in n][:3]
        hint = f"one of {', '.join(close)}" if close else "a name that `graphprune inspect` lists"
        raise UsageError(message, hint=hint)

    def _names(self) -> list[str]:
        return [*self.analysis.axes, *(v or "" for v in self.model.ir.graph.initializers)]

    def explain(self, name: str, axis: int | None = None) -> Explanation:
        """What goes with an axis, or why it is blocked.

        Args:
            name: of a tensor, ``TENSOR:AXIS``, or the id of a group as `inspect` lists it.
            axis: of the tensor; by default what the name says, else the first.

        Raises:
            UsageError: no such tensor or axis.
        """
        if axis is None:
            group = next((g for g in self.groups if g.id == name), None)
            if group is not None and group.kind == "blocks":
                return self.explain_block(group)
            first = None if group is None else group.members[0]
            name, axis = self._place_named(name) if first is None else (first.name, first.axis)
        axes = self.axes_named(name)
        if not -len(axes) <= axis < len(axes):
            message = f"'{name}' has no axis {axis}"
            raise UsageError(message, because=f"it has {len(axes)} axes")
        axis %= len(axes)
        groups = self.groups_of(axes[axis])
        facts = self.analysis.facts
        found = self.analysis.algebra.reasons(axes[axis]) - {0}
        reasons = [str(facts.reasons[r]) for r in sorted(found)]
        if axes[axis].size == 1:
            reasons = ["an axis of size 1 has nothing to give"]
        elif not groups:
            reasons = reasons or [self._why_no_parameter(name)]
        members = sorted({(m.name, m.axis) for g in groups for m in g.members})
        nominal = self.analysis.trace.nominal.get(name)
        return Explanation(
            value=name,
            axis=axis,
            size=nominal[axis] if nominal is not None else axes[axis].size,
            groups=[g.id for g in groups if g.prunable],
            blocked={g.id: g.reason or "" for g in groups if not g.prunable},
            members=members,
            reasons=reasons,
            chain=self._chain(name, axis, groups) if reasons else [],
            goes_with=self._takers(name),
            changes=sorted({change for group in groups for change in group.changes}),
        )

    def _place_named(self, text: str) -> tuple[str, int]:
        """Tensor and axis; a tensor's own name may hold a colon."""
        head, separator, tail = text.rpartition(":")
        if separator and tail.removeprefix("-").isdecimal() and not self.has_tensor(text):
            return head, int(tail)
        return text, 0

    def explain_block(self, group: Group) -> Explanation:
        """What a residual branch or a layer takes along."""
        members = sorted({(m.name, m.axis) for m in group.members})
        return Explanation(
            group.id, 0, 1, [group.id], {}, members, [], [], [group.id], list(group.changes), is_block=True
        )

    def _takers(self, name: str) -> list[str]:
        """Groups with a unit whose removal leaves nothing that reads or makes this tensor."""
        spans = self.analysis.spans
        found = []
        for group in self.groups:
            for node in (n for unit in group.units.tolist() for n in spans.get(unit, ())):
                if any(v is not None and v.name == name for v in (*node.inputs, *node.outputs)):
                    found.append(group.id)
                    break
        return found

    def _why_no_parameter(self, name: str) -> str:
        value = self.model.ir.graph.initializers.get(name)
        reader = next((node for node, _ in value.uses()), None) if value is not None else None
        if reader is None:
            return "no parameter makes this axis"
        if (normal_domain(reader.domain), reader.op_type) in self.analysis.without_rule:
            return f"an operator without a rule reads it ({reader.op_type} '{reader.name}')"
        return f"it is read as sizes or positions, not as weights ({reader.op_type} '{reader.name}')"

    def _chain(self, name: str, axis: int, groups: list[Group]) -> list[Step]:
        """Shortest way from the axis to the node that froze it, through axes that share a group."""
        start = ("axis", name, axis)
        if start not in self.nx:
            return []
        wanted = {g.id for g in groups}
        blockers = {
            self.analysis.facts.reasons[r].node
            for g in groups
            for r in self.analysis.algebra.frozen_for(g.units[:1]).tolist()
            if r
        }
        tree = nx.bfs_predecessors(self.nx.subgraph(self._coupled(wanted)), start)
        before = dict(tree)
        goal = next((v for v in before if v[0] == "op" and self.nx.nodes[v]["name"] in blockers), None)
        if goal is None:
            outputs = {v.name for v in self.model.ir.graph.outputs}
            goal = next((v for v in before if v[0] == "axis" and v[1] in outputs), None)
        steps: list[Step] = []
        while goal is not None and goal != start:
            above = before[goal]
            if goal[0] == "axis":
                here = self.nx.nodes[above]
                source = before[above]
                steps.append(Step(here["name"], here["op_type"], source[1:], goal[1:]))
                goal = source
            else:
                goal = above
        return steps[::-1]

    def _coupled(self, wanted: set[str]) -> list[Any]:
        return [
            v for v, data in self.nx.nodes(data=True) if v[0] == "op" or wanted.intersection(data["groups"])
        ]

    def prunable_params_fraction(self) -> float:
        """Share of the weights' elements that lie at a removable position of some axis."""
        total = stuck = 0
        seen: set[int] = set()
        algebra = self.analysis.algebra
        for use in self.analysis.uses.values():
            if id(use.value) in seen:
                continue
            seen.add(id(use.value))
            if not is_weight(use):
                continue
            sizes = [axis.size for axis in use.axes]
            total += int(np.prod(sizes, dtype=np.int64))
            fixed = [int((~(algebra.live(a) > 0).any(axis=1)).sum()) for a in use.axes]
            stuck += int(np.prod(fixed, dtype=np.int64))
        for value in self.model.ir.graph.initializers.values():
            tensor = value.const_value
            if id(value) not in seen and tensor is not None and tensor.dtype.is_floating_point():
                total += tensor.size
                stuck += tensor.size
        return 1.0 - stuck / total if total else 0.0


@no_collection()
def analyze(
    model: Source,
    dims: Mapping[str, int] | None = None,
    *,
    declarations: DeclarationSource | None = None,
    allow_io: Collection[str] = (),
    in_place: bool = False,
) -> DependencyGraph:
    """Finds everything in a model that can be removed together.

    Args:
        model: from :func:`graphprune.load`, or what it takes; not changed.
        dims: sizes for symbolic dimensions, by name (``{"batch": 2}``).
        declarations: axes of operators that have no rule, by name (``{"mydomain.MyOp": "b c -> b c"}``),
            or a TOML file of them: see docs/declarations.md.
        allow_io: globs over the names of model inputs and outputs that may shrink (``["past_*"]``, or
            with axes ``["past_*:1,3"]``); the others are protected.
        in_place: the model is changed instead of copied: it is given away.

    Raises:
        ModelError: the model can't be understood.
        UsageError: a declaration is wrong, or an item of ``allow_io`` matches nothing.
    """
    source = load(model)
    declared = read_declarations(declarations)
    digest = source.digest()
    prepared, trace = prepare(with_declared_shapes(source, declared), dims, in_place=in_place)
    opened = find_open_axes(prepared.ir.graph, trace, allow_io)
    analysis = Analysis(prepared, trace, declarations=declared, open_axes=opened).run()
    return DependencyGraph(analysis, source.file_bytes, digest)
