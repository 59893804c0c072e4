"""Static shape inference on a graph without its weights, and what it overlooks.

`onnx.shape_inference` is given the structure, the small constants (they may be shapes) and concrete
input sizes; with these it finds nearly every shape without running anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from math import prod

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.traversal import RecursiveGraphIterator

from graphprune.runtime import named_proto
from graphprune.shapes.shape_values import structural_nodes
from graphprune.shapes.sizes import evaluate_dim
from graphprune.storage.constants import is_constant

# Constants up to this many elements can be shapes, paddings, scales; inference reads their values.
SMALL_ELEMENTS = 256

Axes = Sequence["int | str"]


@dataclass(frozen=True)
class Inferred:
    """What inference found.

    Attributes:
        axes: sizes of every tensor of known rank; None where a size is not known, a string where it
            is symbolic.
        types: element types.
        others: values that are no tensors (sequences, optionals).
    """

    axes: Mapping[str, tuple[int | str | None, ...]]
    types: Mapping[str, ir.DataType]
    others: frozenset[str]

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Concrete shape of a value, None when it is not wholly known."""
        axes = self.axes.get(name)
        if axes is None or not all(isinstance(size, int) for size in axes):
            return None
        return tuple(size for size in axes if isinstance(size, int))


class Skeleton:
    """A graph without weights, ready for inference under different input sizes."""

    def __init__(self, model: ir.Model) -> None:
        graph = model.graph
        self._graph = graph
        self._proto = onnx.GraphProto(name="skeleton")
        self._proto.node.extend(ir.serde.serialize_node(node) for node in graph)
        for proto in self._proto.node:  # some exporters write a stack trace into each
            proto.ClearField("metadata_props")
        self._opsets = [onnx.helper.make_opsetid(d, v) for d, v in model.opset_imports.items()]
        self._ir_version = model.ir_version
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is None or not is_constant(value):
                continue
            if tensor.size <= SMALL_ELEMENTS:
                self._proto.initializer.append(named_proto(tensor, value.name or ""))
            else:
                info = _info(value.name, int(tensor.dtype), tensor.shape.numpy())
                self._proto.input.append(info)
        self._proto.output.extend(onnx.ValueInfoProto(name=v.name) for v in graph.outputs)
        self._declared = len(self._proto.input)

    @cached_property
    def structural(self) -> dict[ir.Node, None]:
        """See `structural_nodes`."""
        return structural_nodes(self._graph)

    @cached_property
    def constants(self) -> dict[str, np.ndarray]:
        """What the small constants of the graph hold, by name."""
        return {
            name: value.const_value.numpy()
            for name, value in self._graph.initializers.items()
            if value.const_value is not None
            and is_constant(value)
            and value.const_value.size <= SMALL_ELEMENTS
        }

    def infer(
        self,
        inputs: Mapping[str, Axes],
        *,
        sizes: Mapping[str, int] | None = None,
        by_name: bool = False,
    ) -> Inferred:
        """Infer every shape from those of the inputs.

        Args:
            inputs: sizes (or symbolic names) of the axes of every input of known rank.
            sizes: of the symbolic dims; with these, what the exporter declared about the outputs of
                ops that inference doesn't know is used as well.
            by_name: use these declarations too, with the names of symbolic dims as they are.
        """
        proto = self._proto
        del proto.input[self._declared :]
        del proto.value_info[:]
        for value in self._graph.inputs:
            if value.dtype is None:
                continue
            info = _info(value.name, int(value.dtype), inputs.get(value.name or ""))
            proto.input.append(info)
        if sizes is not None or by_name:
            proto.value_info.extend(self._declarations(sizes))
        model = onnx.ModelProto(ir_version=self._ir_version, graph=proto, opset_import=self._opsets)
        result = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        return _collect(result)

    def _declarations(self, sizes: Mapping[str, int] | None) -> Iterable[onnx.ValueInfoProto]:
        for node in self._graph:
            if (node.domain, node.op_type) in _known_ops():
                continue
            for value in node.outputs:
                if value.dtype is None or value.shape is None or not value.name:
                    continue
                axes: list[int | str] = []
                for size in value.shape:
                    symbol = size if isinstance(size, int) else size.value
                    if sizes is None:
                        axes.append(symbol or "")
                        continue
                    try:
                        axes.append(evaluate_dim(str(symbol), sizes))
                    except Exception:  # a dim that only the exporter knew
                        axes.append("")
                yield _info(value.name, int(value.dtype), axes)


@cache
def _known_ops() -> frozenset[tuple[str, str]]:
    return frozenset((s.domain, s.name) for s in onnx.defs.get_all_schemas_with_history())


def _info(name: str | None, dtype: int, axes: Iterable[int | str] | None) -> onnx.ValueInfoProto:
    """A value declaration; an empty string is an axis of unknown size."""
    shape = None if axes is None else [size if size != "" else None for size in axes]
    return onnx.helper.make_tensor_value_info(name or "", dtype, shape)


def _collect(graph: onnx.GraphProto) -> Inferred:
    axes: dict[str, tuple[int | str | None, ...]] = {}
    types: dict[str, ir.DataType] = {}
    others: set[str] = set()
    for tensor in graph.initializer:
        axes[tensor.name] = tuple(tensor.dims)
        types[tensor.name] = ir.DataType(tensor.data_type)
    for infos in (graph.input, graph.value_info, graph.output):
        for info in infos:
            kind = info.type.WhichOneof("value")
            if kind is None:
                continue
            if kind != "tensor_type":
                others.add(info.name)
                continue
            tensor_type = info.type.tensor_type
            if tensor_type.elem_type:
                types[info.name] = ir.DataType(tensor_type.elem_type)
            if tensor_type.HasField("shape"):
                # A branch that is never taken may fit so little that its sizes come out below zero.
                axes[info.name] = tuple(
                    (dim.dim_value if dim.dim_value >= 0 else None)
                    if dim.HasField("dim_value")
                    else (dim.dim_param or None)
                    for dim in tensor_type.shape.dim
                )
    return Inferred(axes, types, frozenset(others))


def contradiction(graph: ir.Graph, known: Mapping[str, tuple[int, ...]]) -> str | None:
    """Why these sizes can't be run although inference accepts them; None if they can.

    Inference takes a Reshape's literal target on trust and doesn't compare a convolution's channels
    with its weight's, nor the samples of a rotary embedding with those of its tables.  Loops count as well;
    a branch may be meant for other sizes, and not be taken.
    """
    for node in RecursiveGraphIterator(graph, recursive=lambda node: node.op_type != "If"):
        if node.domain != "" or node.op_type not in {"Reshape", "Conv", "ConvTranspose", "RotaryEmbedding"}:
            continue
        names = [value.name or "" for value in (node.inputs[0], node.inputs[1]) if value is not None]
        shapes = [known.get(name) for name in names]
        result = known.get(node.outputs[0].name or "")
        source = shapes[0]
        if source is None or len(shapes) < 2:
            continue
        if node.op_type == "Reshape":
            if result is not None and prod(source) != prod(result):
                return f"Reshape '{node.name}' turns {source} into {result}"
            continue
        weight = shapes[1]
        if weight is None or len(source) < 2:
            continue
        if node.op_type == "RotaryEmbedding":  # tables of three axes are per sample
            if len(weight) == 3 and weight[0] != source[0]:
                return f"RotaryEmbedding '{node.name}' has angles for {weight[0]} samples, not {source[0]}"
            continue
        group = node.attributes.get_int("group", 1) or 1
        channels = weight[0] if node.op_type == "ConvTranspose" else weight[1] * group
        if channels != source[1]:
            return f"{node.op_type} '{node.name}' gets {source[1]} channels, not {channels}"
    return None
