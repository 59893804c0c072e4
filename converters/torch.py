"""A torch module to ONNX, by either of ``torch.onnx.export``'s exporters, checked."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from graphprune.converters import parity
from graphprune.converters import source as sources
from graphprune.converters.dynamic import Axes, resolve
from graphprune.converters.quiet import quiet
from graphprune.converters.report import ConversionReport, describe
from graphprune.converters.staging import staged

from graphprune.errors import ModelError, UsageError

if TYPE_CHECKING:
    from graphprune.converters.torch_example import Example

Exporter = Literal["dynamo", "torchscript"]
# The parity is measured at another batch size than the traced one, which shows a batch frozen by
# tracing.
TRACED_BATCH, CHECKED_BATCH = 2, 3
# Absolute paths of the machine that exported; of no use to a reader of the file.
PRIVATE_METADATA = ("pkg.torch.onnx.stack_trace",)


def to_onnx(
    source: str,
    out: str | Path,
    *,
    exporter: Exporter = "dynamo",
    dynamic: Axes | None = None,
    batch: str | None = "batch",
    opset: int | None = None,
    inputs: Any = None,
) -> ConversionReport:
    """Exports the module that ``module:factory`` makes.

    The factory returns a module, or ``(module, example_inputs)``. Example inputs are a tensor, a
    tuple of arguments or a mapping of keyword arguments; they may also be an attribute
    ``example_inputs`` of the module or of the factory.

    Args:
        source: ``module:factory``.
        out: the ONNX file to write.
        exporter: ``dynamo`` or ``torchscript``.
        dynamic: further symbolic axes, ``{input: {axis: name}}``.
        batch: name of the symbolic first axis; None keeps it fixed.
        opset: ONNX opset version; None leaves the choice to torch.
        inputs: example inputs, before any that the source brings.

    Raises:
        ModelError: torch is missing, the factory raises, or the export fails.
        ValidationError: the file computes something else than the module.
        UsageError: no such exporter, or ``dynamic`` names what does not exist.
    """
    factory = sources.load_factory(source)
    return export_made(
        sources.call_factory(factory, source),
        Path(out),
        source=source,
        factory=factory,
        exporter=exporter,
        dynamic=dynamic,
        batch=batch,
        opset=opset,
        inputs=inputs,
    )


def export_made(
    made: Any, out: Path, *, factory: Any = None, inputs: Any, **options: Any
) -> ConversionReport:
    """Exports what a factory made, a module or ``(module, example_inputs)``."""
    _require_torch()
    from graphprune.converters.torch_example import find_inputs

    module = made
    if isinstance(made, tuple) and len(made) == 2:
        module, brought = made
        inputs = brought if inputs is None else inputs
    return export_module(module, find_inputs(module, factory, inputs), out, **options)


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
    """Exports a module in evaluation mode and compares the file with it; see :func:`to_onnx`.

    Args:
        module: a ``torch.nn.Module``; its mode is restored afterwards.
        inputs: a tensor, a tuple of arguments, or a mapping of keyword arguments.
        out: the ONNX file to write.
        source: how the source is called in reports and errors.
        exporter: ``dynamo`` or ``torchscript``.
        dynamic: further symbolic axes.
        batch: name of the symbolic first axis.
        opset: ONNX opset version.
        output_names: names of the outputs; by default those of the result's structure.
    """
    torch = _require_torch()
    from graphprune.converters.torch_example import bind, flatten_outputs, resize_batch

    if exporter not in get_args(Exporter):
        what = f"there is no torch exporter '{exporter}'"
        raise UsageError(what, hint=f"--exporter {' or '.join(get_args(Exporter))}")
    if not isinstance(module, torch.nn.Module):
        what = f"'{source}' is not a torch module but a {type(module).__name__}"
        raise ModelError(what, hint="a factory that returns a torch.nn.Module")
    example = bind(module, inputs)
    axes = resolve({name: tuple(t.shape) for name, t in example.tensors.items()}, dynamic, batch)
    traced, checked = (resize_batch(example, axes, batch, n) for n in (TRACED_BATCH, CHECKED_BATCH))
    training = module.training
    module.eval()
    try:
        with quiet(), torch.no_grad():
            before = flatten_outputs(_call(module, traced, source))
            after = flatten_outputs(_call(module, checked, source))
            pairs = zip(before.values(), after.values(), strict=True)
            frees = [_batch_axes(a.shape, b.shape, batch) for a, b in pairs]
            outputs = dict(zip(output_names or before, frees, strict=True))
            with staged(out) as file:
                try:
                    _export(module, traced, file, exporter, axes, outputs, opset)
                except Exception as error:  # both exporters raise classes of many kinds
                    raise _failed(source, exporter, error) from error
                found = parity.run(file, {name: _array(t) for name, t in checked.tensors.items()})
                measured = parity.check([_array(t) for t in after.values()], found, where=source)
                return describe(
                    file,
                    source=source,
                    out=out,
                    framework="torch",
                    exporter=exporter,
                    parity=measured,
                )
    finally:
        module.train(training)


def _export(
    module: Any,
    example: Example,
    file: Path,
    exporter: Exporter,
    axes: Axes,
    outputs: Mapping[str, Mapping[int, str]],
    opset: int | None,
) -> None:
    """Runs the exporter; external data beside the file only where protobuf's 2 GB demand it."""
    import torch

    named = {
        "input_names": list(example.tensors),
        "output_names": list(outputs),
        "opset_version": opset,
    }
    if exporter == "torchscript":
        symbolic = {name: dict(dims) for name, dims in (*axes.items(), *outputs.items()) if dims}
        tensors = tuple(example.tensors.values())
        with _only_tensors(module, example):
            torch.onnx.export(module, tensors, str(file), dynamo=False, dynamic_axes=symbolic, **named)
        return
    shapes = example.map(lambda name, _: dict(axes[name]) or None)
    kwargs = {
        "kwargs": example.kwargs or None,
        "dynamic_shapes": shapes,
        "dynamo": True,
        "verbose": False,
    }
    program = torch.onnx.export(module, example.args, **kwargs, **named)
    for node in program.model.graph.all_nodes():
        for key in PRIVATE_METADATA:
            node.metadata_props.pop(key, None)
    _name_axes(program.model, axes)
    program.save(str(file))


@contextlib.contextmanager
def _only_tensors(module: Any, example: Example) -> Iterator[None]:
    """``module.forward`` with its constants filled in: a tracer would make inputs of them.

    It is replaced on the instance: a wrapping module would change every parameter's name.
    """
    forward, names = module.forward, list(example.tensors)

    def tensors_only(*tensors: Any) -> Any:
        call = example.with_tensors(dict(zip(names, tensors, strict=True)))
        return forward(*call.args, **call.kwargs)

    own = "forward" in vars(module)
    module.forward = tensors_only
    try:
        yield
    finally:
        del module.forward
        if own:
            module.forward = forward


def _name_axes(model: Any, axes: Axes) -> None:
    """Gives symbolic sizes their names where the exporter has left its own (``s27``)."""
    import onnx_ir as ir

    names = {}
    for value in model.graph.inputs:
        for axis, name in axes[value.name].items():
            names[str(value.shape[axis].value)] = name
    nodes = list(model.graph.all_nodes())
    for value in (*model.graph.inputs, *(output for node in nodes for output in node.outputs)):
        for axis, dim in enumerate(value.shape or ()):
            if isinstance(dim, ir.SymbolicDim) and dim.value is not None:
                named = re.sub(r"\w+", lambda word: names.get(word[0], word[0]), dim.value)
                value.shape[axis] = ir.SymbolicDim(named)


def _batch_axes(before: Sequence[int], after: Sequence[int], batch: str | None) -> dict[int, str]:
    """The axes of an output that are as long as the batch, at both batch sizes."""
    pairs = enumerate(zip(before, after, strict=True))
    sizes = (TRACED_BATCH, CHECKED_BATCH)
    return {axis: batch for axis, pair in pairs if batch and pair == sizes}


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

    if tensor.dtype == torch.bfloat16:
        what = "a bfloat16 input or output can't be compared with its source"
        raise ModelError(what, hint="let the factory return the module in float32 or float16")
    return np.ascontiguousarray(tensor.detach().cpu().numpy())


def _failed(source: str, exporter: str, error: Exception) -> ModelError:
    """The exporter's failure with its deepest cause, where the reason usually is."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    other = next(name for name in get_args(Exporter) if name != exporter)
    what = f"torch cannot export '{source}' with its {exporter} exporter"
    because = f"{type(cause).__name__}: {parity.first_line(cause)}"
    return ModelError(what, because=because, hint=f"--exporter {other}")


def _require_torch() -> Any:
    try:
        import torch
    except ImportError as error:
        msg = "torch"
        raise sources.missing(msg, "torch") from error
    return torch
