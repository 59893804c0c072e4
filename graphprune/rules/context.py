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


#: ``axes_of(node, input_index)``: axes of the value there, made on first request for a constant.
AxesOf = Callable[[ir.Node, int], list[Axis]]


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
    """

    reasons: list[Reason] = field(default_factory=lambda: [Reason("not frozen"), Reason("no reason given")])
    statistics: list[tuple[Axis, int, ir.Node]] = field(default_factory=list)
    tags: list[tuple[Axis, str]] = field(default_factory=list)

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
    ) -> None:
        self.node, self.opset, self.algebra, self.trace = node, opset, algebra, trace
        self._facts, self._axes_of = facts, axes_of
        self.asked: set[int] = set()  # inputs whose axes the rule has looked at

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
        """Is input ``i`` computed in the graph from constants alone (a transposed tied weight)?"""
        todo = [self._input(i)]
        while todo:
            node = todo.pop().producer()
            if node is None or not node.inputs:
                return False
            todo.extend(v for v in node.inputs if v is not None and not is_constant(v))
        return True

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
        if not a.is_plain and not a.zero and (b is None or not b.zero):
            self.statistic(a, "a sum runs over values that are not zero when their unit is removed")

    def tag(self, axis: Axis, kind: str) -> None:
        """What part this axis plays, for the group's kind."""
        if not axis.is_plain:
            self._facts.tags.append((axis, kind))
