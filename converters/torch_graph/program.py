"""A graph as a list of steps, and how it is run: in order, each value freed after its last use."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import onnx_ir as ir
import torch
from graphprune.converters.torch_graph.call import Call, Precision
from graphprune.converters.torch_graph.registry import TORCH_OPS

from graphprune.errors import GraphPruneError, ModelError

#: Names a use of a constant as a value of its own.
UseName = Callable[[ir.Node, int], str | None]
Body = Callable[[Sequence[torch.Tensor]], list[torch.Tensor]]


@dataclass
class Step:
    """One node.

    Attributes:
        function: of the registry.
        call: what the function is told.
        inputs: names of values, None where absent.
        bodies: subgraphs by attribute.
    """

    function: Callable[..., Any]
    call: Call
    inputs: list[str | None]
    bodies: dict[str, Program] = field(default_factory=dict)

    @property
    def reads(self) -> set[str]:
        """All values it needs, those that its bodies capture included."""
        return {n for n in self.inputs if n}.union(*(b.captured for b in self.bodies.values()))

    def run(self, values: Mapping[str, torch.Tensor]) -> Sequence[torch.Tensor]:
        """Its outputs."""
        inputs = [values[n] if n else None for n in self.inputs]
        try:
            if self.bodies:
                bodies = {name: partial(body.run_body, values) for name, body in self.bodies.items()}
                made = self.function(self.call, bodies, *inputs)
            else:
                made = self.function(self.call, *inputs)
        except GraphPruneError:
            raise
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            shapes = ", ".join("absent" if x is None else str(list(x.shape)) for x in inputs)
            what = f"'{self.call.op_type}' fails on inputs of shapes {shapes}"
            because = " ".join(str(error).split())[:300]
            where = f"{self.call.op_type} '{self.call.name}'"
            raise ModelError(what, where=where, because=because) from error
        return made if isinstance(made, (tuple, list)) else (made,)


@dataclass
class Program:
    """Steps in topological order.

    Attributes:
        inputs: names of the values that the caller gives.
        outputs: names of the values it wants.
        steps: all of them.
        captured: values from outside that the steps read.
    """

    inputs: list[str]
    outputs: list[str]
    steps: list[Step]
    captured: set[str] = field(default_factory=set)
    _ready: dict[tuple[str, ...], list[tuple[Step, list[str]]]] = field(default_factory=dict)

    def all_steps(self) -> Iterator[Step]:
        """The steps, and those of bodies behind each."""
        for step in self.steps:
            yield step
            for body in step.bodies.values():
                yield from body.all_steps()

    def run_body(
        self, outer: Mapping[str, torch.Tensor], inputs: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """As a body: what it captures comes from ``outer``."""
        values = {name: outer[name] for name in self.captured}
        values.update(zip(self.inputs, inputs, strict=True))
        found = self.run(values, self.outputs)
        return [found[name] for name in self.outputs]

    def run(self, values: dict[str, torch.Tensor], fetch: Collection[str]) -> dict[str, torch.Tensor]:
        """The values of these names; ``values`` is used up.

        Only steps that they need are run.
        """
        wanted = tuple(dict.fromkeys(fetch))
        if wanted not in self._ready:
            self._ready[wanted] = self._needed(wanted)
        for step, over in self._ready[wanted]:
            for name, made in zip(step.call.outputs, step.run(values), strict=False):
                if name:
                    values[name] = made
            for name in over:
                del values[name]
        return {name: values[name] for name in wanted}

    def _needed(self, wanted: tuple[str, ...]) -> list[tuple[Step, list[str]]]:
        """Steps that make these values, each with the values that nobody reads after it."""
        needed, kept = set(wanted), []
        for step in reversed(self.steps):
            if needed.intersection(step.call.outputs):
                kept.append(step)
                needed |= step.reads
        alive = set(wanted)
        ready = []
        for step in kept:  # from the last to the first
            seen = {n for n in step.call.outputs if n} | step.reads
            over = sorted(seen - alive)
            ready.append((step, over))
            alive |= seen
        return ready[::-1]


def compile_graph(
    graph: ir.Graph, opsets: Mapping[str, int], precision: Precision, use_name: UseName
) -> Program:
    """The steps of a graph.

    Args:
        graph: in canonical form.
        opsets: versions by domain.
        precision: shared by all nodes of a module.
        use_name: says where one use of a constant has a value of its own.

    Raises:
        ModelError: an operator has no function, with its name and node.
    """
    steps = [_step(node, opsets, precision, use_name) for node in graph]
    made = {v.name or "" for v in graph.inputs}
    made.update(n for step in steps for n in step.call.outputs)
    outputs = [v.name or "" for v in graph.outputs]
    captured = set(outputs).union(*(step.reads for step in steps)) - made
    return Program([v.name or "" for v in graph.inputs], outputs, steps, captured)


def _step(node: ir.Node, opsets: Mapping[str, int], precision: Precision, use_name: UseName) -> Step:
    opset = opsets.get(node.domain, 1)
    outputs = [_read_name(value) for value in node.outputs]
    name = node.name or next((v.name for v in node.outputs if v.name), None) or ""
    function = TORCH_OPS.find(node.domain, node.op_type, opset)
    if function is None:
        operator = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        what = f"'{operator}' of opset {opset} can't be run in torch"
        raise ModelError(
            what,
            where=f"{node.op_type} '{name}'",
            because="no function is registered for this operator",
        )
    attributes = {a.name: _plain(a) for a in node.attributes.values() if not _is_body(a)}
    bodies = {
        a.name: compile_graph(a.value, opsets, precision, use_name)
        for a in node.attributes.values()
        if a.type == ir.AttributeType.GRAPH
    }
    inputs = [use_name(node, i) or (v.name if v is not None else None) for i, v in enumerate(node.inputs)]
    while inputs and inputs[-1] is None:
        inputs.pop()
    call = Call(node.op_type, name, opset, attributes, outputs, precision)
    return Step(function, call, inputs, bodies)


def _read_name(value: ir.Value) -> str:
    """Its name; "" for a further output that nobody reads."""
    is_read = value.index() == 0 or value.uses() or value.is_graph_output()
    return value.name or "" if is_read else ""


def _is_body(attribute: ir.Attr) -> bool:
    return attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def _plain(attribute: ir.Attr) -> Any:
    """An attribute's value without anything of onnx_ir in it, so that modules can be copied."""
    if attribute.type == ir.AttributeType.TENSOR:
        return attribute.value.numpy()
    if isinstance(attribute.value, (list, tuple)):
        return list(attribute.value)
    return attribute.value
