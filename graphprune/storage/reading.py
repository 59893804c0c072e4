"""Read an ONNX file into onnx_ir, and say clearly what is wrong with it when that fails.

onnx_ir is forgiving (it skips sparse initializers and links undefined names to nothing), so what it
would lose or guess is looked for here, before anything is built on it.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import onnx
import onnx_ir as ir

from graphprune.errors import ModelError
from graphprune.limits import require_size
from graphprune.storage.embedded import Weights, attach, load_split
from graphprune.storage.stored_tensors import check_tensors, tensors
from graphprune.storage.texts import require_text


def read_file(path: Path) -> ir.Model:
    """Read ``path`` without touching its external data.

    Raises:
        ModelError: the file is missing, unreadable, not ONNX, cut off, or not a valid graph, or its
            external data are missing or too short.
    """
    if not path.exists():
        msg = f"model file '{path}' does not exist"
        raise ModelError(msg, where=str(path.absolute()), hint="check the path")
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no regular file"
        msg = f"'{path}' is {kind}, not an ONNX file"
        raise ModelError(msg, hint="give the .onnx file inside it" if path.is_dir() else "give a file")
    require_size(path.stat().st_size, f"model file '{path}'")
    weights: Weights = {}
    try:
        split = load_split(path)
        if split is not None:
            proto, weights = split
        else:
            proto = onnx.load(path, load_external_data=False)
    except OSError as error:
        msg = f"model file '{path}' cannot be read"
        raise ModelError(msg, because=str(error), hint="check its permissions") from error
    except Exception as error:  # binary, text and JSON parsers have no common base class
        raise _unreadable(path, error) from error
    return read_proto(proto, where=str(path), base_dir=path.parent, weights=weights)


def read_proto(
    proto: onnx.ModelProto, *, where: str, base_dir: Path, weights: Weights | None = None
) -> ir.Model:
    """Turn a checked ``proto`` into an onnx_ir model.

    Args:
        proto: the model.
        where: it comes from, for messages.
        base_dir: external data are looked for there.
        weights: raw data of initializers that ``proto`` lacks, by name.

    Raises:
        ModelError: as `read_file`, for what concerns the graph.
    """
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        msg = "the model holds no graph"
        because = "an ONNX model needs a graph with nodes or outputs; the file may not be ONNX"
        raise ModelError(msg, where=where, because=because, hint="export the model again")
    require_text(proto, where)
    for graph in _graphs(proto.graph):
        _refuse_sparse(graph, where)
        _refuse_duplicates(graph, where)
        _refuse_references(graph, where)
        _open_negative_sizes(graph)
    _lift_constants(proto.graph)
    try:
        with warnings.catch_warnings():  # of what it ignores
            warnings.simplefilter("ignore")
            model = ir.serde.deserialize_model(proto)
    except Exception as error:  # onnx_ir has no error class of its own for what a proto may hold
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        msg = "the graph cannot be read"
        raise ModelError(msg, where=where, because=str(cause).splitlines()[0]) from error
    attach(model, weights or {})
    for tensor in tensors(model):  # those of functions as well, which onnx_ir would look for elsewhere
        if isinstance(tensor, ir.ExternalTensor):
            tensor.base_dir = base_dir
    _refuse_undefined(model.graph, where)
    check_tensors(model)
    return model


def _lift_constants(graph: onnx.GraphProto) -> None:
    """Turn Constant nodes that hold a tensor into initializers of the same name.

    Some exporters write thousands of them; as messages they move much faster than as nodes of a graph.
    """
    outputs = {value.name for value in graph.output}
    constants: list[onnx.NodeProto] = []
    others: list[onnx.NodeProto] = []
    for node in graph.node:
        is_tensor = node.op_type == "Constant" and not node.domain and _is_tensor(node.attribute)
        is_free = is_tensor and bool(node.output[0]) and node.output[0] not in outputs
        (constants if is_free else others).append(node)
    if not constants:
        return
    for node in constants:
        tensor = graph.initializer.add()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
    del graph.node[:]
    graph.node.extend(others)


def _is_tensor(attributes: Sequence[onnx.AttributeProto]) -> bool:
    if len(attributes) != 1 or attributes[0].name != "value":
        return False
    return attributes[0].type == onnx.AttributeProto.TENSOR and not attributes[0].ref_attr_name


def _unreadable(path: Path, error: Exception) -> ModelError:
    """Tell a cut-off ONNX file from a file that never was one."""
    missing = _missing_bytes(path)
    if missing:
        return ModelError(
            f"model file '{path}' is truncated",
            where=str(path),
            because=f"a field announces at least {missing} bytes more than the file holds",
            hint="copy or download it again",
        )
    return ModelError(
        f"'{path}' is not an ONNX file",
        where=str(path),
        because=f"it cannot be parsed: {(str(error) or type(error).__name__).splitlines()[0]}",
        hint="convert the model first: graphprune convert SOURCE OUT",
    )


def _missing_bytes(path: Path) -> int:
    """How far the top-level fields of a ModelProto run over the end of the file (0: not at all)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(1) != b"\x08":  # every writer puts ir_version (field 1, a varint) first
            return 0
        file.seek(0)
        while file.tell() < size:
            tag = _varint(file)
            if tag is None:
                return 1
            kind = tag & 7
            if kind == 0:
                if _varint(file) is None:
                    return 1
            elif kind == 2:
                length = _varint(file)
                if length is None:
                    return 1
                end = file.tell() + length
                if end > size:
                    return end - size
                file.seek(end)
            else:
                return 0
    return 0


def _varint(file: BinaryIO) -> int | None:
    """Read one protobuf varint, None where the file ends inside it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    return None


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)
            for inner in attribute.graphs:
                yield from _graphs(inner)


def _refuse_sparse(graph: onnx.GraphProto, where: str) -> None:
    names = [tensor.values.name for tensor in graph.sparse_initializer]
    for node in graph.node:
        if any(a.type == onnx.AttributeProto.SPARSE_TENSOR for a in node.attribute):
            names.append(node.output[0])
    if names:
        msg = f"sparse initializer '{names[0]}' can't be kept"
        because = f"{len(names)} tensors are stored sparse, and would be lost on writing"
        raise ModelError(msg, where=where, because=because, hint="store them dense")


def _refuse_duplicates(graph: onnx.GraphProto, where: str) -> None:
    produced = [name for node in graph.node for name in node.output if name]
    inputs = [value.name for value in graph.input]
    initializers = [tensor.name for tensor in graph.initializer]
    # An initializer may share its name with an input (its default value), with nothing else.
    for names in (inputs + produced, initializers + produced):
        if len(set(names)) == len(names):
            continue
        name = next(name for name, count in Counter(names).items() if count > 1)
        msg = f"value '{name}' is defined more than once"
        because = "in ONNX every value has exactly one producer"
        raise ModelError(msg, where=where, because=because, hint="export the model again")


def _refuse_references(graph: onnx.GraphProto, where: str) -> None:
    """Attributes that stand for a function's parameter, where there is no function: they have no value."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.ref_attr_name:
                msg = f"attribute '{attribute.name}' of {node.op_type} '{node.name}' has no value"
                because = f"it refers to '{attribute.ref_attr_name}' of a function, and stands outside of all"
                raise ModelError(msg, where=where, because=because, hint="export the model again")


def _open_negative_sizes(graph: onnx.GraphProto) -> None:
    """Some exporters write -1 for a size that is open; ONNX has no number for that."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value < 0:
                dim.ClearField("dim_value")


def _refuse_undefined(graph: ir.Graph, where: str) -> None:
    known = {*graph.inputs, *graph.initializers.values()}
    for node in graph:
        for value in node.inputs:
            if value is None or value in known or value.producer() is not None:
                continue
            msg = f"input '{value.name}' of {node.op_type} '{node.name}' is not defined"
            because = "no node, initializer or graph input has that name"
            raise ModelError(msg, where=where, because=because)
    for value in graph.outputs:
        if value not in known and value.producer() is None:
            msg = f"graph output '{value.name}' is not defined"
            raise ModelError(msg, where=where, because="no node produces it")
