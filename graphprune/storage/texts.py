"""Names in a file are UTF-8: protobuf's parser does not insist on it, and gives bytes where they are not."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import onnx

from graphprune.errors import ModelError


def require_text(proto: onnx.ModelProto, where: str) -> None:
    """Refuses a model with a name that is no text.

    Raises:
        ModelError: one of its names, or a key or value of its properties, is not UTF-8.
    """
    try:
        "".join(_texts(proto))
    except TypeError:
        name = next(text for text in _texts(proto) if not isinstance(text, str))
        message = f"the name {name!r} is no text"
        because = "in ONNX every name is UTF-8"
        raise ModelError(message, where=where, because=because, hint="export the model again") from None


def _texts(proto: onnx.ModelProto) -> Iterator[str]:
    yield from (proto.producer_name, proto.producer_version, proto.domain, proto.doc_string)
    yield from (entry.domain for entry in proto.opset_import)
    yield from _properties(proto)
    yield from _graph(proto.graph)
    for function in proto.functions:
        yield from (function.name, function.domain, function.overload, function.doc_string)
        yield from chain(function.input, function.output, function.attribute)
        yield from chain.from_iterable(map(_node, function.node))


def _graph(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (graph.name, graph.doc_string)
    yield from _properties(graph)
    for tensor in graph.initializer:
        yield from _tensor(tensor)
    for value in chain(graph.input, graph.output, graph.value_info):
        yield value.name
        yield value.doc_string
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                yield dim.dim_param
    for node in graph.node:
        yield from _node(node)


def _node(node: onnx.NodeProto) -> Iterator[str]:
    yield from (node.name, node.op_type, node.domain, node.overload, node.doc_string)
    yield from node.input
    yield from node.output
    yield from _properties(node)
    for attribute in node.attribute:
        yield from (attribute.name, attribute.ref_attr_name, attribute.doc_string)
        if attribute.HasField("t"):
            yield from _tensor(attribute.t)
        if attribute.HasField("g"):
            yield from _graph(attribute.g)
        for body in attribute.graphs:
            yield from _graph(body)


def _tensor(tensor: onnx.TensorProto) -> Iterator[str]:
    yield from (tensor.name, tensor.doc_string)
    for entry in tensor.external_data:
        yield from (entry.key, entry.value)


def _properties(owner: onnx.ModelProto | onnx.GraphProto | onnx.NodeProto) -> Iterator[str]:
    for entry in owner.metadata_props:
        yield from (entry.key, entry.value)
