"""Run the part of a graph whose shapes no inference can tell: sizes that depend on values.

Everything else is cut away. A large tensor of known shape is a block of zeros: no weight is read,
and no convolution runs to find a size already known.
"""

from __future__ import annotations

from collections.abc import Collection
from math import prod

import numpy as np
import onnx
import onnx_ir as ir
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from graphprune.runtime import EvaluationError, Fragment, evaluate
from graphprune.shapes.inference import SMALL_ELEMENTS
from graphprune.shapes.propagation import Propagation
from graphprune.shapes.shape_values import reads, shape_inputs
from graphprune.storage.constants import is_constant

# Appended to a value's name for the name of its Shape; no exporter ends a name like this.
SHAPE_SUFFIX = "::shape"
#: Different integers that are fed, below the size of any vocabulary.
_TOKENS = 32


def run_rest(model: ir.Model, known: Propagation, *, in_earnest: bool = False) -> None:
    """Add to ``known`` the shapes that are left, and the values that ops read as shapes.

    Args:
        model: in canonical form.
        known: after its run.
        in_earnest: with the real weights and varied inputs.  Zeros send all tokens the same way, and a
            model may need that somebody goes each way.

    Raises:
        EvaluationError: the model can't be run with these sizes.
    """
    graph = model.graph
    dark = _untraceable(graph, known)
    read_as_shape = shape_inputs(graph)
    shapeless: list[str] = []
    values: list[str] = []
    for node in graph:
        if node in dark:
            continue
        for value in node.outputs:
            name = value.name
            if not name or name in known.others or name in known.values:
                continue
            if name not in known.shapes:
                shapeless.append(name)
            if name in read_as_shape and prod(known.shapes.get(name, ())) <= SMALL_ELEMENTS:
                values.append(name)
    outputs = [name + SHAPE_SUFFIX for name in shapeless] + values
    results = evaluate(_cut(model, known, [*shapeless, *values], in_earnest=in_earnest), outputs, refuse=True)
    if len(results) < len(outputs):
        missing = next(name for name in outputs if name not in results)
        msg = f"'{missing}' can't be computed"
        raise EvaluationError(msg)
    known.shapes |= {name: tuple(results[name + SHAPE_SUFFIX].tolist()) for name in shapeless}
    known.values |= {n: results[n] for n in values if results[n].size <= SMALL_ELEMENTS}


def _untraceable(graph: ir.Graph, known: Propagation) -> set[ir.Node]:
    """Nodes that onnxruntime can't run, and all whose shape can only come from theirs."""
    dark: set[ir.Node] = set()
    kernels: set[tuple[str, str]] = set()
    if any(node.domain != "" for node in graph):
        kernels = {(k.domain, k.op_name) for k in ort_state.get_all_opkernel_def()}
    for node in graph:
        is_foreign = node.domain != "" and (node.domain, node.op_type) not in kernels
        if is_foreign or any(
            value.producer() in dark and value.name not in known.shapes for value in reads(node)
        ):
            dark.add(node)
    return dark


def _cut(model: ir.Model, known: Propagation, targets: Collection[str], *, in_earnest: bool) -> Fragment:
    """The nodes that ``targets`` need, with stand-ins for what is not needed in earnest."""
    graph = model.graph
    tensors: dict[str, ir.TensorProtocol] = {}
    needed: set[ir.Node] = set()
    names = set(targets)
    stack = [(v, False) for node in graph for v in node.outputs if v.name in names]
    while stack:
        value, is_exact = stack.pop()
        producer = value.producer()
        # What is computed from sizes and constants alone may become a constant: no zeros there.
        is_exact = is_exact or producer in known.structural
        tensor = _stand_in(value, known, is_exact or in_earnest)
        if tensor is not None and in_earnest and producer is None and not is_constant(value):
            tensor = _varied(tensor)
        if tensor is not None:
            if is_exact or value.name not in tensors:
                tensors[value.name or ""] = tensor
        elif producer is not None and producer not in needed:
            needed.add(producer)
            stack.extend((source, producer in known.structural) for source in reads(producer))
    shapes = [
        onnx.helper.make_node("Shape", [name], [name + SHAPE_SUFFIX])
        for name in dict.fromkeys(targets)
        if name not in known.shapes
    ]
    nodes = [node for node in graph if node in needed]
    return Fragment(nodes, tensors, model.opset_imports, model.ir_version or 8, shapes)


def _stand_in(value: ir.Value, known: Propagation, is_exact: bool) -> ir.TensorProtocol | None:
    """What to put in place of a value; None where it has to be computed."""
    name = value.name or ""
    tensor = value.const_value
    if tensor is not None and is_constant(value):
        is_weight = tensor.dtype.is_floating_point() and tensor.dtype.bitwidth >= 8
        if is_exact or tensor.size <= SMALL_ELEMENTS or not is_weight:
            return tensor
        return ir.Tensor(np.zeros(tensor.shape.numpy(), tensor.dtype.numpy()), name=name)
    shape, dtype = known.shapes.get(name), known.types.get(name)
    if name in known.values:
        return ir.Tensor(known.values[name], name=name)
    if shape is None or dtype is None:
        return None
    if value.producer() is None:
        return ir.Tensor(_input(name, shape, dtype), dtype=dtype, name=name)
    if is_exact or prod(shape) <= SMALL_ELEMENTS or not dtype.is_floating_point():
        return None
    return ir.Tensor(np.zeros(shape, dtype.numpy()), dtype=dtype, name=name)


def _varied(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """Different small numbers in place of equal ones."""
    array = tensor.numpy()
    if array.dtype.kind not in "iu" or not array.size or array.any():
        return tensor
    return ir.tensor(np.random.default_rng(0).integers(0, _TOKENS, array.shape).astype(array.dtype))


def _input(name: str, shape: tuple[int, ...], dtype: ir.DataType) -> np.ndarray:
    """What a caller might feed: nothing masked, the first token everywhere, some noise."""
    if dtype.is_floating_point():
        noise = np.random.default_rng(0).standard_normal(shape, np.float32)
        return noise.astype(dtype.numpy())
    is_mask = dtype == ir.DataType.BOOL or "mask" in name.lower() or "len" in name.lower()
    return np.full(shape, is_mask, dtype.numpy())
