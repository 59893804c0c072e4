"""The same network written down differently: the same groups, and the same weights after the same cut.

Values get other names, nodes another order; Identity and Cast nodes, pairs of Transposes and of Unsqueeze and
Squeeze are put in between; initializers become Constant nodes and the other way round.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from networks import NETWORKS, feeds, run
from onnx import helper, numpy_helper
from random_networks import Net
from random_trial import all_nodes
from structures import STRUCTURES

import graphprune as gp
from graphprune.check import validate
from graphprune.oracle import verify
from graphprune.plan import Plan
from graphprune.planner import make_plan, removed_units
from graphprune.rewrite import cut

Rng = np.random.Generator
#: A model written differently, and the new names of values (those that are not in it keep theirs).
Change = Callable[[onnx.ModelProto, Rng], dict[str, str]]

CHANGES: dict[str, Change] = {}


def change(function: Change) -> Change:
    CHANGES[function.__name__] = function
    return function


# ---- ways to write it differently -----------------------------------------------------------------


@change
def renamed(model: onnx.ModelProto, rng: Rng) -> dict[str, str]:
    """Every value but the inputs and outputs of the model."""
    graph = model.graph
    kept = {"", *(v.name for v in (*graph.input, *graph.output))}
    names = {name for g in _graphs(graph) for name in _values(g)} - kept
    order = rng.permutation(len(names))
    new = {name: f"value_{order[i]}" for i, name in enumerate(sorted(names))}
    for g in _graphs(graph):
        for node in g.node:
            node.name = f"node_{zlib.crc32(node.name.encode())}"
            node.input[:] = [new.get(name, name) for name in node.input]
            node.output[:] = [new.get(name, name) for name in node.output]
        for value in (*g.initializer, *g.input, *g.output, *g.value_info):
            value.name = new.get(value.name, value.name)
    return new


@change
def reordered(model: onnx.ModelProto, rng: Rng) -> dict[str, str]:
    """Another topological order; initializers shuffled."""
    nodes, ready = list(model.graph.node), []
    made = {name for node in nodes for name in node.output}
    needs = [{name for inner in (node, *_inner(node)) for name in inner.input} & made for node in nodes]
    own = [{name for inner in _inner(node) for name in inner.output} for node in nodes]
    for node, need, inside in zip(nodes, needs, own, strict=True):
        need -= inside | set(node.output)
    done: set[str] = set()
    left = list(range(len(nodes)))
    while left:
        free = [i for i in left if needs[i] <= done]
        chosen = free[int(rng.integers(len(free)))]
        left.remove(chosen)
        done.update(nodes[chosen].output)
        ready.append(nodes[chosen])
    tensors = [model.graph.initializer[i] for i in rng.permutation(len(model.graph.initializer))]
    _refill(model.graph.node, ready)
    _refill(model.graph.initializer, tensors)
    return {}


@change
def with_identities(model: onnx.ModelProto, rng: Rng) -> dict[str, str]:
    """Identity nodes anywhere; Casts of floats to floats, but of no weight: that makes a matrix apart."""
    made = {name for node in model.graph.node if node.op_type != "Constant" for name in node.output}
    floats = _floats(model) & made

    def wrap(name: str, rank: int | None) -> list[tuple[str, dict[str, Any]]]:
        cast = ("Cast", {"to": onnx.TensorProto.FLOAT})
        return [cast if name in floats and rng.integers(2) else ("Identity", {})]

    return _insert(model, rng, wrap, constants=True)


@change
def with_transposes(model: onnx.ModelProto, rng: Rng) -> dict[str, str]:
    """Pairs of Transposes that undo each other."""

    def wrap(name: str, rank: int | None) -> list[tuple[str, dict[str, Any]]]:
        if rank is None or rank < 2:
            return []
        perm = rng.permutation(rank)
        return [("Transpose", {"perm": perm.tolist()}), ("Transpose", {"perm": np.argsort(perm).tolist()})]

    return _insert(model, rng, wrap, constants=False)


@change
def with_unsqueezes(model: onnx.ModelProto, rng: Rng) -> dict[str, str]:
    """Pairs of Unsqueeze and Squeeze."""

    def wrap(name: str, rank: int | None) -> list[tuple[str, dict[str, Any]]]:
        if rank is None:
            return []
        axes = {"axes": int(rng.integers(rank + 1))}
        return [("Unsqueeze", axes), ("Squeeze", axes)]

    return _insert(model, rng, wrap, constants=False)


@change
def constants_as_nodes(model: onnx.ModelProto, rng: Rng) -> dict[str, str]:
    """Some initializers become Constant nodes, and all Constant nodes initializers."""
    graph = model.graph
    for g in _graphs(graph):
        for node in [n for n in g.node if n.op_type == "Constant" and n.attribute[0].name == "value"]:
            node.attribute[0].t.name = node.output[0]
            graph.initializer.append(node.attribute[0].t)
            g.node.remove(node)
    tensors = list(graph.initializer)
    nodes = []
    for tensor in tensors:
        if rng.integers(2):
            nodes.append(helper.make_node("Constant", [], [tensor.name], value=tensor))
            graph.initializer.remove(tensor)
    _refill(graph.node, [*nodes, *graph.node])
    return {}


def _graphs(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    bodies = [a.g for n in graph.node for a in n.attribute if a.type == onnx.AttributeProto.GRAPH]
    return [graph, *(inner for body in bodies for inner in _graphs(body))]


def _values(graph: onnx.GraphProto) -> list[str]:
    entries = [v.name for v in (*graph.input, *graph.output, *graph.initializer, *graph.value_info)]
    return entries + [name for node in graph.node for name in (*node.input, *node.output)]


def _inner(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    return [n for a in node.attribute if a.type == onnx.AttributeProto.GRAPH for n in all_nodes(a.g)]


def _refill(field: Any, items: list[Any]) -> None:
    copies = []
    for item in items:
        copy = type(item)()
        copy.CopyFrom(item)
        copies.append(copy)
    del field[:]
    field.extend(copies)


def _floats(model: onnx.ModelProto) -> set[str]:
    inferred = onnx.shape_inference.infer_shapes(model).graph
    typed = (*inferred.value_info, *inferred.input, *inferred.output)
    found = {v.name for v in typed if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    return found | {t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT}


def _insert(
    model: onnx.ModelProto,
    rng: Rng,
    wrap: Callable[[str, int | None], list[tuple[str, dict[str, Any]]]],
    *,
    constants: bool,
) -> dict[str, str]:
    """Puts nodes on a third of the edges of the main graph."""
    trace = gp.analyze(gp.load(model)).analysis.trace
    stored = {t.name for t in model.graph.initializer}
    stored |= {node.output[0] for node in model.graph.node if node.op_type == "Constant"}
    floats, count, nodes = _floats(model), len(model.graph.node), []
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            is_constant = name in stored
            if not name or rng.integers(3) or (is_constant and not constants):
                continue
            rank = len(trace.shapes[name]) if name in trace.shapes and name in floats else None
            for op_type, attributes in wrap(name, rank):
                count += 1
                inputs, extra = [name], dict(attributes)
                if "axes" in extra:
                    inputs.append(f"put_axes{count}_{node.output[0]}")
                    axes = np.array([extra.pop("axes")], np.int64)
                    model.graph.initializer.append(numpy_helper.from_array(axes, inputs[1]))
                name = f"put{count}_{node.output[0]}"
                nodes.append(helper.make_node(op_type, inputs, [name], name=name, **extra))
            node.input[i] = name
        nodes.append(node)
    _refill(model.graph.node, nodes)
    return {}


# ---- the comparison -------------------------------------------------------------------------------


def groups(graph: gp.DependencyGraph, new: dict[str, str]) -> Counter[tuple[object, ...]]:
    """Groups as sets of places that read a parameter axis, in the changed names.

    Layers of equal shape are left out: with a pair of Transposes in front, more of a network is a chain.
    """
    return Counter(
        (
            frozenset((m.axis, _key(m.use, new)) for m in g.members),
            g.kind, g.size, g.prunable, g.exact, g.least,
        )
        for g in graph.groups
        if g.kind != "blocks" or g.exact
    )  # fmt: skip


def _key(use: str, new: dict[str, str]) -> str:
    name, _, index = use.rpartition(":")
    return f"{new.get(name, name)}:{index}"


def translated(
    plan: Plan, graph: gp.DependencyGraph, changed: gp.DependencyGraph, new: dict[str, str]
) -> Plan:
    """The plan in the words of the changed model."""
    entries = []
    for entry in plan.parameters:
        uses = entry.uses or [u.key for u in graph.analysis.uses.values() if u.value.name == entry.name]
        for use in uses:
            key = _key(use, new)
            name = changed.uses_by_key[key].value.name or ""
            entries.append(dataclasses.replace(entry, name=name, uses=[key]))
    return dataclasses.replace(plan, parameters=entries)


def weights(model: gp.Model) -> set[tuple[object, ...]]:
    """Float constants by content; one that is read twice may be stored once or twice."""
    arrays = map(numpy_helper.to_array, model.to_proto().graph.initializer)
    return {(a.shape, a.tobytes()) for a in arrays if a.dtype.kind == "f" and a.size > 1}


def half(graph: gp.DependencyGraph, rng: Rng) -> np.ndarray[Any, Any]:
    """Some units of every group."""
    removed = np.zeros(len(graph.analysis.algebra), bool)
    for group in graph.groups:
        if group.prunable and group.kind != "blocks":
            count = min(max(group.size // 2, 1), group.size - group.least)
            removed[rng.choice(group.units, count, replace=False)] = True
    return removed


def check(model: onnx.ModelProto, names: list[str], data: dict[str, Any] | None) -> None:
    """Groups, cut weights and results stay the same through some changes, one after the other."""
    rng = np.random.default_rng(5)
    graph = gp.analyze(gp.load(model))
    other, new = onnx.ModelProto(), dict[str, str]()
    other.CopyFrom(model)
    del other.graph.value_info[:]
    for name in names:
        new |= CHANGES[name](other, rng)
    onnx.checker.check_model(other)
    changed = gp.analyze(gp.load(other))
    assert groups(changed, {}) == groups(graph, new)
    removed = half(graph, rng)
    if not removed.any():
        return
    plan = make_plan(graph, removed, {})
    again = removed_units(changed, translated(plan, graph, changed, new))
    first, second = cut(graph.analysis, removed), cut(changed.analysis, again)
    validate(second)
    verify(changed.analysis, again, second)
    assert weights(first) == weights(second)
    if data is not None:
        for a, b in zip(run(first.to_proto(), data), run(second.to_proto(), data), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", CHANGES)
def test_a_network_written_differently(network: str, name: str) -> None:
    model = NETWORKS[network]()
    check(model, [name], None if network == "other_domain" else feeds(model))


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_structure_written_differently_in_every_way(structure: str) -> None:
    check(STRUCTURES[structure](), sorted(CHANGES), None)


# One change at a time: where several come between, a chain that only moves channels is no longer seen as one
# permutation, and its channels fall into more groups.
@pytest.mark.parametrize("seed", range(500, 524))
def test_a_random_network_written_differently(seed: int) -> None:
    net = Net(seed)
    check(net.build(), [sorted(CHANGES)[seed % len(CHANGES)]], net.feed(2, 4))
