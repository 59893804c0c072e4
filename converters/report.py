"""What a conversion made, and how far it is from its source."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
from graphprune.converters.parity import Parity


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of the converted model.

    Attributes:
        name: its name in the ONNX file.
        dtype: ONNX element type, lower case (``float``, ``int64``, ...).
        shape: sizes; a symbolic axis is its name, an unnamed one ``"?"``.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class ConversionReport:
    """The result of :func:`graphprune.converters.convert`.

    Attributes:
        source: what was converted, as the user wrote it.
        out: the ONNX file that was written.
        framework: ``torch``, ``tensorflow`` or ``onnx``.
        exporter: what did the translation (``dynamo``, ``torchscript``, ``tf2onnx``, ``copy``,
            ...).
        opset: version of the default ONNX domain.
        inputs: the model's inputs in order.
        outputs: the model's outputs in order.
        max_abs_diff: greatest difference between source and file over the outputs, on random input.
        scale: greatest absolute value in the source's outputs.
        zeros: outputs of which the source gave nothing but zeros, so that the comparison says nothing
            about them.
    """

    source: str
    out: str
    framework: str
    exporter: str
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_abs_diff: float
    scale: float
    zeros: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The report as a document with ``schema_version``."""
        return {"schema_version": 1, **asdict(self)}


def describe(
    file: Path, *, source: str, out: Path, framework: str, exporter: str, parity: Parity
) -> ConversionReport:
    """The report on ``file``, which will be (or was) moved to ``out``."""
    model = onnx.load(file, load_external_data=False)
    constants = {tensor.name for tensor in model.graph.initializer}
    opsets = {imported.domain: imported.version for imported in model.opset_import}
    return ConversionReport(
        source=source,
        out=str(out),
        framework=framework,
        exporter=exporter,
        opset=opsets.get("", opsets.get("ai.onnx", 0)),
        inputs=tuple(_spec(value) for value in model.graph.input if value.name not in constants),
        outputs=tuple(_spec(value) for value in model.graph.output),
        max_abs_diff=parity.max_abs_diff,
        scale=parity.scale,
        zeros=parity.zeros,
    )


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim
    )
    return TensorSpec(value.name, onnx.TensorProto.DataType.Name(tensor.elem_type).lower(), shape)
