"""What a coupling rule sees of one node, and the facts it may state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.algebra import Algebra, Axis
from graphprune.storage.constants import is_constant

if TYPE_CHECKING:
    from graphprune.shapes.trace import Trace


#: What a tensor holds in the original once the units that it stands for are removed: it is all zeros, or
#: has no elements.
ZEROS, EMPTY = "zeros", "empty"

#: ``axes_of(node, input_index)``: axes of the value there, made on first request for a constant.
AxesOf = Callable[[ir.Node, int], list[Axis]]
#: ``visit_body(graph, input_axes)``: axes of the outputs of a body; None where a shape is not known.
VisitBody = Callable[[ir.Graph, Sequence[list[Axis] | None]], list[list[Axis] | None]]


class Blocked(Exception):
    """Raised by a rule that does not cover this node: everything that touches it is frozen."""


@dataclass(frozen=True)
class Reason:
    """Why something can't be removed, or what its removal changes."""

    text: str
    node: str = ""
    op_type: str = ""
    value: str = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.op_type} '{self.node}')" if self.node else self.text


@dataclass
class Facts:
    """What the rules stated, besides equalities.

    Attributes:
        reasons: all reasons; index 0 is "not frozen", 1 "none given".
        statistics: axes over which a norm, softmax, mean or maximum runs (removal changes its value),
            with the reason's index and the node.
        tags: axes that play a part in attention ("heads", "head_dim") or form convolution groups.
        inside: axes that a fused operator makes and uses up itself, so that no tensor has them.
        minimums: axes of which some number of positions has to stay, with that number and the reason.
        indexes: integer tensors, by name, that hold positions of an axis (what TopK returns).
        computed: values that were asked about, and whether they are computed from constants alone.
    """

    reasons: list[Reason] = field(default_factory=lambda: [Reason("not frozen"), Reason("no reason given")])
    statistics: list[tuple[Axis, int, ir.Node]] = field(default_factory=list)
    tags: list[tuple[Axis, str]] = field(default_factory=list)
    inside: list[Axis] = field(default_factory=list)
    minimums: list[tuple[Axis, int, int]] = field(default_factory=list)
    indexes: dict[str, Axis] = field(default_factory=dict)
    computed: dict[ir.Value, bool] = field(default_factory=dict)

    def add(self, reason: Reason) -> int:
        """Index of ``reason``."""
        self.reasons.append(reason)
        return len(self.reasons) - 1


class Context:
    """One node, seen by its rule.  Input axes are handed out on request only.

    A constant input whose axes are never asked for (a shape, an index) is no parameter and never cut.
    """

    def __init__(
        self,
        node: ir.Node,
        opset: int,
        algebra: Algebra,
        facts: Facts,
        trace: Trace,
        axes_of: AxesOf,
        life_of: Callable[[ir.Value], Axis | None] = lambda value: None,
        visit_body: VisitBody | None = None,
    ) -> None:
        self.node, self.opset, self.algebra, self.trace = node, opset, algebra, trace
        self._facts, self._axes_of, self._life_of = facts, axes_of, life_of
        self._visit_body = visit_body
        self.asked: set[int] = set()  # inputs whose axes the rule has looked at
        self.indexed: set[int] = set()  # inputs that the rule reads as positions of an axis
        self.droppable: dict[int, tuple[str, ...]] = {}  # input -> what it may hold when it is dropped
        self.pieces: dict[int, Axis] = {}  # input -> the position it makes
        self.dies = True  # does the result die when all droppable inputs are dropped?
        self.contracts = False  # does it multiply two tensors and sum?
        self.singles: list[tuple[int, Axis]] = []  # (output, the one position of an axis it is made of)

    # ---- reading --------------------------------------------------------------------------------

    def has(self, i: int) -> bool:
        """Is input ``i`` there?"""
        return i < len(self.node.inputs) and self.node.inputs[i] is not None

    @property
    def n_inputs(self) -> int:
        """Number of input slots, absent ones included."""
        return len(self.node.inputs)

    def _input(self, i: int) -> ir.Value:
        value = self.node.inputs[i] if i < len(self.node.inputs) else None
        if value is None:
            message = f"input {i} is absent"
            raise Blocked(message)
        return value

    def is_constant(self, i: int) -> bool:
        """Is input ``i`` a constant (and not the default of a model input)?"""
        return self.has(i) and is_constant(self._input(i))

    def is_computed_weight(self, i: int) -> bool:
        """Is input ``i`` computed from constants alone (a transposed tied weight), or chosen from them?"""
        value, known = self._input(i), self._facts.computed
        todo = [value]
        while todo:
            node = todo[-1].producer()
            if node is None or not node.inputs:
                known[todo.pop()] = False
                continue
            # Of weights chosen by the positions of something (experts), the choice is no weight.
            sources = [
                v
                for v in node.inputs
                if v is not None and not is_constant(v) and (v.name or "") not in self._facts.indexes
            ]
            unknown = [v for v in sources if v not in known]
            if unknown and all(known.get(v, True) for v in sources):
                todo.append(unknown[0])
            else:
                known[todo.pop()] = all(known.get(v, True) for v in sources)
        return known[value]

    def axes(self, i: int) -> list[Axis]:
        """Axes of input ``i``."""
        self.asked.add(i)
        return self._axes_of(self.node, i)

    def shape(self, i: int) -> tuple[int, ...]:
        """Traced shape of input ``i``."""
        return self._shape(self._input(i))

    def out_shape(self, i: int = 0) -> tuple[int, ...]:
        """Traced shape of output ``i``."""
        return self._shape(self.node.outputs[i])

    def visit_body(self, graph: ir.Graph, inputs: Sequence[list[Axis] | None]) -> list[list[Axis] | None]:
        """Applies the rules inside a body of this node; returns the axes of the body's outputs."""
        if self._visit_body is None:
            message = "it has a body"
            raise Blocked(message)
        return self._visit_body(graph, inputs)

    def is_whole(self, i: int) -> bool:
        """Has input ``i`` the shape of the output, under all sizes?

        A runtime size of 1, or one that another input has as well, may be broadcast some day.
        """
        value, out = self._input(i).name or "", self.node.outputs[0].name or ""
        shapes = (self.trace.shapes, self.trace.nominal)
        if any(s.get(value) is None or s.get(value) != s.get(out) for s in shapes):
            return False
        sizes = list(self.trace.dims.values())
        unclear = {1, *(n for n in sizes if sizes.count(n) > 1)}
        return not any(
            n in unclear and self.trace.is_dynamic(value, d) for d, n in enumerate(self.trace.shapes[value])
        )

    def is_used(self, i: int) -> bool:
        """Does anyone read output ``i``, or does it leave the model?"""
        value = self.node.outputs[i] if i < len(self.node.outputs) else None
        return value is not None and (bool(value.uses()) or value.is_graph_output())

    def life(self, i: int) -> Axis | None:
        """One row of the units without which input ``i`` is dead and zero; None if it lives for ever."""
        value = self.node.inputs[i] if self.has(i) else None
        return self._life_of(value) if value is not None else None

    def index_of(self, i: int) -> Axis | None:
        """The axis whose positions input ``i`` holds as numbers."""
        value = self.node.inputs[i] if self.has(i) else None
        return self._facts.indexes.get(value.name or "") if value is not None else None

    def _shape(self, value: ir.Value) -> tuple[int, ...]:
        shape = self.trace.shapes.get(value.name or "")
        if shape is None:
            message = f"the shape of '{value.name}' is not known"
            raise Blocked(message)
        return shape

    def is_dynamic(self, axis: int, i: int = 0) -> bool:
        """Does the size of this axis of output ``i`` depend on the input sizes?"""
        return self.trace.is_dynamic(self.node.outputs[i].name or "", axis)

    def constant(self, i: int) -> npt.NDArray[np.generic] | None:
        """Value of a constant input, or None."""
        if not self.is_constant(i):
            return None
        tensor = self._input(i).const_value
        return None if tensor is None else tensor.numpy()

    def scalar(self, i: int) -> float | None:
        """Value of a constant one-element input, or None."""
        if not self.is_constant(i) or int(np.prod(self.shape(i))) != 1:
            return None
        value = self.constant(i)
        return None if value is None else float(value.reshape(-1)[0])

    def ints(self, i: int) -> list[int] | None:
        """A constant integer input as a list, or None."""
        value = self.constant(i)
        return None if value is None else [int(v) for v in value.reshape(-1)]

    def attr_int(self, name: str, default: int) -> int:
        """Integer attribute."""
        attr = self.node.attributes.get(name)
        return default if attr is None else attr.as_int()

    def attr_ints(self, name: str) -> list[int] | None:
        """Integer list attribute."""
        attr = self.node.attributes.get(name)
        return None if attr is None else list(attr.as_ints())

    def attr_str(self, name: str, default: str) -> str:
        """String attribute."""
        attr = self.node.attributes.get(name)
        return default if attr is None else attr.as_string()

    # ---- stating --------------------------------------------------------------------------------

    def reason(self, text: str) -> int:
        """Index of a reason that names this node."""
        return self._facts.add(Reason(text, self.node.name or "", self.node.op_type))

    def equate(self, a: Axis, b: Axis) -> None:
        """Both axes keep the same positions."""
        if a.size != b.size:
            message = f"axes of sizes {a.size} and {b.size} meet"
            raise Blocked(message)
        self.algebra.equate(a, b)

    def freeze(self, axis: Axis, text: str) -> None:
        """No position of this axis may go."""
        if not axis.is_plain:
            self.algebra.freeze(axis, self.reason(text))

    def frozen(self, size: int, text: str) -> Axis:
        """An axis that can't shrink."""
        return self.algebra.plain(size, self.reason(text))

    def plain(self, size: int = 1) -> Axis:
        """An axis of size 1, or one for which no reason is worth giving."""
        return self.algebra.plain(size)

    def fresh(self, size: int, *, zero: bool) -> Axis:
        """An axis of positions that this node makes."""
        return self.algebra.fresh(size, zero=zero)

    def split(self, axis: Axis, sizes: Sequence[int]) -> list[Axis]:
        """``axis`` as a product, outermost first."""
        if int(np.prod(sizes, dtype=np.int64)) != axis.size:
            message = f"{axis.size} positions are no product of {tuple(sizes)}"
            raise Blocked(message)
        why = 0 if axis.is_plain else self.reason("one unit lies under every position")
        return self.algebra.split(axis, sizes, why)

    def statistic(self, axis: Axis, text: str) -> None:
        """A statistic runs over this axis: removing positions changes it."""
        if not axis.is_plain:
            self._facts.statistics.append((axis, self.reason(text), self.node))

    def summed(self, a: Axis, b: Axis | None = None) -> None:
        """The axis is summed over (a product of ``a`` and ``b``); exact when either is zero there."""
        self.contracts |= b is not None
        if not a.is_plain and not a.zero and (b is None or not b.zero):
            self.statistic(a, "a sum runs over values that are not zero when their unit is removed")

    def inside(self, axis: Axis) -> None:
        """This axis of a parameter is used up within the node: no tensor has it, and it may be cut."""
        if not axis.is_plain:
            self._facts.inside.append(axis)

    def at_least(self, axis: Axis, count: int, text: str) -> None:
        """At least ``count`` positions of this axis have to stay."""
        if not axis.is_plain and count > 1:
            self._facts.minimums.append((axis, count, self.reason(text)))

    def looks_up(self, axis: Axis, i: int) -> bool:
        """Input ``i`` asks for positions of ``axis``; if only for those that are left, they are tied.

        Otherwise the axis that the numbers count is frozen, since they mean something else here.
        """
        indexed = self.index_of(i)
        if indexed is None or indexed.size != axis.size:
            return False
        self.indexed.add(i)
        self.equate(axis, indexed)
        self.tag(indexed, "experts")
        return True

    def makes_index(self, axis: Axis, i: int = 0) -> None:
        """Output ``i`` holds positions of this axis as numbers."""
        if not axis.is_plain:
            self._facts.indexes[self.node.outputs[i].name or ""] = axis

    def single(self, piece: Axis, i: int = 0) -> Axis:
        """Output ``i`` is made of this one position: it dies with the position's units."""
        if piece.is_plain:
            return self.algebra.plain(1, piece.why)
        self.singles.append((i, piece))
        return self.algebra.plain(1)

    def optional(self, i: int, piece: Axis) -> Axis:
        """Input ``i`` is left out once the unit of ``piece``, which this node makes for it, is removed."""
        self.pieces[i] = piece
        return piece

    def drops(self, i: int, *voids: str, dies: bool = True) -> None:
        """Input ``i`` may be left out once it is dead, if it then holds one of ``voids``."""
        self.droppable[i] = voids
        self.dies = dies

    def tag(self, axis: Axis, kind: str) -> None:
        """What part this axis plays, for the group's kind."""
        if not axis.is_plain:
            self._facts.tags.append((axis, kind))
