"""One random network through the whole pipeline, and a judgement that knows nothing but the plan file."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from random_networks import Net

import graphprune as gp
from graphprune.check import validate
from graphprune.deaths import settle
from graphprune.errors import PlanError, TargetError
from graphprune.oracle import verify
from graphprune.plan import Plan
from graphprune.planner import make_plan, removed_units
from graphprune.rewrite import cut as rewrite

Array = np.ndarray[Any, Any]
#: Constants whose zero would divide by zero: their removed entries may hold anything.
KEPT = {("Div", 1), ("BatchNormalization", 3), ("BatchNormalization", 4)}
TOLERANCE = 2e-4
#: What goes with a group of these kinds is not what zeros in the weights would make.
NOT_ZEROS = {"experts", "blocks"}


@dataclass
class Outcome:
    """What became of one network.

    Attributes:
        kinds: of the groups that were cut, over all cuts.
        refused: why a cut was not made, digits taken out.
        compared: was an exact cut compared by the plan file alone?
    """

    kinds: set[str]
    refused: list[str]
    compared: bool = False


def random_plan(
    graph: gp.DependencyGraph, rng: np.random.Generator, refused: list[str], *, exact_only: bool
) -> Plan | None:
    """Some units of some groups, or what the planner chooses by a random criterion; all kinds, or some."""
    groups = [g for g in graph.groups if g.prunable and (g.exact or not exact_only)]
    kinds = sorted({g.kind for g in groups})
    if len(kinds) > 1 and rng.integers(3) == 0:
        kinds = sorted(rng.choice(kinds, int(rng.integers(1, len(kinds))), replace=False).tolist())
    groups = [g for g in groups if g.kind in kinds and (g.size > g.least or g.kind == "blocks")]
    if not groups:
        refused.append("no group can shrink")
        return None
    if rng.integers(3) == 0:
        target = {str(rng.choice(["macs", "params"])): float(rng.uniform(0.3, 0.95))}
        seed = int(rng.integers(1000))
        try:
            return gp.plan(
                graph, target=target, criterion="random", exact_only=exact_only, seed=seed, kinds=kinds,
                allocator=str(rng.choice(["global", "uniform"])),
            )  # fmt: skip
        except TargetError as error:
            refused.append(re.sub(r"[\d.]+", "N", str(error).splitlines()[0]))
    removed = np.zeros(len(graph.analysis.algebra), bool)
    for group in groups:
        if group.kind == "blocks":
            removed[group.units] = rng.integers(2)
        elif rng.integers(2):
            count = int(rng.integers(1, group.size - group.least + 1))
            removed[rng.choice(group.units, count, replace=False)] = True
    removed = settle(graph.analysis, removed)
    return make_plan(graph, removed, {}) if removed.any() else None


def as_read(graph: gp.DependencyGraph, plan: Plan) -> Plan:
    """The plan as it comes back from its file, and means the same."""
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again == plan
    same = make_plan(graph, removed_units(graph, again), plan.target)
    assert [(e.name, e.axis, e.keep, e.uses) for e in same.parameters] == [
        (e.name, e.axis, e.keep, e.uses) for e in plan.parameters
    ]
    return again


def constant(model: onnx.ModelProto, name: str) -> Array:
    """Value of an initializer, or of what the graph computes from constants alone."""
    for tensor in model.graph.initializer:
        if tensor.name == name:
            return numpy_helper.to_array(tensor)
    makers = {output: node for node in model.graph.node for output in node.output}
    part, todo = onnx.ModelProto(), [name]
    part.CopyFrom(model)
    needed: set[str] = set()
    while todo:
        node = makers.get(todo.pop())
        if node is not None and node.output[0] not in needed:
            needed.add(node.output[0])
            todo.extend(node.input)
    nodes = [node for node in model.graph.node if node.output[0] in needed]
    for entries in (part.graph.node, part.graph.input, part.graph.output, part.graph.value_info):
        del entries[:]
    part.graph.node.extend(nodes)
    part.graph.output.append(onnx.ValueInfoProto(name=name))
    return np.asarray(ReferenceEvaluator(part).run(None, {})[0])


def all_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Nodes of a graph and of its bodies."""
    found = []
    for node in graph.node:
        found.append(node)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                found += all_nodes(attribute.g)
    return found


def zeroed(model: onnx.ModelProto, plan: Plan) -> onnx.ModelProto:
    """The original file with zeros where the plan removes something."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    readers = {f"{n.output[0]}:{i}": (n, i) for n in all_nodes(result.graph) for i in range(len(n.input))}
    own: dict[str, Array] = {}
    for entry in plan.parameters:
        gone = np.setdiff1d(np.arange(entry.size), entry.keep)
        keys = entry.uses or [key for key, (n, i) in readers.items() if n.input[i] == entry.name]
        for key in keys:
            node, i = readers[key]
            if (node.op_type, i) not in KEPT:
                if key not in own:
                    own[key] = constant(model, entry.name).copy()
                own[key][(slice(None),) * entry.axis + (gone,)] = 0
    for key, array in own.items():
        node, i = readers[key]
        node.input[i] = f"{key}/zeroed"
        result.graph.initializer.append(numpy_helper.from_array(array, node.input[i]))
    return result


def session(model: onnx.ModelProto, *, optimize: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run_trial(net: Net, seed: int) -> Outcome:
    """Builds, cuts and checks one network; ``seed`` is of the cuts.

    Raises:
        Exception: something is wrong with graphprune.
    """
    model = net.build()
    rng = np.random.default_rng(seed)
    graph = gp.analyze(gp.load(model))
    outcome = Outcome(set(), [])
    plan = random_plan(graph, rng, outcome.refused, exact_only=False)
    exact = random_plan(graph, rng, outcome.refused, exact_only=True)
    # onnxruntime multiplies quantized weights by numbers that it rounds itself, so it is told not to.
    optimize = not any(node.op_type == "DequantizeLinear" for node in all_nodes(model.graph))
    if plan is not None:
        pruned = cut(graph, plan, outcome)
        if pruned is not None:
            for result in session(pruned, optimize=True).run(None, net.feed(3, 5)):
                assert np.isfinite(result).all()
    if exact is not None:
        pruned = cut(graph, exact, outcome)
        if pruned is not None and not net.rounds and not NOT_ZEROS & {g.kind for g in exact.groups}:
            compare(net, zeroed(model, exact), session(pruned, optimize=optimize))
            outcome.compared = True
    return outcome


def compare(net: Net, reference: onnx.ModelProto, pruned: ort.InferenceSession) -> None:
    """The cut model computes what the original does with zeros, at other batch sizes and lengths."""
    original = session(reference, optimize=False)
    for batch, length in ((1, 3), (4, 9)):
        feeds = net.feed(batch, length)
        for a, b in zip(original.run(None, feeds), pruned.run(None, feeds), strict=True):
            assert a.shape == b.shape
            assert np.abs(a - b).max() <= TOLERANCE * max(float(np.abs(a).max()), 1e-3)


def cut(graph: gp.DependencyGraph, plan: Plan, outcome: Outcome) -> onnx.ModelProto | None:
    """The cut model, which passed the oracle and costs what is claimed; None for a plan that is refused."""
    try:
        removed = removed_units(graph, as_read(graph, plan))
    except PlanError as error:
        if "positions where" not in str(error):
            raise
        outcome.refused.append(re.sub(r"\d+", "N", str(error).splitlines()[0]))
        return None
    pruned = rewrite(graph.analysis, removed)
    validate(pruned)
    verify(graph.analysis, removed, pruned)
    proto = pruned.to_proto()
    floats = [t for t in proto.graph.initializer if t.data_type == TensorProto.FLOAT]
    found = sum(int(np.prod(t.dims)) for t in floats)
    assert found <= graph.cost.evaluate(removed).params
    outcome.kinds |= {group.kind for group in plan.groups}
    return proto
