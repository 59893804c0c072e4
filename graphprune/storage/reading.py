"""Read an ONNX file into onnx_ir, and say clearly what is wrong with it when that fails.

onnx_ir is forgiving (it skips sparse initializers and links undefined names to nothing), so what it
would lose or guess is looked for here, before anything is built on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import onnx
import onnx_ir as ir
from onnx_ir import external_data

from graphprune.errors import ModelError
from graphprune.storage.embedded import Weights, attach, load_split


def read_file(path: Path) -> ir.Model:
    """Read ``path`` without touching its external data.

    Raises:
        ModelError: the file is missing, unreadable, not ONNX, cut off, or not a valid graph, or its
            external data are missing or too short.
    """
    if not path.exists():
        msg = f"model file '{path}' does not exist"
        raise ModelError(msg, where=str(path.absolute()), hint="check the path")
    if path.is_dir():
        msg = f"'{path}' is a folder, not an ONNX file"
        raise ModelError(msg, hint="give the .onnx file inside it")
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
    for graph in _graphs(proto.graph):
        _refuse_sparse(graph, where)
        _refuse_duplicates(graph, where)
    _lift_constants(proto.graph)
    try:
        model = ir.serde.deserialize_model(proto)
    except Exception as error:  # onnx_ir has no error class of its own for what a proto may hold
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        msg = "the graph cannot be read"
        raise ModelError(msg, where=where, because=str(cause).splitlines()[0]) from error
    attach(model, weights or {})
    external_data.set_base_dir(model.graph, base_dir)
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


def tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Every tensor that ``model`` stores, in initializers and attributes, bodies and functions."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value
    yield from _in_attributes(model.graph)
    for function in model.functions.values():
        yield from _in_attributes(function)


def _in_attributes(owner: ir.Graph | ir.Function) -> Iterator[ir.TensorProtocol]:
    for node in owner:
        # Every node of every model comes by here: the plain dict, and no accessors that check protocols.
        for attribute in node.attributes.data.values():
            if attribute.is_ref():
                continue
            if attribute.type == ir.AttributeType.TENSOR:
                yield attribute.value
            elif attribute.type == ir.AttributeType.TENSORS:
                yield from attribute.value
            elif attribute.type == ir.AttributeType.GRAPH:
                yield from _in_attributes(attribute.value)
            elif attribute.type == ir.AttributeType.GRAPHS:
                for graph in attribute.value:
                    yield from _in_attributes(graph)


def check_tensors(model: ir.Model) -> None:
    """Make sure that every stored tensor has its bytes, without reading them.

    Raises:
        ModelError: external data are missing or too short, or the bytes do not fit the shape.
    """
    sizes: dict[str, int] = {}
    for tensor in tensors(model):
        if isinstance(tensor, ir.ExternalTensor):
            _check_external(tensor, sizes)
        elif isinstance(tensor, ir.serde.TensorProtoTensor):
            _check_embedded(tensor)


def _check_external(tensor: ir.ExternalTensor, sizes: dict[str, int]) -> None:
    path = Path(tensor.path)
    if tensor.path not in sizes:
        if not path.is_file():
            msg = f"external data file '{path}' of tensor '{tensor.name}' does not exist"
            because = "the weights of this model are stored beside it, and the file is not there"
            hint = f"put '{tensor.location}' beside the model file"
            raise ModelError(msg, where=f"tensor '{tensor.name}'", because=because, hint=hint)
        _check_location(tensor, path)
        sizes[tensor.path] = path.stat().st_size
    if tensor.dtype == ir.DataType.STRING:
        return
    length = tensor.nbytes if tensor.length is None else tensor.length
    if length != tensor.nbytes:
        msg = f"tensor '{tensor.name}' has {length} bytes of external data, not {tensor.nbytes}"
        because = f"its type and shape ({tensor.dtype}, {tensor.shape}) need {tensor.nbytes} bytes"
        raise ModelError(msg, where=str(path), because=because, hint="export the model again")
    end = (tensor.offset or 0) + length
    if end > sizes[tensor.path]:
        msg = f"external data file '{path}' is too short"
        because = f"tensor '{tensor.name}' ends at byte {end}, the file at {sizes[tensor.path]}"
        raise ModelError(msg, where=str(path), because=because, hint="copy or download it again")


def _check_location(tensor: ir.ExternalTensor, path: Path) -> None:
    """Refuse what onnx_ir would refuse when it reads: data that are not the model's own file."""
    base = Path(tensor.base_dir).resolve()
    if base in path.resolve().parents and path.stat().st_nlink == 1:
        return
    msg = f"external data file '{path}' of tensor '{tensor.name}' is not in the model's folder"
    because = "it is a link to another place, and a model file must not name files elsewhere"
    hint = "copy the model and its data into one folder, following links (cp -L)"
    raise ModelError(msg, where=str(path.resolve()), because=because, hint=hint)


def _check_embedded(tensor: ir.serde.TensorProtoTensor) -> None:
    proto = tensor.raw
    if proto.HasField("raw_data") and len(proto.raw_data) != tensor.nbytes:
        msg = f"tensor '{tensor.name}' has {len(proto.raw_data)} bytes, not {tensor.nbytes}"
        because = f"its type and shape ({tensor.dtype}, {tensor.shape}) need {tensor.nbytes} bytes"
        raise ModelError(msg, where=f"tensor '{tensor.name}'", because=because)
