"""Run the part of a graph whose shapes static inference can't tell, and its shape arithmetic.

Everything else is cut away: a large tensor of known shape is a block of zeros, Shape of a known
shape is a constant. No weight is read, and no convolution runs to find a size already known.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from math import prod

import numpy as np
import onnx
import onnx_ir as ir
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from graphprune.constants import is_constant
from graphprune.inference import SMALL_ELEMENTS, Inferred
from graphprune.runtime import EvaluationError, Fragment, evaluate
from graphprune.shape_values import outer_values, shape_inputs, structural_nodes

# Appended to a value's name for the name of its Shape; no exporter ends a name like this.
SHAPE_SUFFIX = "::shape"


def run_rest(
    model: ir.Model, found: Inferred
) -> tuple[dict[str, tuple[int, ...]], dict[str, np.ndarray]] | None:
    """Shapes that inference left open, and values of shape arithmetic.

    Args:
        model: in canonical form.
        found: what inference tells under concrete input sizes.

    Returns:
        Shapes by name, values by name; None if the model can't be run with these sizes.
    """
    graph = model.graph
    dark = _untraceable(graph, found)
    structural = structural_nodes(graph)
    read_as_shape = shape_inputs(graph)
    shapeless: list[str] = []
    values: list[str] = []
    for node in graph:
        if node in dark:
            continue
        for value in node.outputs:
            name = value.name
            if not name or name in found.others:
                continue
            shape = found.shape(name)
            if shape is None:
                shapeless.append(name)
            is_small = shape is None or prod(shape) <= SMALL_ELEMENTS
            if is_small and (node in structural or name in read_as_shape):
                values.append(name)
    fragment = _cut(model, found, [*shapeless, *values])
    outputs = [name + SHAPE_SUFFIX for name in shapeless]
    known = {name: tensor.numpy() for name, tensor in fragment.tensors.items() if name in values}
    wanted = [name for name in values if name not in known]
    try:
        results = evaluate(fragment, outputs + wanted, refuse=True)
    except EvaluationError:
        return None
    if len(results) < len(outputs) + len(wanted):
        return None
    shapes = {name: tuple(results[name + SHAPE_SUFFIX].tolist()) for name in shapeless}
    known |= {name: results[name] for name in wanted if results[name].size <= SMALL_ELEMENTS}
    return shapes, known


def _untraceable(graph: ir.Graph, found: Inferred) -> set[ir.Node]:
    """Nodes that onnxruntime can't run, and all whose shape can only come from theirs."""
    dark: set[ir.Node] = set()
    kernels: set[tuple[str, str]] = set()
    if any(node.domain != "" for node in graph):
        kernels = {(k.domain, k.op_name) for k in ort_state.get_all_opkernel_def()}
    for node in graph:
        if node.domain != "" and (node.domain, node.op_type) not in kernels:
            dark.add(node)
            continue
        for value in _reads(node):
            producer = value.producer()
            if producer in dark and found.shape(value.name or "") is None:
                dark.add(node)
                break
    return dark


def _reads(node: ir.Node) -> Iterator[ir.Value]:
    """What a node reads, through its subgraphs as well."""
    yield from (value for value in node.inputs if value is not None)
    yield from outer_values(node)


def _cut(model: ir.Model, found: Inferred, targets: Collection[str]) -> Fragment:
    """The nodes that ``targets`` need, with stand-ins for what is not needed in earnest."""
    graph = model.graph
    by_name = {value.name: value for node in graph for value in node.outputs if value.name}
    tensors: dict[str, ir.TensorProtocol] = {}
    needed: set[ir.Node] = set()
    stack = [by_name[name] for name in targets]
    while stack:
        value = stack.pop()
        name, node = value.name or "", value.producer()
        if name in tensors or node in needed:
            continue
        stand_in = _stand_in(value, found)
        if stand_in is not None:
            tensors[name] = stand_in
        elif node is not None:
            needed.add(node)
            stack.extend(_reads(node))
    nodes = [node for node in graph if node in needed]
    shapes = [
        onnx.helper.make_node("Shape", [name], [name + SHAPE_SUFFIX])
        for name in dict.fromkeys(targets)
        if found.shape(name) is None
    ]
    return Fragment(nodes, tensors, model.opset_imports, model.ir_version or 8, shapes)


def _stand_in(value: ir.Value, found: Inferred) -> ir.TensorProtocol | None:
    """What to put in place of a value; None where it has to be computed."""
    name = value.name or ""
    shape, dtype = found.shape(name), found.types.get(name)
    node = value.producer()
    if node is None:
        return _leaf(value, shape, dtype)
    if node.op_type in {"Shape", "Size"} and node.domain == "" and node.inputs[0] is not None:
        source = found.shape(node.inputs[0].name or "")
        if source is not None:
            return _size_of(node, source, name)
    if shape is None or dtype is None or prod(shape) <= SMALL_ELEMENTS:
        return None
    return ir.tensor(np.zeros(shape, dtype.numpy()), name=name) if dtype.is_floating_point() else None


def _leaf(
    value: ir.Value, shape: tuple[int, ...] | None, dtype: ir.DataType | None
) -> ir.TensorProtocol | None:
    """A constant (zeros for a large weight), or something that a graph input may hold."""
    tensor = value.const_value
    if tensor is not None and is_constant(value):
        is_weight = tensor.dtype.is_floating_point() and tensor.dtype.bitwidth >= 8
        if tensor.size <= SMALL_ELEMENTS or not is_weight:
            return tensor
        return ir.tensor(np.zeros(tensor.shape.numpy(), tensor.dtype.numpy()), name=value.name)
    if shape is None or dtype is None:
        return None
    name = (value.name or "").lower()
    if dtype == ir.DataType.BOOL or (dtype.is_integer() and ("mask" in name or "len" in name)):
        return ir.tensor(np.ones(shape, dtype.numpy()), name=value.name)
    if dtype.is_floating_point():
        random = np.random.default_rng(0).standard_normal(shape, np.float32)
        return ir.tensor(random.astype(dtype.numpy()), name=value.name)
    return ir.tensor(np.zeros(shape, dtype.numpy()), name=value.name)


def _size_of(node: ir.Node, shape: tuple[int, ...], name: str) -> ir.TensorProtocol:
    if node.op_type == "Size":
        return ir.tensor(np.asarray(prod(shape), np.int64), name=name)
    start = node.attributes.get_int("start", 0)
    end = node.attributes.get_int("end", len(shape))
    return ir.tensor(np.asarray(shape[start:end], np.int64), name=name)
