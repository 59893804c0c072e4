"""Calls of ``torch.onnx.export``: both exporters, and a program that ``torch.export`` has made."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from graphprune.converters.dynamic import Axes

if TYPE_CHECKING:
    from graphprune.converters.torch_example import Example

Exporter = Literal["dynamo", "torchscript"]
# Absolute paths of the machine that exported; of no use to a reader of the file.
PRIVATE_METADATA = ("pkg.torch.onnx.stack_trace",)
# Operators into which a normalisation is folded.
FOLDED = ("Conv", "ConvTranspose", "Gemm")


def export(
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
        # It prints the whole graph before it fails; the error says what it failed at.
        with _only_tensors(module, example), contextlib.redirect_stdout(io.StringIO()):
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
    _finish(program, file, axes)


def export_program(
    program: Any, file: Path, inputs: Sequence[str], outputs: Sequence[str], axes: Axes, opset: int | None
) -> None:
    """Writes a ``torch.export`` program, whose free axes are its own."""
    import torch

    named = {"input_names": list(inputs), "output_names": list(outputs), "opset_version": opset}
    _finish(torch.onnx.export(program, dynamo=True, verbose=False, **named), file, axes)


def _finish(program: Any, file: Path, axes: Axes) -> None:
    for node in program.model.graph.all_nodes():
        for key in PRIVATE_METADATA:
            node.metadata_props.pop(key, None)
    _name_axes(program.model, axes)
    _one_type(program.model)
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


def _one_type(model: Any) -> None:
    """Casts folded weights back: the exporter leaves normalised bfloat16 convolutions in float32."""
    import onnx_ir as ir

    for node in model.graph.all_nodes():
        data = node.inputs[0].dtype if node.inputs and node.inputs[0] is not None else None
        if node.op_type not in FOLDED or data is None or not data.is_floating_point():
            continue
        for value in node.inputs[1:]:
            if value is not None and value.const_value is not None and value.dtype != data:
                array = value.const_value.numpy().astype(data.numpy())
                value.const_value = ir.tensor(array, dtype=data, name=value.name)
                value.type = ir.TensorType(data)
