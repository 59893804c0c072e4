"""A file in bfloat16 as one that onnxruntime can run on a CPU."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx.defs

from graphprune.errors import ModelError
from graphprune.model import load
from graphprune.widened import widened


@contextmanager
def runnable(file: Path) -> Iterator[Path]:
    """``file`` itself, or a copy in float32 for as long as the context lasts.

    Every bfloat16 number is a float32 number, so the copy computes the same with more digits.

    Raises:
        ModelError: the file mixes types where ONNX allows one, which the copy would hide.
    """
    model = onnx.load(file, load_external_data=False)
    if not _has_bfloat16(model.graph):
        yield file
        return
    _require_one_type(model, file.name)
    with tempfile.TemporaryDirectory(prefix="graphprune-") as folder:
        copy = Path(folder) / file.name
        widened(load(file)).save(copy, durable=False)
        yield copy


def _require_one_type(model: onnx.ModelProto, name: str) -> None:
    """What an operator declares to be of one type is."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {tensor.name: tensor.data_type for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        types[value.name] = value.type.tensor_type.elem_type
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    for node in inferred.node:
        if not onnx.defs.has(node.op_type, opsets.get(node.domain, 1), node.domain):
            continue
        schema = onnx.defs.get_schema(node.op_type, opsets.get(node.domain, 1), node.domain)
        found: dict[str, int] = {}
        for declared, tensor in zip(schema.inputs, node.input, strict=False):
            kind = types.get(tensor, 0)
            if kind and found.setdefault(declared.type_str, kind) != kind:
                names = [onnx.TensorProto.DataType.Name(t) for t in (found[declared.type_str], kind)]
                what = f"{node.op_type} '{node.name}' in '{name}' mixes {' and '.join(names).lower()}"
                raise ModelError(what, where=f"input '{tensor}'", hint="another opset, or float32")


def _has_bfloat16(graph: onnx.GraphProto) -> bool:
    narrow = onnx.TensorProto.BFLOAT16
    if any(tensor.data_type == narrow for tensor in graph.initializer):
        return True
    if any(value.type.tensor_type.elem_type == narrow for value in (*graph.input, *graph.output)):
        return True
    for attribute in (a for node in graph.node for a in node.attribute):
        if attribute.t.data_type == narrow or (attribute.name == "to" and attribute.i == narrow):
            return True
        if any(_has_bfloat16(body) for body in (attribute.g, *attribute.graphs) if body.node):
            return True
    return False
