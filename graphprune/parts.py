"""A model in parts of limited weight, cut where few numbers go from one to the next.

Whatever depends on a large constant is *heavy*.  A place in the order of the nodes is narrow where few heavy
values that were made before are read behind it: in a residual network that is the stream alone.  What is not
heavy (positions, masks, sizes of inputs) is computed again in every part that needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import inf, prod

import onnx_ir as ir

from graphprune.analysis import touched
from graphprune.model import Model
from graphprune.storage.constants import is_constant

#: A model with more bytes of constants is never held or run as a whole.
BIG_BYTES = 1 << 30
#: Constants from this size on make heavy what depends on them.
LARGE_BYTES = 1 << 16


def is_big(model: Model) -> bool:
    """Has it more weights than should be in memory?"""
    return model.weight_bytes > BIG_BYTES


@dataclass(frozen=True, eq=False)
class Part:
    """Heavy nodes that follow each other.

    Attributes:
        nodes: in order.
        start: heavy values that they read and do not make.
        end: values that they make and later parts read; and the model's outputs among what they make.
        weight_bytes: of their constants.
    """

    nodes: tuple[ir.Node, ...]
    start: tuple[ir.Value, ...]
    end: tuple[ir.Value, ...]
    weight_bytes: int


@dataclass(frozen=True)
class _Place:
    """Behind a node: what was read up to there, and what goes over to later nodes."""

    index: int
    bytes_before: int
    live: tuple[ir.Value, ...]
    cost: float


def parts_of(
    model: Model,
    limit: int,
    shapes: Mapping[str, tuple[int, ...]],
    may_pass: Callable[[ir.Value], bool] = lambda value: True,
) -> list[Part]:
    """The heavy nodes of a model's main graph, in parts.

    Args:
        model: the model.
        limit: bytes of constants in a part, where there are narrow places enough.
        shapes: of the model's values.
        may_pass: may this value go from one part to the next?
    """
    nodes, weights = _heavy(model.ir.graph)
    places = _places(nodes, weights, shapes, may_pass)
    chosen: list[_Place] = []
    start = 0
    while places:
        within = [p for p in places if p.bytes_before - start <= limit]
        best = min(within, key=lambda p: (p.cost, -p.index)) if within else places[0]
        if len(nodes) - 1 == places[-1].index and places[-1].bytes_before - start <= limit:
            best = places[-1]
        chosen.append(best)
        start = best.bytes_before
        places = [p for p in places if p.index > best.index]
    return _between(model.ir.graph, nodes, weights, chosen)


def _heavy(graph: ir.Graph) -> tuple[list[ir.Node], dict[ir.Node, int]]:
    """Nodes that depend on a large constant, in order; bytes of the constants that each is first to read."""
    nodes: list[ir.Node] = []
    weights: dict[ir.Node, int] = {}
    heavy: set[ir.Value] = set()
    seen: set[ir.Value] = set()
    for node in graph:
        own, is_heavy = 0, False
        for value in touched(node):
            is_heavy |= value in heavy
            tensor = value.const_value
            if tensor is not None and is_constant(value):
                is_heavy |= tensor.nbytes >= LARGE_BYTES
                own += tensor.nbytes if value not in seen else 0
                seen.add(value)
        if is_heavy:
            nodes.append(node)
            weights[node] = own
            heavy.update(node.outputs)
    return nodes, weights


def _places(
    nodes: list[ir.Node],
    weights: Mapping[ir.Node, int],
    shapes: Mapping[str, tuple[int, ...]],
    may_pass: Callable[[ir.Value], bool],
) -> list[_Place]:
    """Where the nodes may be cut; the end is one of the places."""
    waiting: dict[ir.Value, int] = {}  # how many nodes have still to read it
    readers: dict[ir.Value, int] = {}
    for node in nodes:
        for value in set(touched(node)):
            readers[value] = readers.get(value, 0) + 1
    found: list[_Place] = []
    total = 0
    for i, node in enumerate(nodes):
        total += weights[node]
        for value in set(touched(node)):
            if value in waiting:
                waiting[value] -= 1
                if not waiting[value]:
                    del waiting[value]
        waiting |= {v: readers[v] for v in node.outputs if v in readers}
        live = tuple(waiting)
        if i < len(nodes) - 1 and not all(map(may_pass, live)):
            continue
        sizes = [shapes.get(v.name or "") for v in live]
        cost = sum(inf if shape is None else float(prod(shape)) for shape in sizes)
        found.append(_Place(i, total, live, cost))
    return found


def _between(
    graph: ir.Graph, nodes: list[ir.Node], weights: Mapping[ir.Node, int], places: list[_Place]
) -> list[Part]:
    outputs = set(graph.outputs)
    parts: list[Part] = []
    first = 0
    live: tuple[ir.Value, ...] = ()
    for place in places:
        inside = tuple(nodes[first : place.index + 1])
        read = {value for node in inside for value in touched(node)}
        start = tuple(value for value in live if value in read)
        later = {*place.live, *outputs}
        end = tuple(value for node in inside for value in node.outputs if value in later)
        parts.append(Part(inside, start, end, sum(weights[node] for node in inside)))
        first, live = place.index + 1, place.live
    return parts


def between(model: Model, start: Collection[str], end: Collection[str]) -> list[ir.Node] | None:
    """Nodes of the main graph that compute some values from others; None if it has no values of these names.

    Args:
        model: the model.
        start: names of values that are known, besides the model's inputs.
        end: names of what is wanted.
    """
    graph = model.ir.graph
    values = {v.name: v for node in graph for v in node.outputs}
    if not values.keys() >= {*start, *end}:
        return None
    known = set(start)
    found: set[ir.Node] = set()
    todo = [values[name].producer() for name in end if name not in known]
    while todo:
        node = todo.pop()
        if node is not None and node not in found and node.graph is graph:
            found.add(node)
            todo += [value.producer() for value in touched(node) if value.name not in known]
    return [node for node in graph if node in found]
