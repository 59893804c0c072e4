"""A ``torch.export`` program (``.pt2``) to ONNX: sizes and free axes are those it was made with."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphprune.converters.dynamic import Axes
from graphprune.converters.example import CHECKED_BATCH
from graphprune.converters.quiet import quiet
from graphprune.converters.report import ConversionReport
from graphprune.converters.torch import checked_export, deepest, require_torch
from graphprune.converters.torch_archive import require_harmless
from graphprune.converters.torch_exporters import export_program

from graphprune.errors import ModelError, UsageError

if TYPE_CHECKING:
    from graphprune.converters.torch_example import Example


def to_onnx(
    path: Path,
    out: Path,
    *,
    dynamic: Axes | None = None,
    batch: str | None = "batch",
    opset: int | None = None,
    inputs: Any = None,
    trust: bool = False,
) -> ConversionReport:
    """Exports the program in a ``.pt2`` file.

    Args:
        path: the file.
        out: the ONNX file to write.
        dynamic: must be empty, since the program says which axes are free.
        batch: what to call the free first axis, if there is one.
        opset: ONNX opset version; None leaves the choice to torch.
        inputs: example inputs, before those in the file.
        trust: load it even if that could run code in it.

    Raises:
        ModelError: torch is missing, the file can't be loaded, run or exported, or needs trust.
        ValidationError: the file computes something else than the program.
        UsageError: ``dynamic`` is given.
    """
    torch = require_torch()
    if dynamic:
        what = "the free axes of a torch.export program can't be changed"
        raise UsageError(what, hint="torch.export.export(..., dynamic_shapes=...) when it is made")
    if not trust:
        require_harmless(path)
    with quiet(), torch.no_grad():
        try:
            program = torch.export.load(path)
        except Exception as error:  # zip, JSON and torch errors
            what = f"torch cannot load the program '{path}'"
            raise ModelError(what, because=deepest(error)) from error
        module = program.module()
        example = _example(program, module, inputs, path)
        axes, batch = _free_axes(program, example, batch)
        if not _runs(module, example, axes, batch):
            batch = None

        def write(file: Path, outputs: Mapping[str, Mapping[int, str]]) -> None:
            try:
                export_program(program, file, list(example.tensors), list(outputs), axes, opset)
            except Exception as error:  # torch raises classes of many kinds
                what = f"torch cannot export the program '{path}'"
                raise ModelError(what, because=deepest(error)) from error

        return checked_export(
            module, example, axes, write, out, source=str(path), exporter="torch.export", batch=batch
        )


def _example(program: Any, module: Any, inputs: Any, path: Path) -> Example:
    """The call that the program was made with, or the user's; what was a keyword then is one again."""
    from graphprune.converters.torch_example import bind

    if program.example_inputs is None and inputs is None:
        what = f"the program '{path}' holds no example inputs"
        raise ModelError(what, hint="give some: inputs=..., or --inputs FILE.npz")
    args, kwargs = program.example_inputs or ((), {})
    names = [name for name in inspect.signature(module.forward).parameters if name not in kwargs]
    if inputs is None:
        inputs = {**dict(zip(names, args, strict=False)), **kwargs}
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    parameters += [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in kwargs]
    return bind(module, inputs, inspect.Signature(parameters))


def _free_axes(
    program: Any, example: Example, batch: str | None
) -> tuple[dict[str, dict[int, str]], str | None]:
    """Free axes of each input by torch's symbols, the first one called ``batch``."""
    shapes = {
        node.name: node.meta["val"].shape
        for node in program.graph.nodes
        if node.op == "placeholder" and hasattr(node.meta.get("val"), "shape")
    }
    axes = {
        name: {axis: str(size) for axis, size in enumerate(shapes.get(name, ())) if not isinstance(size, int)}
        for name in example.tensors
    }
    symbol = next((dims[0] for dims in axes.values() if 0 in dims), None)
    if symbol is None or batch is None:
        return axes, None
    named = {
        name: {a: batch if dim == symbol else dim for a, dim in dims.items()} for name, dims in axes.items()
    }
    return named, batch


def _runs(module: Any, example: Example, axes: Axes, batch: str | None) -> bool:
    """Whether the program takes the batch sizes of the check; it may be bounded otherwise."""
    from graphprune.converters.torch_example import resize_batch

    call = resize_batch(example, axes, batch, CHECKED_BATCH)
    try:
        module(*call.args, **call.kwargs)
    except Exception:
        return False
    return True
