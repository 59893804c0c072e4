"""The basic facts of a model file, and where a pruned one comes from; nothing is analysed or run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import onnx_ir as ir

from graphprune.model import Source, load
from graphprune.origin import PREFIX, Origin
from graphprune.report import SCHEMA_VERSION


@dataclass(frozen=True)
class Tensor:
    """An input or output: sizes are numbers, names of symbolic dims, or None."""

    name: str
    dtype: str | None
    shape: list[int | str | None] | None


@dataclass(frozen=True)
class ModelInfo:
    """What a file says of itself.

    Attributes:
        path: the file; None for an object.
        sha256: of the file, or of the object's serialization.
        bytes: of the file with its external data.
        data_files: external data files.
        ir_version: of the format.
        producer: that wrote it.
        opsets: version by domain.
        nodes: how many, bodies of control flow included.
        params: elements of its floating-point constants.
        dtypes: elements by data type.
        ops: how many of each operator type, the most frequent first.
        inputs: that a caller gives.
        outputs: that a caller gets.
        metadata: other entries of its metadata.
        pruned: by which plan and from which file, if graphprune wrote it.
    """

    path: str | None
    sha256: str
    bytes: int
    data_files: list[str]
    ir_version: int
    producer: str
    opsets: dict[str, int]
    nodes: int
    params: int
    dtypes: dict[str, int]
    ops: dict[str, int]
    inputs: list[Tensor]
    outputs: list[Tensor]
    metadata: dict[str, str]
    pruned: Origin | None

    def to_json(self) -> dict[str, Any]:
        """The facts as a document with ``schema_version``."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}


def info(model: Source) -> ModelInfo:
    """Reads a model's facts.

    Raises:
        ModelError: the source is not a valid ONNX model.
    """
    source = load(model)
    graph = source.ir.graph
    constants = [v.const_value for v in graph.initializers.values() if v.const_value is not None]
    dtypes: Counter[str] = Counter()
    for tensor in constants:
        dtypes[tensor.dtype.name.lower()] += tensor.size
    ops = Counter(_operator(node) for node in graph.all_nodes())
    metadata = {k: v for k, v in source.ir.metadata_props.items() if not k.startswith(PREFIX)}
    return ModelInfo(
        path=str(source.path) if source.path is not None else None,
        sha256=source.sha256,
        bytes=source.file_bytes,
        data_files=sorted(str(path) for path in source.data_files),
        ir_version=source.ir.ir_version,
        producer=" ".join(filter(None, (source.ir.producer_name, source.ir.producer_version))),
        opsets={domain or "ai.onnx": version for domain, version in source.ir.opset_imports.items()},
        nodes=ops.total(),
        params=sum(tensor.size for tensor in constants if tensor.dtype.is_floating_point()),
        dtypes=dict(dtypes.most_common()),
        ops=dict(ops.most_common()),
        inputs=_tensors([v for v in graph.inputs if not v.is_initializer()]),
        outputs=_tensors(graph.outputs),
        metadata=metadata,
        pruned=Origin.read(source.ir),
    )


def _operator(node: ir.Node) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


def _tensors(values: Sequence[ir.Value]) -> list[Tensor]:
    return [
        Tensor(
            v.name or "",
            v.dtype.name.lower() if v.dtype is not None else None,
            None if v.shape is None else [d if isinstance(d, int) else d.value for d in v.shape],
        )
        for v in values
    ]
