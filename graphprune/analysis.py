"""Runs the coupling rules over a model: one pass, in topological order.

The result says for every tensor axis which units its positions depend on (:mod:`graphprune.algebra`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import onnx_ir as ir

from graphprune.algebra import Algebra, Axis
from graphprune.blocks import Block
from graphprune.declarations import Declarations
from graphprune.depth import find_blocks
from graphprune.index_values import follow_indexes
from graphprune.interface_axes import OpenAxes
from graphprune.lives import Life, Lives
from graphprune.model import Model
from graphprune.quantization import PARAMETERS
from graphprune.registry import normal_domain
from graphprune.rules import RULES
from graphprune.rules.blocked import why_blocked
from graphprune.rules.context import Blocked, Context, Facts, Reason
from graphprune.rules.declared import declared
from graphprune.rules.quantized import KEEPS_ZERO_POINT
from graphprune.safeguards import freeze_unseen, keep_nonempty
from graphprune.shape_uses import numeric_shape_uses
from graphprune.shapes.shape_values import subgraphs
from graphprune.shapes.trace import Trace
from graphprune.storage.constants import is_constant, is_matrix

#: Constant inputs that are not set to zero in the original when their unit is removed: a zero there would
#: divide by zero or turn into something else.  Their values at removed positions do not matter.
KEPT_CONSTANTS = {
    ("Div", 1), ("Mod", 1), ("Pow", 0), ("Pow", 1), ("BatchNormalization", 3), ("BatchNormalization", 4),
    ("Equal", 0), ("Equal", 1), *PARAMETERS,
}  # fmt: skip


@dataclass(frozen=True)
class Use:
    """One constant at one input of one node.

    Attributes:
        node: the consumer.
        index: which input.
        axes: of the constant, in its stored order.
    """

    node: ir.Node
    index: int
    axes: list[Axis]

    @property
    def value(self) -> ir.Value:
        """The constant."""
        value = self.node.inputs[self.index]
        assert value is not None
        return value

    @property
    def key(self) -> str:
        """``OUTPUT_NAME:INPUT_INDEX``, as in the plan file."""
        return f"{self.node.outputs[0].name}:{self.index}"

    @property
    def is_zeroed(self) -> bool:
        """Is a removed slice set to zero in the oracle's original?"""
        return (self.node.op_type, self.index) not in KEPT_CONSTANTS


@dataclass
class Analysis:
    """Axes of every value of a model in terms of units.

    Attributes:
        model: the prepared model (canonical, static shape arithmetic folded).
        trace: shapes.
        algebra: the units.
        facts: reasons, statistics and tags that the rules stated.
        axes: per value name (inputs and node outputs).
        uses: per (node, input index), the constants that a rule treats as parameters.
        without_rule: operators that have no rule, with their counts.
        lives: tensors that die with a unit.
        blocks: residual branches and layers that can go as a whole.
        spans: per unit, the nodes that die with it alone.
        contractions: nodes that multiply two tensors and sum.
        declarations: what the user says about further operators; goes before the rules.
        open_axes: axes of model inputs and outputs that may shrink.
    """

    model: Model
    trace: Trace
    algebra: Algebra = field(default_factory=Algebra)
    facts: Facts = field(default_factory=Facts)
    axes: dict[str, list[Axis]] = field(default_factory=dict)
    uses: dict[tuple[ir.Node, int], Use] = field(default_factory=dict)
    without_rule: Counter[tuple[str, str]] = field(default_factory=Counter)
    lives: Lives = field(init=False)
    blocks: list[Block] = field(default_factory=list)
    spans: dict[int, tuple[ir.Node, ...]] = field(default_factory=dict)
    contractions: set[ir.Node] = field(default_factory=set)
    declarations: Declarations = field(default_factory=Declarations)
    open_axes: OpenAxes = field(default_factory=dict)
    _sums: list[ir.Node] = field(default_factory=list)
    _tied: dict[ir.Value, list[Axis]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.lives = Lives(self.algebra)

    def axes_of(self, node: ir.Node, i: int) -> list[Axis]:
        """Axes of an input; a constant becomes a parameter when a rule first asks.

        A matrix used twice is tied: one set of axes for all its uses.  Equal vectors of unrelated layers
        are merged by the exporters, so each use of a vector is a parameter of its own.
        """
        value = node.inputs[i]
        if value is None:
            message = f"input {i} is absent"
            raise Blocked(message)
        if value.const_value is None or not is_constant(value):
            axes = self.axes.get(value.name or "")
            if axes is None:
                message = f"the shape of '{value.name}' is not known"
                raise Blocked(message)
            return axes
        if (node, i) not in self.uses:
            axes = self._tied.get(value) if is_matrix(value) else None
            if axes is None:
                zero = (node.op_type, i) not in KEPT_CONSTANTS
                axes = [self.algebra.fresh(n, zero=zero) for n in value.const_value.shape.numpy()]
                if value.is_graph_output():
                    for axis in axes:
                        self.freeze(axis, Reason(f"model output '{value.name}'"))
                if is_matrix(value):
                    self._tied[value] = axes
            self.uses[node, i] = Use(node, i, axes)
        return self.uses[node, i].axes

    def run(self) -> Analysis:
        """Applies the rules to every node, then protects what must stay."""
        for value in self.model.ir.graph.inputs:
            why = self.facts.add(Reason(f"model input '{value.name}'"))
            shape = self.trace.shapes.get(value.name or "")
            if shape is not None:
                allowed = self.open_axes.get(value.name or "", frozenset())
                self.axes[value.name or ""] = [
                    self.algebra.fresh(n) if d in allowed else self.algebra.plain(n, why)
                    for d, n in enumerate(shape)
                ]
        for node in self.model.ir.graph:
            self._visit(node)
        for value in self.model.ir.graph.outputs:
            why = self.facts.add(Reason(f"model output '{value.name}'"))
            allowed = self.open_axes.get(value.name or "", frozenset())
            for d, axis in enumerate(self.axes.get(value.name or "", [])):
                if not axis.is_plain and d not in allowed:
                    self.algebra.freeze(axis, why)
        self.protect()
        find_blocks(self, self._sums)
        keep_nonempty(self)
        return self

    def protect(self) -> None:
        """Freezes what can't follow a cut, whatever it is connected to."""
        for value in self.model.ir.graph.outputs:
            name = value.name or ""
            if name in self.facts.indexes:
                self.freeze(self.facts.indexes[name], Reason(f"model output '{name}' counts its positions"))
            if name in self.lives.of:
                self._require_alive(self.lives.of[name], Reason(f"model output '{name}' is made of it"))
        for axis, reason in numeric_shape_uses(self.model.ir.graph, self.axes, self.algebra):
            self.freeze(axis, reason)
        freeze_unseen(self)

    def _require_alive(self, life: Life, reason: Reason) -> None:
        """A tensor that something needs: its only unit stays, or one of many does."""
        if life.axis.size == 1:
            self.freeze(life.axis, reason)
        else:
            self.facts.minimums.append((life.axis, 1, self.facts.add(reason)))

    def _life_of(self, value: ir.Value) -> Axis | None:
        life = self.lives.of.get(value.name or "")
        return life.axis if life is not None and life.void and life.axis.size == 1 else None

    def freeze(self, axis: Axis, reason: Reason) -> None:
        """No position of this axis may go."""
        if not axis.is_plain:
            self.algebra.freeze(axis, self.facts.add(reason))

    def _visit(self, node: ir.Node) -> None:
        opset = self.model.ir.opset_imports.get(node.domain, 1)
        declaration = self.declarations.find(node)
        function = RULES.find(node.domain, node.op_type, opset)
        if declaration is not None:
            function = partial(declared, declaration)
        if function is None:
            domain = normal_domain(node.domain)
            self.without_rule[domain, node.op_type] += 1
            self._refuse(node, why_blocked(domain, node.op_type))
            return
        context = Context(
            node, opset, self.algebra, self.facts, self.trace, self.axes_of, self._life_of,
            partial(self._visit_body, node),
        )  # fmt: skip
        try:
            outputs = function(context)
        except Blocked as reason:
            self._refuse(node, str(reason))
            return
        self._freeze_unasked(node, context.asked)
        for axis in follow_indexes(node, self.facts.indexes, context.indexed):
            self.freeze(axis, Reason("its positions are used as numbers", node.name or "", node.op_type))
        if any(value.uses() or value.is_graph_output() for value in node.outputs[len(outputs) :]):
            self._refuse(node, "its rule does not cover all of its outputs")
            return
        for value, axes in zip(node.outputs, outputs, strict=False):
            if axes is None:
                continue
            shape = self.trace.shapes.get(value.name or "")
            if shape is not None and tuple(a.size for a in axes) != tuple(shape):
                # A rule that does not reproduce the traced shape does not cover this node.
                self._refuse(node, "its rule does not explain its output shape")
                return
            self.axes[value.name or ""] = [
                a if a.size != 1 or a.is_plain else self._single(a, node) for a in axes
            ]
            if node.op_type not in KEEPS_ZERO_POINT:
                axes = self.axes[value.name or ""]
                self.axes[value.name or ""] = [a if a.zero_point is None else a.nonzero() for a in axes]
        if context.dies and context.droppable:
            self._sums.append(node)
        if context.contracts:
            self.contractions.add(node)
        for life in self.lives.visit(node, context):
            self._require_alive(life, Reason("too many parts meet here", node.name or "", node.op_type))

    def _visit_body(
        self, holder: ir.Node, graph: ir.Graph, inputs: Sequence[list[Axis] | None]
    ) -> list[list[Axis] | None]:
        """Applies the rules inside a body, whose inputs have these axes.

        Lives and index values are not followed through a body: what goes in or comes out stays.
        """
        sums, contractions = list(self._sums), set(self.contractions)
        for value, axes in zip(graph.inputs, inputs, strict=True):
            if axes is not None:
                self.axes[value.name or ""] = axes
        for node in graph:
            self._visit(node)
        self._sums, self.contractions = sums, contractions  # only the main graph gives up whole layers
        reason = Reason("a body takes or returns it", holder.name or "", holder.op_type)
        for value in touched(holder):
            if (value.name or "") in self.lives.of:
                self._require_alive(self.lives.of[value.name or ""], reason)
        for value in graph.outputs:
            if (value.name or "") in self.facts.indexes:
                self.freeze(self.facts.indexes[value.name or ""], reason)
        return [self.axes.get(value.name or "") for value in graph.outputs]

    def _freeze_unasked(self, node: ir.Node, asked: set[int]) -> None:
        """Inputs that their rule takes as a whole: shapes, positions, bounds."""
        for i, value in enumerate(node.inputs):
            if value is not None and i not in asked:
                reason = Reason("its values are sizes or positions", node.name or "", node.op_type)
                for axis in self.axes.get(value.name or "", []):
                    self.freeze(axis, reason)

    def _single(self, axis: Axis, node: ir.Node) -> Axis:
        self.freeze(axis, Reason("one position alone makes a tensor", node.name or "", node.op_type))
        return self.algebra.plain(1)

    def _refuse(self, node: ir.Node, text: str) -> None:
        """Nothing that touches this node may shrink."""
        reason = Reason(text, node.name or "", node.op_type)
        why = self.facts.add(reason)
        for value in touched(node):
            name = value.name or ""
            if name in self.facts.indexes:
                self.freeze(self.facts.indexes[name], reason)
            if name in self.lives.of:
                self._require_alive(self.lives.of[name], reason)
            for axis in self.axes.get(value.name or "", []):
                if not axis.is_plain:
                    self.algebra.freeze(axis, why)
        readers = [node, *(n for graph in subgraphs(node) for n in graph.all_nodes())]
        for reader, i in ((n, i) for n in readers for i in range(len(n.inputs))):
            if (reader, i) in self.uses:
                for axis in self.uses[reader, i].axes:
                    if not axis.is_plain:
                        self.algebra.freeze(axis, why)
        for value in node.outputs:
            shape = self.trace.shapes.get(value.name or "")
            if shape is not None:
                self.axes[value.name or ""] = [self.algebra.plain(n, why) for n in shape]


def touched(node: ir.Node) -> Iterator[ir.Value]:
    """Inputs of a node and outer values that its subgraphs capture."""
    for value in node.inputs:
        if value is not None:
            yield value
    for graph in subgraphs(node):
        for inner in graph.all_nodes():
            yield from (v for v in inner.inputs if v is not None)
        yield from graph.outputs
