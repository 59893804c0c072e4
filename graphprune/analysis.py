"""Runs the coupling rules over a model: one pass, in topological order.

The result says for every tensor axis which units its positions depend on (:mod:`graphprune.algebra`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.algebra import Algebra, Axis
from graphprune.model import Model
from graphprune.registry import normal_domain
from graphprune.rules import RULES
from graphprune.rules.context import Blocked, Context, Facts, Reason
from graphprune.shape_uses import numeric_shape_uses
from graphprune.shapes.trace import Trace
from graphprune.storage.constants import is_constant

#: Constant inputs that are not set to zero in the original when their unit is removed: a zero there would
#: divide by zero or turn into something else.  Their values at removed positions do not matter.
KEPT_CONSTANTS = {
    ("Div", 1), ("Mod", 1), ("Pow", 0), ("Pow", 1), ("BatchNormalization", 3), ("BatchNormalization", 4),
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
    """

    model: Model
    trace: Trace
    algebra: Algebra = field(default_factory=Algebra)
    facts: Facts = field(default_factory=Facts)
    axes: dict[str, list[Axis]] = field(default_factory=dict)
    uses: dict[tuple[ir.Node, int], Use] = field(default_factory=dict)
    without_rule: Counter[tuple[str, str]] = field(default_factory=Counter)
    _tied: dict[ir.Value, list[Axis]] = field(default_factory=dict)

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
                        self._freeze(axis, Reason(f"model output '{value.name}'"))
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
                self.axes[value.name or ""] = [self.algebra.plain(n, why) for n in shape]
        for node in self.model.ir.graph:
            self._visit(node)
        for value in self.model.ir.graph.outputs:
            why = self.facts.add(Reason(f"model output '{value.name}'"))
            for axis in self.axes.get(value.name or "", []):
                if not axis.is_plain:
                    self.algebra.freeze(axis, why)
        for axis, reason in numeric_shape_uses(self.model.ir.graph, self.axes, self.algebra):
            self._freeze(axis, reason)
        self._freeze_unseen()
        self._keep_nonempty()
        return self

    def _keep_nonempty(self) -> None:
        """Freezes one position of each axis that could lose all, though each group keeps a unit.

        Rows that are all pairs of some units can't: one of each is left.  A piece of a product that ends
        inside a factor (``heads x dims`` sliced in the middle of a head) can.
        """
        for axes in self.axes.values():
            for axis in axes:
                rows = self.algebra.live(axis)
                if rows.shape[1] < 2 or (rows == 0).all(axis=1).any():
                    continue
                if not any(
                    _is_product(rows[(rows > 0).sum(axis=1) == k]) for k in np.arange(rows.shape[1]) + 1
                ):
                    first = replace(axis, labels=rows[:1])
                    self._freeze(first, Reason("without this position, nothing might be left of a tensor"))

    def _freeze_unseen(self) -> None:
        """A parameter axis that no value has: whatever its rule sums there, nothing can be cut with it."""
        seen = np.zeros(len(self.algebra), bool)
        for axes in self.axes.values():
            for axis in axes:
                seen[self.algebra.live(axis)] = True
        for use in self.uses.values():
            for axis in use.axes:
                rows = self.algebra.live(axis)
                unseen = np.where(seen[rows], 0, rows)
                if unseen.any():
                    reason = Reason(
                        "no tensor but this parameter has the axis",
                        use.node.name or "",
                        use.node.op_type,
                    )
                    self._freeze(replace(axis, labels=unseen), reason)

    def _freeze(self, axis: Axis, reason: Reason) -> None:
        if not axis.is_plain:
            self.algebra.freeze(axis, self.facts.add(reason))

    def _visit(self, node: ir.Node) -> None:
        opset = self.model.ir.opset_imports.get(node.domain, 1)
        function = RULES.find(node.domain, node.op_type, opset)
        if function is None:
            domain = normal_domain(node.domain)
            self.without_rule[domain, node.op_type] += 1
            self._block(node, f"no coupling rule for {domain or 'ai.onnx'}::{node.op_type}")
            return
        context = Context(node, opset, self.algebra, self.facts, self.trace, self.axes_of)
        try:
            outputs = function(context)
        except Blocked as reason:
            self._block(node, str(reason))
            return
        self._freeze_unasked(node, context.asked)
        if any(value.uses() or value.is_graph_output() for value in node.outputs[len(outputs) :]):
            self._block(node, "its rule does not cover all of its outputs")
            return
        for value, axes in zip(node.outputs, outputs, strict=False):
            shape = self.trace.shapes.get(value.name or "")
            if shape is not None and tuple(a.size for a in axes) != tuple(shape):
                # A rule that does not reproduce the traced shape does not cover this node.
                self._block(node, "its rule does not explain its output shape")
                return
            self.axes[value.name or ""] = [
                a if a.size != 1 or a.is_plain else self._single(a, node) for a in axes
            ]

    def _freeze_unasked(self, node: ir.Node, asked: set[int]) -> None:
        """Inputs that their rule takes as a whole: shapes, positions, bounds."""
        for i, value in enumerate(node.inputs):
            if value is not None and i not in asked:
                reason = Reason("its values are sizes or positions", node.name or "", node.op_type)
                for axis in self.axes.get(value.name or "", []):
                    self._freeze(axis, reason)

    def _single(self, axis: Axis, node: ir.Node) -> Axis:
        self._freeze(axis, Reason("one position alone makes a tensor", node.name or "", node.op_type))
        return self.algebra.plain(1)

    def _block(self, node: ir.Node, text: str) -> None:
        """Nothing that touches this node may shrink."""
        why = self.facts.add(Reason(text, node.name or "", node.op_type))
        for value in touched(node):
            for axis in self.axes.get(value.name or "", []):
                if not axis.is_plain:
                    self.algebra.freeze(axis, why)
        for i in range(len(node.inputs)):
            if (node, i) in self.uses:
                for axis in self.uses[node, i].axes:
                    if not axis.is_plain:
                        self.algebra.freeze(axis, why)
        for value in node.outputs:
            shape = self.trace.shapes.get(value.name or "")
            if shape is not None:
                self.axes[value.name or ""] = [self.algebra.plain(n, why) for n in shape]


def _is_product(rows: npt.NDArray[np.int32]) -> bool:
    """Are these rows all combinations of their columns' units?"""
    if not len(rows):
        return False
    expected = np.prod([len(set(column) - {0}) or 1 for column in rows.T.tolist()], dtype=np.int64)
    return len(np.unique(rows, axis=0)) == int(expected)


def touched(node: ir.Node) -> Iterator[ir.Value]:
    """Inputs of a node and outer values that its subgraphs capture."""
    for value in node.inputs:
        if value is not None:
            yield value
    for attr in node.attributes.values():
        graphs = []
        if attr.type == ir.AttributeType.GRAPH:
            graphs = [attr.as_graph()]
        elif attr.type == ir.AttributeType.GRAPHS:
            graphs = list(attr.as_graphs())
        for graph in graphs:
            for inner in graph.all_nodes():
                yield from (v for v in inner.inputs if v is not None)
            yield from graph.outputs


def is_matrix(value: ir.Value) -> bool:
    """More than one axis longer than 1, and not one number repeated: a real weight."""
    tensor = value.const_value
    if tensor is None or sum(n > 1 for n in tensor.shape.numpy()) < 2:
        return False
    if len(value.uses()) < 2:
        return True
    array = tensor.numpy()
    return bool((array != array.reshape(-1)[0]).any())
