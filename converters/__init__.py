"""Doors in: a model of any supported framework becomes an ONNX file that computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphprune.converters import source as sources
from graphprune.converters.dynamic import Axes, parse_dynamic
from graphprune.converters.report import ConversionReport, TensorSpec

from graphprune.errors import ModelError, UsageError

__all__ = ["ConversionReport", "TensorSpec", "convert", "parse_dynamic"]

FRAMEWORKS = ("onnx", "tensorflow", "torch")
# Weights alone: without the code that makes the network there is nothing to export.
WEIGHTS_ONLY = (".pt", ".pth", ".bin", ".safetensors", ".ckpt")


def convert(
    source: str | Path,
    out: str | Path,
    *,
    framework: str | None = None,
    exporter: str = "dynamo",
    dynamic: Axes | None = None,
    batch: str | None = "batch",
    opset: int | None = None,
    inputs: Any = None,
) -> ConversionReport:
    """Writes ``source`` as an ONNX file, after comparing the two on random input.

    Args:
        source: ``module:factory`` (or ``file.py:factory``) for torch and Keras, a SavedModel
            folder, a ``.keras`` or ``.h5`` file, or an ONNX file.
        out: the ONNX file to write.
        framework: ``torch``, ``tensorflow`` or ``onnx``; by default told from the source.
        exporter: torch only: ``dynamo`` or ``torchscript``.
        dynamic: torch only: symbolic axes besides the batch, ``{input: {axis: name}}``.
        batch: torch only: name of the symbolic first axis; None keeps it fixed.
        opset: ONNX opset version; by default the exporter's (an ONNX source keeps its own).
        inputs: torch only: example inputs.

    Raises:
        ModelError: the source can't be loaded or exported, or its framework is not installed.
        ValidationError: the ONNX file computes something else than the source; nothing is written.
        UsageError: an option that does not exist.
    """
    name = str(source)
    if framework not in (None, *FRAMEWORKS):
        what = f"there is no converter for '{framework}'"
        raise UsageError(what, hint=f"one of {', '.join(FRAMEWORKS)}")
    made: Any = None
    factory: Any = None
    if sources.is_factory(name):
        factory = sources.load_factory(name)
        made = sources.call_factory(factory, name)
        framework = framework or sources.framework_of(made)
    else:
        framework = framework or _framework_of_path(Path(source))
    if framework == "onnx":
        from graphprune.converters import onnx

        return onnx.to_onnx(name, out, opset=opset)
    if framework == "tensorflow":
        from graphprune.converters import tensorflow

        if factory is None:
            return tensorflow.to_onnx(name, out, opset=opset)
        return tensorflow.export_made(made, Path(out), source=name, opset=opset)
    if framework == "torch" and factory is not None:
        from graphprune.converters import torch

        return torch.export_made(
            made,
            Path(out),
            factory=factory,
            inputs=inputs,
            source=name,
            exporter=exporter,
            dynamic=dynamic,
            batch=batch,
            opset=opset,
        )
    raise _unknown(name, made)


def _framework_of_path(path: Path) -> str | None:
    if path.suffix == ".onnx":
        return "onnx"
    if path.suffix in (".keras", ".h5", ".hdf5") or (path / "saved_model.pb").is_file():
        return "tensorflow"
    return None


def _unknown(source: str, made: object) -> ModelError:
    what = f"cannot tell what '{source}' is"
    hint = "module:factory, a SavedModel folder, a .keras or .h5 file, or an ONNX file"
    because = None
    if made is not None:
        because = f"the factory returned a {type(made).__name__}"
    elif Path(source).suffix in WEIGHTS_ONLY:
        because = "a checkpoint holds weights; the network is in the code that made it"
        hint = "module:factory, where factory() builds the module and loads the checkpoint"
    elif not Path(source).exists():
        because = "there is no such file, and it has not the form module:factory"
    return ModelError(what, because=because, hint=hint)
