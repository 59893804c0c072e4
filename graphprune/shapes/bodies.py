"""Shapes inside the bodies of If, Loop and Scan.

Static inference of the whole graph forgets the shapes of a loop's carried values, since they may change from
one iteration to the next.  Here they are assumed to stay what they are at the start, and dropped where the
body makes something else: what is left holds in every iteration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import onnx_ir as ir

from graphprune.runtime import EvaluationError
from graphprune.shapes.shape_values import subgraphs
from graphprune.storage.constants import is_constant

Kind = tuple[ir.DataType, tuple[int, ...]]
#: Opset since which Scan has no batch axis of its own.
SCAN_WITHOUT_BATCH = 9
#: Of a loop that runs as often as an input of the model says.  Its outputs are marked as not settled.
ASSUMED_TRIPS = 3


class Known(Protocol):
    """What is known so far, and how to go on: `graphprune.shapes.propagation.Propagation`."""

    shapes: dict[str, tuple[int, ...]]
    types: dict[str, ir.DataType]
    values: dict[str, np.ndarray]

    def array(self, value: ir.Value) -> np.ndarray | None:
        """What a value holds, if that is known and small."""

    def walk(self, graph: ir.Graph) -> None:
        """Infer the nodes of a body."""


def infer_bodies(known: Known, node: ir.Node, opset: int) -> None:
    """Infer the bodies of ``node``, and from them its outputs as far as they are not known."""
    if node.domain != "":
        return
    if node.op_type == "If":
        _infer_branches(known, node)
    elif node.op_type == "Loop":
        _infer_loop(known, node)
    elif node.op_type == "Scan" and opset >= SCAN_WITHOUT_BATCH:
        _infer_scan(known, node)


def trip_count(node: ir.Node, array: Callable[[ir.Value], np.ndarray | None]) -> int | None:
    """How often a Loop runs; None when that is not known, or its body may stop it.

    Args:
        node: the Loop.
        array: gives the known content of a value.
    """
    limit, condition = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else None
    body = node.attributes["body"].as_graph()
    count = array(limit) if limit is not None else None
    if count is None or count.size != 1:
        return None
    if condition is not None:
        start = array(condition)
        if start is None or not start.all():
            return None
    again = body.outputs[0]
    producer = again.producer()
    if producer is not None and producer.op_type == "Identity":
        again = producer.inputs[0] or again
        producer = again.producer()
    if producer is not None and producer.op_type == "Constant" and "value" in producer.attributes:
        goes_on = bool(producer.attributes["value"].as_tensor().numpy().all())
    elif is_constant(again) and again.const_value is not None:
        goes_on = bool(again.const_value.numpy().all())
    else:
        goes_on = again is body.inputs[1]
    return max(int(count.reshape(-1)[0]), 0) if goes_on else None


def scan_axes(node: ir.Node) -> list[int]:
    """Per scanned input of a Scan, the axis along which it is scanned."""
    count = node.attributes["num_scan_inputs"].as_int()
    return list(node.attributes.get_ints("scan_input_axes", (0,) * count))


def _kind(known: Known, value: ir.Value | None) -> Kind | None:
    name = value.name or "" if value is not None else ""
    if name not in known.shapes or name not in known.types:
        return None
    return known.types[name], known.shapes[name]


def _note(known: Known, value: ir.Value, kind: Kind | None) -> None:
    name = value.name or ""
    if kind is not None and name and name not in known.shapes:
        known.types[name], known.shapes[name] = kind


def _walk(known: Known, body: ir.Graph) -> None:
    try:
        known.walk(body)
    except EvaluationError:
        # A branch that is never taken, or a loop that never runs, may compute what can't be computed.
        return


def _infer_branches(known: Known, node: ir.Node) -> None:
    branches = subgraphs(node)
    for branch in branches:
        _walk(known, branch)
    for value, *results in zip(node.outputs, *(branch.outputs for branch in branches), strict=False):
        kinds = {_kind(known, result) for result in results}
        if len(kinds) == 1:
            _note(known, value, kinds.pop())


def _infer_loop(known: Known, node: ir.Node) -> None:
    body = node.attributes["body"].as_graph()
    if len(body.inputs) != 2 + len(node.inputs[2:]):
        return
    iteration, condition, *carried = body.inputs
    given: dict[ir.Value, Kind | None] = {
        iteration: (ir.DataType.INT64, _declared(iteration)),
        condition: (ir.DataType.BOOL, _declared(condition)),
    }
    kinds = [_kind(known, value) for value in node.inputs[2:]]
    stable = _settle(known, body, given, carried, kinds, body.outputs[1:])
    for value, inner in zip(node.outputs, carried, strict=False):
        _note(known, value, stable[inner])
    trips = trip_count(node, known.array)
    if trips is None and node.inputs[0] is not None and node.inputs[0].is_graph_input():
        trips = ASSUMED_TRIPS  # the caller says how often; behind zero iterations little can be run
    for value, inner in zip(node.outputs[len(carried) :], body.outputs[1 + len(carried) :], strict=False):
        kind = _kind(known, inner)
        if kind is not None and trips is not None:
            _note(known, value, (kind[0], (trips, *kind[1])))


def _infer_scan(known: Known, node: ir.Node) -> None:
    body = node.attributes["body"].as_graph()
    axes = scan_axes(node)
    n_states = len(node.inputs) - len(axes)
    if len(body.inputs) != len(node.inputs):
        return
    states, elements = body.inputs[:n_states], body.inputs[n_states:]
    given: dict[ir.Value, Kind | None] = {}
    length: int | None = None
    for value, inner, axis in zip(node.inputs[n_states:], elements, axes, strict=True):
        kind = _kind(known, value)
        if kind is None or not kind[1]:
            given[inner] = None
            continue
        dtype, sizes = kind[0], list(kind[1])
        length = sizes.pop(axis % len(sizes))
        given[inner] = dtype, tuple(sizes)
    kinds = [_kind(known, value) for value in node.inputs[:n_states]]
    stable = _settle(known, body, given, states, kinds, body.outputs)
    for value, inner in zip(node.outputs, states, strict=False):
        _note(known, value, stable[inner])
    outputs = node.outputs[n_states:]
    out_axes = node.attributes.get_ints("scan_output_axes", (0,) * len(outputs))
    for value, inner, axis in zip(outputs, body.outputs[n_states:], out_axes, strict=False):
        kind = _kind(known, inner)
        if kind is not None and length is not None:
            sizes = list(kind[1])
            sizes.insert(axis % (len(sizes) + 1), length)
            _note(known, value, (kind[0], tuple(sizes)))


def _declared(value: ir.Value) -> tuple[int, ...]:
    """Shape of an iteration number or a condition: one element, with or without an axis."""
    return (1,) * (len(value.shape) if value.shape is not None else 0)


def _settle(
    known: Known,
    body: ir.Graph,
    given: dict[ir.Value, Kind | None],
    carried: Sequence[ir.Value],
    kinds: Sequence[Kind | None],
    results: Sequence[ir.Value],
) -> dict[ir.Value, Kind | None]:
    """Infer a body until all carried values come out as they went in; the others are left unknown."""
    assumed = dict(zip(carried, kinds, strict=True))
    while True:
        _forget(known, body)
        for value, kind in (given | assumed).items():
            _note(known, value, kind)
        _walk(known, body)
        # Not every result is carried: zip stops at the last carried value.
        pairs = list(zip(carried, results, strict=False))
        wrong = [v for v, r in pairs if assumed[v] is not None and _kind(known, r) != assumed[v]]
        if not wrong:
            return assumed
        assumed |= dict.fromkeys(wrong)


def _forget(known: Known, body: ir.Graph) -> None:
    names = {value.name or "" for value in body.inputs}
    names |= {value.name or "" for inner in body.all_nodes() for value in inner.outputs}
    names |= {value.name or "" for graph in body.subgraphs() for value in graph.inputs}
    for name in names:
        for table in (known.shapes, known.types, known.values):
            table.pop(name, None)
