"""Doors in: a model of any supported framework becomes an ONNX file that computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphprune.converters import source as sources
from graphprune.converters.dynamic import Axes, parse_dynamic
from graphprune.converters.example import split_made
from graphprune.converters.report import ConversionReport, TensorSpec
from graphprune.converters.torch_graph import to_torch

from graphprune.errors import ModelError, UsageError
from graphprune.storage.writing import require_apart

__all__ = ["ConversionReport", "TensorSpec", "convert", "parse_dynamic", "to_torch"]

FRAMEWORKS = ("jax", "onnx", "sklearn", "tensorflow", "torch")
KERAS_FILES = (".keras", ".h5", ".hdf5")
# Pickles of torch: of weights, or of a whole module.
TORCH_FILES = (".pt", ".pth", ".bin", ".ckpt")


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
    trust: bool = False,
) -> ConversionReport:
    """Writes ``source`` as an ONNX file, after comparing the two on random input.

    Args:
        source: ``module:factory`` (or ``file.py:factory``) for torch, Keras, JAX and scikit-learn; a
            torch.export program (``.pt2``), a pickled torch module, a folder written by
            ``save_pretrained``, a SavedModel folder, a ``.keras`` or ``.h5`` file, or an ONNX file.
        out: the ONNX file to write.
        framework: ``torch``, ``tensorflow``, ``jax``, ``sklearn`` or ``onnx``; by default told from
            the source.
        exporter: torch only: ``dynamo`` or ``torchscript``.
        dynamic: torch and JAX: symbolic axes besides the batch, ``{input: {axis: name}}``.
        batch: torch and JAX: name of the symbolic first axis; None keeps every size that ``dynamic``
            doesn't name.
        opset: ONNX opset version; by default the exporter's (an ONNX source keeps its own).
        inputs: torch, JAX and scikit-learn: example inputs.
        trust: load pickled torch modules, programs with other objects than tensors, and model code in a
            folder, all of which can run anything.

    Raises:
        ModelError: the source can't be loaded or exported, or its framework is not installed.
        ValidationError: the ONNX file computes something else than the source; nothing is written.
        UsageError: an option that does not exist, a live model, or ``out`` is the source.
    """
    if not isinstance(source, (str, Path)):
        what = f"convert takes no live {type(source).__name__}"
        hint = "a factory, 'module:factory' or 'file.py:factory', that returns (model, example_inputs)"
        raise UsageError(what, because="a source is a path or the name of a function", hint=hint)
    name, out = str(source), Path(out)
    require_apart([out], sources.files_of(name))
    if framework not in (None, *FRAMEWORKS):
        what = f"there is no converter for '{framework}'"
        raise UsageError(what, hint=f"one of {', '.join(FRAMEWORKS)}")
    factory: Any = None
    if sources.is_factory(name):
        factory = sources.load_factory(name)
        made = sources.call_factory(factory, name)
        framework = framework or sources.framework_of(made)
    else:
        framework = framework or _framework_of_path(Path(source))
        made = None
        if framework in ("jax", "sklearn"):
            what = f"'{name}' is not of the form module:factory"
            raise ModelError(what, hint=f"a {framework} model comes from a function that returns it")
    if framework == "onnx":
        from graphprune.converters import onnx

        return onnx.to_onnx(name, out, opset=opset)
    if framework == "tensorflow":
        from graphprune.converters import tensorflow

        if factory is None:
            return tensorflow.to_onnx(name, out, opset=opset)
        return tensorflow.export_made(made, out, source=name, opset=opset)
    if framework == "sklearn":
        from graphprune.converters import sklearn

        return sklearn.export_made(made, out, source=name, opset=opset, inputs=inputs)
    free: dict[str, Any] = {"dynamic": dynamic, "batch": batch, "opset": opset}
    if framework == "jax":
        from graphprune.converters import jax

        return jax.export_made(made, out, source=name, factory=factory, inputs=inputs, **free)
    if framework == "torch" and factory is not None:
        from graphprune.converters import hugging_face, torch

        model, given = split_made(made, inputs)
        if hugging_face.is_model(model):
            if given is None:
                given, known = hugging_face.prepared(model, name)
                free["dynamic"] = _with_known(known, dynamic, batch)
            hugging_face.plain(model)
            made = model, given
        return torch.export_made(
            made, out, source=name, factory=factory, inputs=inputs, exporter=exporter, **free
        )
    if framework == "torch":
        return _torch_file(Path(source), out, inputs=inputs, trust=trust, exporter=exporter, **free)
    raise _unknown(name, made)


def _torch_file(
    path: Path,
    out: Path,
    *,
    dynamic: Axes | None,
    batch: str | None,
    inputs: Any,
    trust: bool,
    exporter: str,
    **options: Any,
) -> ConversionReport:
    """A program, a folder of transformers, or a pickle."""
    if path.suffix == ".pt2":
        from graphprune.converters import torch_program

        return torch_program.to_onnx(
            path, out, dynamic=dynamic, batch=batch, inputs=inputs, trust=trust, **options
        )
    if path.is_dir():
        from graphprune.converters import hugging_face

        made, examples, known = hugging_face.load(path, trust=trust)
        if inputs is None:
            inputs, dynamic = examples, _with_known(known, dynamic, batch)
    else:
        from graphprune.converters import torch_pickle

        made = torch_pickle.load(path, trust=trust)
    from graphprune.converters import torch

    options |= {"dynamic": dynamic, "batch": batch, "exporter": exporter}
    return torch.export_made(made, out, source=str(path), inputs=inputs, **options)


def _with_known(known: Axes, asked: Axes | None, batch: str | None) -> Axes | None:
    """Sequences are free unless everything is to be fixed; what the user asks for comes first."""
    return asked if batch is None else {**known, **(asked or {})}


def _framework_of_path(path: Path) -> str | None:
    if path.suffix == ".onnx":
        return "onnx"
    if path.suffix in KERAS_FILES or (path / "saved_model.pb").is_file():
        return "tensorflow"
    if path.suffix == ".pt2" or (path / "config.json").is_file():
        return "torch"
    return "torch" if path.suffix in TORCH_FILES and path.is_file() else None


def _unknown(source: str, made: object) -> ModelError:
    what = f"cannot tell what '{source}' is"
    hint = "module:factory, a .pt2, .keras, .h5 or .onnx file, a SavedModel or transformers folder"
    because = None
    if made is not None:
        model = made[0] if isinstance(made, tuple) and made else made
        because = f"the factory returned a {type(model).__name__}"
        if callable(model):
            hint = "--framework jax, if it is a function of JAX arrays"
    elif Path(source).suffix in (*TORCH_FILES, ".safetensors") and Path(source).exists():
        because = "a checkpoint holds weights; the network is in the code that made it"
        hint = "module:factory, where factory() builds the module and loads the checkpoint"
    elif not Path(source).exists():
        because = "there is no such file, and it has not the form module:factory"
    return ModelError(what, because=because, hint=hint)
