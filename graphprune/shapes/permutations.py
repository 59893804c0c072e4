"""Chains of reshapes and transposes that only shuffle the positions of one axis become one Gather.

A channel shuffle is written as Reshape, Transpose, Reshape.  Read as a product of factors it says that whole
factors go, and through several blocks that ties every channel of a stage to every other.  The same
chain is a fixed permutation of the axis, ``take(x, order, axis)``, which asks for no factors at all.

The permutation is proven, not observed: every axis is a list of factors, Reshape regroups and
splits them, Transpose moves whole axes, and at the end all axes but one must hold what they held, in the same
order.  This is done for both traced sets of sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.shapes.shape_values import structural_nodes
from graphprune.shapes.trace import Trace
from graphprune.storage.constants import drop_unused, is_constant

Shapes = Mapping[str, tuple[int, ...]]
Index = npt.NDArray[np.int64]
#: Operators whose result is a regrouping of the elements in order.
_REGROUPING = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})
_MOVING = _REGROUPING | {"Transpose"}


@dataclass(frozen=True)
class Permutation:
    """``take(x, order, axis)``."""

    axis: int
    order: Index


class Factors:
    """A tensor's axes as products of factors, followed through reshapes and transposes.

    Args:
        shape: of the tensor that is followed; one factor per axis that is longer than 1.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self._sizes = [n for n in shape if n != 1]
        names = iter(range(len(self._sizes)))
        self._source = [[next(names)] if n != 1 else [] for n in shape]
        self._now = [list(axis) for axis in self._source]

    def transpose(self, perm: Sequence[int]) -> None:
        """Axes change places."""
        self._now = [self._now[d] for d in perm]

    def reshape(self, shape: Sequence[int]) -> bool:
        """Regroups the factors into axes of new sizes, splitting them where needed.

        Returns:
            False where an axis ends inside a factor that has no divisor there.
        """
        rest = [factor for axis in self._now for factor in axis]
        now: list[list[int]] = []
        for size in shape:
            axis: list[int] = []
            while size != 1:
                if not rest:
                    return False
                factor = rest.pop(0)
                own = self._sizes[factor]
                if size % own == 0:
                    axis.append(factor)
                    size //= own
                elif own % size == 0:
                    outer, inner = self._split(factor, size, rest)
                    axis.append(outer)
                    rest.insert(0, inner)
                    size = 1
                else:
                    return False
            now.append(axis)
        self._now = now
        return not rest

    def _split(self, factor: int, outer: int, rest: list[int]) -> tuple[int, int]:
        """Two factors in place of one, in the source as well; it is the one taken from ``rest`` just now."""
        inner = len(self._sizes)
        self._sizes.append(self._sizes[factor] // outer)
        self._sizes[factor] = outer
        for axis in self._source:
            if factor in axis:
                axis.insert(axis.index(factor) + 1, inner)
        assert factor not in rest
        return factor, inner

    def permutation(self) -> Permutation | None:
        """What became of the axes: one of them permuted, all others as they were; None for anything else."""
        if len(self._now) != len(self._source):
            return None
        moved = [d for d, (a, b) in enumerate(zip(self._source, self._now, strict=True)) if a != b]
        if len(moved) != 1:
            return None
        source, now = self._source[moved[0]], self._now[moved[0]]
        if sorted(source) != sorted(now):
            return None
        sizes = [self._sizes[factor] for factor in source]
        order = np.arange(prod(sizes), dtype=np.int64).reshape(sizes)
        return Permutation(moved[0], order.transpose([source.index(f) for f in now]).reshape(-1))


def gather_permutations(model: ir.Model, trace: Trace) -> Trace:
    """Replaces chains that permute one axis by Gather nodes with constant indices, in place.

    Args:
        model: canonical, with its shape arithmetic folded.
        trace: of its shapes.

    Returns:
        The trace, with the shapes of the indices.
    """
    graph = model.graph
    indices: dict[str, Index] = {}
    taken: set[str] = set()
    arithmetic = structural_nodes(graph)
    for chain in list(_chains(graph)) if trace.traced else []:
        start = 0
        while start < len(chain):
            stop, found = _longest(chain, start, trace)
            if found is not None:
                taken = taken or _names(graph)
                name = _replace(graph, chain[start:stop], found, taken)
                indices[name] = found.order
            start = stop
    if not indices:
        return trace
    drop_unused(graph, arithmetic)  # what computed the chains' shapes
    shapes = {name: order.shape for name, order in indices.items()}
    return replace(
        trace,
        shapes={**trace.shapes, **shapes},
        nominal={**trace.nominal, **shapes},
        values={**trace.values, **indices},
    )


def _chains(graph: ir.Graph) -> Iterator[list[ir.Node]]:
    """Maximal runs of moving nodes, each the only reader of the one before."""
    inside: set[ir.Node] = set()
    for node in graph:
        if node in inside or not _moves(node):
            continue
        chain = [node]
        while True:
            value = chain[-1].outputs[0]
            readers = tuple(value.uses())
            if value.is_graph_output() or len(readers) != 1:
                break
            reader, index = readers[0]
            if index != 0 or not _moves(reader) or reader.graph is not graph:
                break
            chain.append(reader)
        inside.update(chain)
        yield chain


def _moves(node: ir.Node) -> bool:
    return node.op_type in _MOVING and node.domain == "" and not is_constant(node.inputs[0])


def _longest(chain: list[ir.Node], start: int, trace: Trace) -> tuple[int, Permutation | None]:
    """The longest run from ``start`` that is a permutation of one axis.

    Returns:
        Where the run stops, and the permutation; the next start and None where there is no such run.
    """
    source = chain[start].inputs[0]
    assert source is not None
    if not _is_telling(source.name or "", trace):
        return start + 1, None
    found = [_permutations(chain[start:], shapes) for shapes in (trace.shapes, trace.nominal)]
    for length in range(min(map(len, found)), 1, -1):
        first, second = (each[length - 1] for each in found)
        if first is None or second is None or first.axis != second.axis:
            continue
        is_same = np.array_equal(first.order, second.order)
        if is_same and not _is_dynamic(chain[start + length - 1].outputs[0], first.axis, trace):
            return start + length, first
    return start + 1, None


def _is_telling(name: str, trace: Trace) -> bool:
    """Could a reshape mistake one runtime size for another, or for nothing?  Not if they all differ."""
    shape = trace.shapes.get(name, ())
    dynamic = [n for d, n in enumerate(shape) if trace.is_dynamic(name, d)]
    return name in trace.nominal and 0 not in shape and 1 not in dynamic and len(set(dynamic)) == len(dynamic)


def _is_dynamic(value: ir.Value, axis: int, trace: Trace) -> bool:
    return trace.is_dynamic(value.name or "", axis)


def _permutations(chain: Sequence[ir.Node], shapes: Shapes) -> list[Permutation | None]:
    """The permutation that each prefix of a chain makes, as far as its nodes can be followed."""
    source = chain[0].inputs[0]
    assert source is not None
    factors = Factors(shapes[source.name or ""])
    found: list[Permutation | None] = []
    for node in chain:
        shape = shapes.get(node.outputs[0].name or "")
        if shape is None or 0 in shape:
            break
        if node.op_type == "Transpose":
            factors.transpose(node.attributes.get_ints("perm", tuple(reversed(range(len(shape))))))
        elif not factors.reshape(shape):
            break
        found.append(factors.permutation())
    return found


def _names(graph: ir.Graph) -> set[str]:
    values = (value for node in graph for value in node.outputs)
    return {value.name or "" for value in [*values, *graph.inputs, *graph.initializers.values()]}


def _replace(graph: ir.Graph, chain: list[ir.Node], found: Permutation, taken: set[str]) -> str:
    """Puts a Gather in place of a chain, and returns the name of its indices.

    The result keeps its name and its place among the outputs.
    """
    last, source = chain[-1], chain[0].inputs[0]
    old = last.outputs[0]
    name = f"{old.name}/order"
    while name in taken:
        name += "_"
    taken.add(name)
    index = ir.Value(
        name=name,
        type=ir.TensorType(ir.DataType.INT64),
        shape=ir.Shape(found.order.shape),
        const_value=ir.tensor(found.order, name=name),
    )
    graph.register_initializer(index)
    gather = ir.node(
        "Gather",
        [source, index],
        {"axis": found.axis},
        name=last.name,
        doc_string=last.doc_string,
        metadata_props=dict(last.metadata_props),
    )
    new = gather.outputs[0]
    new.name, new.type, new.shape = old.name, old.type, old.shape
    new.metadata_props.update(old.metadata_props)
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.insert_after(last, gather)
    drop_unused(graph, chain)
    return name
