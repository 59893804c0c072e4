"""Every way through a model: random inputs take one branch of an If, and may never enter a loop.

What no run comes by, no comparison of outputs can judge.  So the oracle compares further copies of both
models, in which conditions are constants and loops run at least once (and no loop for ever).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphprune.model import Model
from graphprune.names import unique_name
from graphprune.shapes.shape_values import subgraphs

#: What Ifs decide, by whether an even or odd number of Ifs is around them.
Path = tuple[bool, bool]
#: Opset since which Clip takes integers.
_INTEGER_CLIP = 12
#: With another condition a loop might never end.
_MOST_RUNS = 1000


def paths(model: Model) -> list[Path]:
    """Paths that together take every branch, up to an If in a branch of an If.

    None if there is one way only.
    """
    kinds = [node.op_type for node in model.ir.graph.all_nodes() if node.domain == ""]
    if "If" not in kinds:
        return [(True, True)] if "Loop" in kinds else []
    if _depth(model.ir.graph) == 1:
        return [(True, True), (False, False)]
    return [(a, b) for a in (True, False) for b in (True, False)]


def on_path(model: Model, path: Path) -> Model:
    """A copy of ``model`` that takes this path."""
    copy = model.clone()
    truth = {value: _constant(copy.ir.graph, np.asarray(value)) for value in (True, False)}
    bounds = [_constant(copy.ir.graph, np.asarray(n, np.int64)) for n in (1, _MOST_RUNS)]
    _decide(copy, copy.ir.graph, path, 0, truth, bounds)
    return copy


def _depth(graph: ir.Graph) -> int:
    """How many Ifs stand inside each other."""
    return max(
        (_depth(body) + (node.op_type == "If") for node in graph for body in subgraphs(node)), default=0
    )


def _constant(graph: ir.Graph, array: np.ndarray) -> ir.Value:
    name = unique_name(graph, f"path_{array}")
    value = ir.Value(
        name=name,
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        shape=ir.Shape(array.shape),
        const_value=ir.tensor(array, name=name),
    )
    graph.register_initializer(value)
    return value


def _decide(
    model: Model, graph: ir.Graph, path: Path, depth: int, truth: dict[bool, ir.Value], bounds: list[ir.Value]
) -> None:
    for node in list(graph):
        is_if = node.op_type == "If" and node.domain == ""
        if is_if:
            node.replace_input_with(0, truth[path[depth % 2]])
        elif node.op_type == "Loop" and node.domain == "":
            _enter_once(model, node, truth[True], bounds)
        for body in subgraphs(node):
            _decide(model, body, path, depth + is_if, truth, bounds)


def _enter_once(model: Model, node: ir.Node, yes: ir.Value, bounds: list[ir.Value]) -> None:
    graph, limit = node.graph, node.inputs[0]
    assert isinstance(graph, ir.Graph)
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        node.replace_input_with(1, yes)
    if limit is None:
        node.replace_input_with(0, bounds[1])
    elif model.opset >= _INTEGER_CLIP:
        runs = ir.node("Clip", [limit, *bounds])
        runs.outputs[0].name = unique_name(graph, f"{node.outputs[0].name}/runs")
        graph.insert_before(node, runs)
        node.replace_input_with(0, runs.outputs[0])
