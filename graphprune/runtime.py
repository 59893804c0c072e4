"""Evaluate a few nodes: onnxruntime for all of them at once, onnx's reference where it can't.

Optimizations are off, so a value is what the kernels of the original graph would compute.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx.reference import ReferenceEvaluator

from graphprune.storage.constants import loaded

# Initializers up to this size go into the model; larger ones are fed, which copies nothing.
EMBED_BYTES = 1 << 16
# Static inference propagates the values of small constants only.
PROPAGATED_BYTES = 1 << 10
UNFEEDABLE = frozenset({ir.DataType.STRING, ir.DataType.COMPLEX64, ir.DataType.COMPLEX128})

# Any version that onnxruntime reads will do for a graph of one node.
IR_VERSION = 8


@dataclass
class Fragment:
    """Some nodes of a graph with the values they read.

    Attributes:
        nodes: in topological order, without subgraphs that read outer values not listed here.
        tensors: known values, by name.
        extra: further nodes, such as ``Shape`` of a value in between.
        opsets: opset imports of the model.
        ir_version: of the model.
    """

    nodes: Sequence[ir.Node]
    tensors: Mapping[str, ir.TensorProtocol]
    opsets: Mapping[str, int]
    ir_version: int
    extra: Sequence[onnx.NodeProto] = field(default=())


def session_options(*, threads: int = 0) -> ort.SessionOptions:
    """Options for a silent session that runs the graph as it is written."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = False
    options.intra_op_num_threads = threads
    return options


class EvaluationError(Exception):
    """A fragment that onnxruntime accepts can't be run with the given inputs."""


def evaluate(fragment: Fragment, outputs: Sequence[str], *, refuse: bool = False) -> dict[str, np.ndarray]:
    """Compute ``outputs``; what can't be computed is left out.

    Args:
        fragment: the nodes and the values they read.
        outputs: names of values that the fragment's nodes produce.
        refuse: raise when a kernel refuses its inputs, instead of leaving its outputs out.

    Raises:
        EvaluationError: see ``refuse``.
    """
    if not outputs:
        return {}
    nodes = [ir.serde.serialize_node(node) for node in fragment.nodes] + list(fragment.extra)
    try:
        session, feeds = _session(fragment, nodes, outputs)
    except Exception:  # onnxruntime raises a dozen unrelated classes for what it doesn't support
        return _run_reference(fragment, nodes, outputs)
    try:
        results = session.run_with_ort_values(list(outputs), feeds)
    except Exception as error:
        if refuse:
            raise EvaluationError(str(error)) from error
        return _run_reference(fragment, nodes, outputs)
    try:
        return {name: value.numpy() for name, value in zip(outputs, results, strict=True)}
    except RuntimeError:  # numbers that onnxruntime computes and has no numpy type for (bfloat16)
        return _run_reference(fragment, nodes, outputs)


def infer(fragment: Fragment) -> dict[str, tuple[ir.DataType, tuple[int, ...]]]:
    """Type and shape of what the fragment computes, where static inference can tell."""
    graph = onnx.GraphProto(name="fragment")
    graph.node.extend(ir.serde.serialize_node(node) for node in fragment.nodes)
    for name, tensor in fragment.tensors.items():
        if tensor.nbytes <= PROPAGATED_BYTES:
            graph.initializer.append(named_proto(tensor, name))
        else:
            info = onnx.helper.make_tensor_value_info(name, int(tensor.dtype), tensor.shape.numpy())
            graph.input.append(info)
    try:
        inferred = onnx.shape_inference.infer_shapes(_model(graph, fragment), data_prop=True)
    except Exception:  # an op that inference refuses; nothing is known then
        return {}
    found: dict[str, tuple[ir.DataType, tuple[int, ...]]] = {}
    for info in inferred.graph.value_info:
        tensor_type = info.type.tensor_type
        dims = tensor_type.shape.dim
        is_known = all(dim.HasField("dim_value") and dim.dim_value >= 0 for dim in dims)
        if tensor_type.HasField("shape") and is_known:
            shape = tuple(dim.dim_value for dim in dims)
            found[info.name] = (ir.DataType(tensor_type.elem_type), shape)
    return found


def infer_by_session(
    node: ir.Node,
    inputs: Mapping[str, tuple[ir.DataType, tuple[int, ...]]],
    values: Mapping[str, np.ndarray],
    opsets: Mapping[str, int],
) -> dict[str, tuple[ir.DataType, tuple[int, ...]]]:
    """Types and shapes of what one node makes, by onnxruntime's own inference; nothing is run.

    It knows the ops of its own domains, which onnx doesn't.

    Args:
        node: any node without bodies.
        inputs: type and shape of everything that it reads.
        values: those of its inputs that are known and small.
        opsets: opset imports of the model.
    """
    graph = onnx.GraphProto(name="node", node=[ir.serde.serialize_node(node)])
    for name, (dtype, shape) in inputs.items():
        if name in values:
            graph.initializer.append(array_proto(values[name], name))
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(name, int(dtype), shape))
    graph.output.extend(onnx.ValueInfoProto(name=v.name) for v in node.outputs if v.name)
    proto = _model(graph, Fragment([], {}, opsets, IR_VERSION)).SerializeToString()
    try:
        session = ort.InferenceSession(proto, session_options(), ["CPUExecutionProvider"])
    except Exception:  # no such op, or not with these inputs
        return {}
    found: dict[str, tuple[ir.DataType, tuple[int, ...]]] = {}
    for output in session.get_outputs():
        kind = output.type.removeprefix("tensor(").removesuffix(")").upper()
        # No shape at all (ops of ai.onnx.ml) looks like that of a scalar here.
        shaped = bool(output.shape) and all(isinstance(n, int) for n in output.shape)
        if kind in ir.DataType.__members__ and shaped:
            found[output.name] = (ir.DataType[kind], tuple(output.shape))
    return found


def array_proto(array: np.ndarray, name: str) -> onnx.TensorProto:
    """An array as a constant; texts, which numpy has types of their own for, as well."""
    return onnx.numpy_helper.from_array(array.astype(object) if array.dtype.kind in "SU" else array, name)


def named_proto(tensor: ir.TensorProtocol, name: str) -> onnx.TensorProto:
    """``tensor`` under the name of its value, which may be another than its own; never as external data."""
    proto = onnx.TensorProto()
    proto.CopyFrom(ir.serde.serialize_tensor(loaded(tensor)))
    proto.name = name
    return proto


def _session(
    fragment: Fragment, nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]
) -> tuple[ort.InferenceSession, dict[str, ort.OrtValue]]:
    """A session over the fragment, and the large tensors to feed it with."""
    graph = onnx.GraphProto(name="fragment", node=nodes)
    feeds: dict[str, ort.OrtValue] = {}
    for name, tensor in fragment.tensors.items():
        if tensor.nbytes <= EMBED_BYTES or tensor.dtype.bitwidth < 8 or tensor.dtype in UNFEEDABLE:
            graph.initializer.append(named_proto(tensor, name))
            continue
        dtype = int(tensor.dtype)
        graph.input.append(onnx.helper.make_tensor_value_info(name, dtype, tensor.shape.numpy()))
        array = np.ascontiguousarray(tensor.numpy())
        if array.dtype.isbuiltin == 1:
            feeds[name] = ort.OrtValue.ortvalue_from_numpy(array)
        else:  # bfloat16 and the like, which numpy knows from an extension only
            raw = array.view(np.uint8 if array.itemsize == 1 else np.uint16)
            feeds[name] = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(raw, dtype)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    proto = _model(graph, fragment).SerializeToString()
    options = session_options()
    return ort.InferenceSession(proto, options, providers=["CPUExecutionProvider"]), feeds


def _run_reference(
    fragment: Fragment, nodes: Iterable[onnx.NodeProto], outputs: Sequence[str]
) -> dict[str, np.ndarray]:
    known: dict[str, np.ndarray] = {}
    for node in nodes:
        names = [name for name in node.input if name]
        for name in names:
            if name not in known and name in fragment.tensors:
                known[name] = fragment.tensors[name].numpy()
        if any(name not in known for name in names):
            continue
        try:
            results = _run_node(node, {name: known[name] for name in names}, fragment)
        except Exception:  # a kernel that the reference lacks, or inputs that it refuses
            continue
        known.update(results)
    return {name: known[name] for name in outputs if name in known}


def _run_node(
    node: onnx.NodeProto, inputs: Mapping[str, np.ndarray], fragment: Fragment
) -> dict[str, np.ndarray]:
    names = [name for name in node.output if name]
    graph = onnx.GraphProto(name="node", node=[node])
    for name, array in inputs.items():
        dtype = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        graph.input.append(onnx.helper.make_tensor_value_info(name, dtype, array.shape))
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    results = ReferenceEvaluator(_model(graph, fragment)).run(None, dict(inputs))
    return {n: np.asarray(r) for n, r in zip(names, results, strict=True) if r is not None}


def _model(graph: onnx.GraphProto, fragment: Fragment) -> onnx.ModelProto:
    opsets = [onnx.helper.make_opsetid(d, v) for d, v in fragment.opsets.items()]
    return onnx.ModelProto(ir_version=fragment.ir_version, graph=graph, opset_import=opsets)
