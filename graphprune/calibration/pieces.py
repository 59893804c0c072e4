"""onnxruntime sessions over parts of a model; in float32 for what it does in bfloat16."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort

from graphprune.analysis import touched
from graphprune.errors import ModelError
from graphprune.fed import can_be_fed, contiguous
from graphprune.model import Model
from graphprune.parts import is_big
from graphprune.runtime import named_proto
from graphprune.widened import wide_array, wide_kind, wide_tensor, widen_nodes

#: A session copies no more bytes of constants.
FEED_BYTES = 1 << 28


def session_over(
    model: Model,
    nodes: Sequence[ir.Node],
    inputs: Mapping[str, int],
    outputs: Collection[str],
    threads: int = 0,
) -> ort.InferenceSession:
    """A session that runs some nodes of a model's main graph.

    Args:
        model: the model.
        nodes: in topological order.
        inputs: what they read and don't make, with its ONNX data type; shapes are left open.
        outputs: names of what is wanted of them.
        threads: of onnxruntime; 0 leaves it to onnxruntime.

    Raises:
        ModelError: onnxruntime refuses the part.
    """
    first = f"{nodes[0].op_type} '{nodes[0].name}'" if nodes else "an empty part"
    read = {v for n in nodes for v in touched(n)}
    size = sum(v.const_value.nbytes for v in read if v.const_value is not None)
    fed = large_constants(read, inputs) if size > FEED_BYTES or is_big(model) else {}
    return opened(part_of(model, nodes, inputs, outputs, fed), first, threads, fed)


def large_constants(
    read: Collection[ir.Value], inputs: Mapping[str, int]
) -> dict[str, npt.NDArray[np.generic]]:
    """Constants that a session is handed with each run, where they are, instead of copies of its own.

    Args:
        read: what its nodes read.
        inputs: what it is given anyway.
    """
    fixed = {v.name or "": v.const_value for v in read if is_fixed(v) and v.name not in inputs}
    tensors = {name: wide_tensor(tensor) for name, tensor in fixed.items() if tensor is not None}
    return {name: contiguous(tensor) for name, tensor in tensors.items() if can_be_fed(tensor)}


def part_of(
    model: Model,
    nodes: Sequence[ir.Node],
    inputs: Mapping[str, int],
    outputs: Collection[str],
    fed: Mapping[str, npt.NDArray[np.generic]] | None = None,
) -> onnx.ModelProto:
    """Some nodes of a model's main graph as a model; arguments as for :func:`session_over`.

    The constants ``fed`` become inputs.
    """
    graph = onnx.GraphProto(name="piece", node=[ir.serde.serialize_node(n) for n in nodes])
    widen_nodes(graph.node)
    # A default value stands for an input that is not given.
    constants = {
        v.name or "": v
        for n in nodes
        for v in touched(n)
        if v.const_value is not None and (is_fixed(v) or v.name not in inputs)
    }
    for name, value in constants.items():
        assert value.const_value is not None
        if fed and name in fed:
            dtype = wide_kind(int(onnx.helper.np_dtype_to_tensor_dtype(fed[name].dtype)))
            graph.input.append(onnx.helper.make_tensor_value_info(name, dtype, fed[name].shape))
            continue
        graph.initializer.append(named_proto(wide_tensor(value.const_value), name))
    for name, kind in inputs.items():
        graph.input.append(onnx.helper.make_tensor_value_info(name, wide_kind(kind), None))
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    opsets = [onnx.helper.make_opsetid(d, version) for d, version in model.ir.opset_imports.items()]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=model.ir.ir_version)


def opened(
    proto: onnx.ModelProto,
    first: str,
    threads: int = 0,
    fed: Mapping[str, npt.NDArray[np.generic]] | None = None,
) -> ort.InferenceSession:
    """A session over a part, which begins with the node ``first``; constants ``fed`` are given to each run.

    Raises:
        ModelError: onnxruntime refuses the part.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    if fed:  # converted weights go when they were used
        options.enable_cpu_mem_arena = False
    try:
        session = Session(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    except Exception as error:
        message = "onnxruntime can't run a part of the model"
        raise ModelError(message, where=f"from {first} on", because=str(error)) from error
    session.fed = dict(fed or {})
    return session


class Session(ort.InferenceSession):  # type: ignore[misc]
    """A session whose failures say that it is the samples' run that failed.

    Attributes:
        fed: constants that each run is given.
    """

    fed: Mapping[str, npt.NDArray[np.generic]] = MappingProxyType({})

    def get_inputs(self) -> Any:
        """What has to be given."""
        return [value for value in super().get_inputs() if value.name not in self.fed]

    def run(self, output_names: Any, input_feed: Any, run_options: Any = None) -> Any:
        """As in onnxruntime.

        Raises:
            ModelError: onnxruntime refuses these inputs.
        """
        feeds = {name: wide_array(array) for name, array in input_feed.items()}
        try:
            return super().run(output_names, {**feeds, **self.fed}, run_options)
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            message = "the model can't be run on the samples"
            hint = "samples of the size that the model was exported for, or --criterion l2"
            raise ModelError(message, because=str(error), hint=hint) from error


def exposing(model: Model, values: Collection[ir.Value], threads: int = 0) -> ort.InferenceSession:
    """A session over the whole way from the model's inputs to these values."""
    nodes: set[ir.Node] = set()
    todo = [v.producer() for v in values]
    while todo:
        node = todo.pop()
        if node is not None and node not in nodes and node.graph is model.ir.graph:
            nodes.add(node)
            todo += [value.producer() for value in touched(node)]
    read = {v.name for n in nodes for v in touched(n)}
    inputs = {
        v.name or "": int(v.dtype)
        for v in model.ir.graph.inputs
        if v.name in read and v.dtype is not None and v.const_value is None
    }
    ordered = [n for n in model.ir.graph if n in nodes]
    names = [v.name or "" for v in values if v.producer() is not None]
    return session_over(model, ordered, inputs, names, threads)


def is_fixed(value: ir.Value) -> bool:
    """A constant that no caller replaces."""
    return value.const_value is not None and not value.is_graph_input()
