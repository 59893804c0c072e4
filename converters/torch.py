"""A torch module to ONNX, by either of ``torch.onnx.export``'s exporters, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from graphprune.converters import parity
from graphprune.converters import source as sources
from graphprune.converters.dynamic import Axes, resolve
from graphprune.converters.example import CHECKED_BATCH, find_inputs, split_made
from graphprune.converters.quiet import quiet
from graphprune.converters.report import ConversionReport, describe
from graphprune.converters.staging import staged
from graphprune.converters.torch_exporters import Exporter, export

from graphprune.errors import ModelError, UsageError

if TYPE_CHECKING:
    from graphprune.converters.torch_example import Example

TRACED_BATCH = 2
# Convolutions and pooling take bfloat16 since opset 22.
BFLOAT16_OPSET = 23
# Called with a path and, for each output, its free axes.
Export = Callable[[Path, Mapping[str, Mapping[int, str]]], None]


def export_made(
    made: Any, out: Path, *, factory: Any = None, inputs: Any = None, **options: Any
) -> ConversionReport:
    """Exports what a factory made, a module or ``(module, example_inputs)``.

    Example inputs are a tensor, a tuple of arguments or a mapping of keyword arguments; they may
    also be an attribute ``example_inputs`` of the module or of the factory.
    """
    require_torch()
    module, given = split_made(made, inputs)
    return export_module(module, find_inputs(module, factory, given), out, **options)


def export_module(
    module: Any,
    inputs: Any,
    out: Path,
    *,
    source: str,
    exporter: Exporter = "dynamo",
    dynamic: Axes | None = None,
    batch: str | None = "batch",
    opset: int | None = None,
    output_names: Sequence[str] | None = None,
) -> ConversionReport:
    """Exports a module in evaluation mode, which it leaves again afterwards.

    Args:
        module: the module.
        inputs: example inputs.
        out: the ONNX file to write.
        source: what to call the module in messages.
        exporter: ``dynamo`` or ``torchscript``.
        dynamic: further symbolic axes, ``{input: {axis: name}}``.
        batch: name of the symbolic first axis; None keeps it fixed.
        opset: ONNX opset version; None leaves the choice to torch.
        output_names: names of the outputs; by default keys of a mapping, or ``output``.

    Raises:
        ModelError: the module can't be exported or run.
        ValidationError: the file computes something else than the module.
        UsageError: no such exporter, or ``dynamic`` names what does not exist.
    """
    torch = require_torch()
    from graphprune.converters.torch_example import bind, resize_batch

    if exporter not in get_args(Exporter):
        what = f"there is no torch exporter '{exporter}'"
        raise UsageError(what, hint=f"--exporter {' or '.join(get_args(Exporter))}")
    if not isinstance(module, torch.nn.Module):
        what = f"'{source}' is not a torch module but a {type(module).__name__}"
        raise ModelError(what, hint="a factory that returns a torch.nn.Module")
    if opset is None and exporter == "dynamo" and any(p.dtype == torch.bfloat16 for p in module.parameters()):
        opset = BFLOAT16_OPSET
    example = bind(module, inputs)
    axes = resolve({name: tuple(t.shape) for name, t in example.tensors.items()}, dynamic, batch)
    traced = resize_batch(example, axes, batch, TRACED_BATCH)

    def write(file: Path, outputs: Mapping[str, Mapping[int, str]]) -> None:
        try:
            export(module, traced, file, exporter, axes, outputs, opset)
        except Exception as error:  # both exporters raise classes of many kinds
            other = next(name for name in get_args(Exporter) if name != exporter)
            what = f"torch cannot export '{source}' with its {exporter} exporter"
            raise ModelError(what, because=deepest(error), hint=f"--exporter {other}") from error

    training = {m: m.training for m in module.modules()}
    module.eval()
    try:
        with quiet(), torch.no_grad():
            return checked_export(
                module, example, axes, write, out,
                source=source, exporter=exporter, batch=batch, output_names=output_names,
            )  # fmt: skip
    finally:
        for each, was in training.items():  # a part may be frozen in evaluation mode
            each.training = was


def checked_export(
    module: Any,
    example: Example,
    axes: Axes,
    write: Export,
    out: Path,
    *,
    source: str,
    exporter: str,
    batch: str | None,
    output_names: Sequence[str] | None = None,
) -> ConversionReport:
    """Writes the file, compares it with ``module`` at other sizes than the traced ones, and reports."""
    from graphprune.converters.torch_example import flatten_outputs, free_lengths, resize_batch, shortened

    traced, checked = (resize_batch(example, axes, batch, n) for n in (TRACED_BATCH, CHECKED_BATCH))
    before = flatten_outputs(_call(module, traced, source))
    after = flatten_outputs(_call(module, checked, source))
    pairs = zip(before.values(), after.values(), strict=True)
    frees = [_batch_axes(a.shape, b.shape, batch) for a, b in pairs]
    shorter = shortened(checked, axes, batch)
    other = None
    if shorter is not None:
        try:
            other = flatten_outputs(module(*shorter.args, **shorter.kwargs))
        except Exception:  # user code: not every size is one that the module takes
            other = None
    if shorter is not None and other is not None:
        lengths = free_lengths(checked, axes, batch)
        for found, a, b in zip(frees, after.values(), other.values(), strict=True):
            found.update(_shortened_axes(a.shape, b.shape, lengths))
    with staged(out) as file:
        write(file, dict(zip(output_names or before, frees, strict=True)))
        measured = _compare(file, checked, after, source)
        if shorter is not None and other is not None:
            measured = max(measured, _compare(file, shorter, other, source), key=lambda p: p.max_abs_diff)
        return describe(file, source=source, out=out, framework="torch", exporter=exporter, parity=measured)


def deepest(error: Exception) -> str:
    """An exporter's failure by its deepest cause, where the reason usually is."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return f"{type(cause).__name__}: {parity.first_line(cause)}"


def require_torch() -> Any:
    """The package.

    Raises:
        ModelError: it is not installed.
    """
    try:
        import torch
    except ImportError as error:
        msg = "torch"
        raise sources.missing(msg, "torch") from error
    return torch


def _compare(file: Path, example: Example, outputs: Mapping[str, Any], source: str) -> parity.Parity:
    found = parity.run(file, {name: _array(t) for name, t in example.tensors.items()})
    return parity.check([_array(t) for t in outputs.values()], found, where=source)


def _batch_axes(before: Sequence[int], after: Sequence[int], batch: str | None) -> dict[int, str]:
    """The axes of an output that are as long as the batch, at both batch sizes."""
    pairs = enumerate(zip(before, after, strict=True))
    sizes = (TRACED_BATCH, CHECKED_BATCH)
    return {axis: batch for axis, pair in pairs if batch and pair == sizes}


def _shortened_axes(
    before: Sequence[int], after: Sequence[int], lengths: Mapping[str, int]
) -> dict[int, str]:
    """The axes of an output that have become one shorter, as those of the inputs have."""
    found = {}
    for axis, pair in enumerate(zip(before, after, strict=True)):
        names = [name for name, size in lengths.items() if pair == (size, size - 1)]
        if len(names) == 1:
            found[axis] = names[0]
    return found


def _call(module: Any, example: Example, source: str) -> Any:
    try:
        return module(*example.args, **example.kwargs)
    except Exception as error:  # user code
        because = f"{type(error).__name__}: {parity.first_line(error)}"
        what = "the module can't run on its example inputs at another batch size"
        hint = "example inputs whose first axis is the batch, or a fixed batch"
        raise ModelError(what, where=source, because=because, hint=hint) from error


def _array(tensor: Any) -> parity.Array:
    import torch

    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:  # numpy has no such type of its own
        import ml_dtypes

        return np.asarray(tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16))
    return np.ascontiguousarray(tensor.numpy())
