"""Inputs to measure with: sizes for the symbolic axes, plausible values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from graphprune.errors import ModelError, UsageError
from graphprune.runner.sessions import feeds

Feeds = dict[str, npt.NDArray[Any]]

SEQUENCE, IMAGE = 128, 224
DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int16)": np.int16,
    "tensor(int8)": np.int8,
    "tensor(uint64)": np.uint64,
    "tensor(uint32)": np.uint32,
    "tensor(uint16)": np.uint16,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


class Declared(NamedTuple):
    """An input as the model declares it; symbolic axes are names, or None."""

    name: str
    type: str
    shape: list[int | str | None]


def make_feeds(session: ort.InferenceSession, batch: int, dims: Mapping[str, int] | None) -> Feeds:
    """One array per input, see :func:`describe`.

    Args:
        session: an open session.
        batch: size of the symbolic first axes.
        dims: sizes by name of the symbolic axis.

    Raises:
        ModelError: an input is not a tensor of a plain type, or the batch is fixed at another size.
        UsageError: ``dims`` names no symbolic axis.
    """
    return feeds(describe(session.get_inputs(), batch, dims))


def declared_inputs(model: Path | bytes) -> list[Declared]:
    """The inputs of an ONNX file, or of its bytes, without loading its weights.

    Raises:
        ModelError: it is no ONNX file.
    """
    try:
        if isinstance(model, bytes):
            graph = onnx.load_model_from_string(model).graph
        else:
            graph = onnx.load_model(str(model), load_external_data=False).graph
    except Exception as error:  # protobuf raises what it likes
        what = "the model cannot be read" if isinstance(model, bytes) else f"cannot load '{model}'"
        raise ModelError(what, because=str(error).splitlines()[0] if str(error) else None) from error
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {tensor.values.name for tensor in graph.sparse_initializer}
    return [_declared(value) for value in graph.input if value.name not in constants]


def _declared(value: onnx.ValueInfoProto) -> Declared:
    if value.type.WhichOneof("value") != "tensor_type":
        return Declared(value.name, str(value.type.WhichOneof("value")).removesuffix("_type"), [])
    kind = value.type.tensor_type
    dims = [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in kind.shape.dim]
    name = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
    return Declared(value.name, f"tensor({name})", dims)


def describe(inputs: Sequence[Any], batch: int, dims: Mapping[str, int] | None) -> list[dict[str, Any]]:
    """What to feed: ``name``, ``dtype``, ``shape`` and ``fill`` (normal, zeros, ones) of every input.

    Floats are standard normal; integers zero (an index that every table has); booleans and integer
    inputs with *mask* in their name are ones.

    Symbolic axes get, in this order: the size ``dims`` gives to their name; for a sum of names the
    sum of their sizes; ``batch`` for a first axis; 224 for two free sides of a 4-d float input; and
    128. One name has one size everywhere.

    Args:
        inputs: of a session, or declared.
        batch: size of the symbolic first axes.
        dims: sizes by name of the symbolic axis.

    Raises:
        ModelError: an input is not a tensor of a plain type, or the batch is fixed at another size.
        UsageError: ``dims`` names no symbolic axis.
    """
    names = {
        _name(value, axis)
        for value in inputs
        for axis, dim in enumerate(value.shape)
        if not isinstance(dim, int)
    }
    unknown = set(dims or ()) - names - {part for name in names for part in _terms(name)}
    if unknown:
        what = f"no input has a symbolic axis '{min(unknown)}'"
        raise UsageError(what, because=f"there are: {', '.join(sorted(names)) or 'none'}")
    _check_batch(inputs, batch)
    sizes: dict[str, int] = dict(dims or {})
    for value in inputs:
        for axis, dim in enumerate(value.shape):
            if isinstance(dim, str) and len(_terms(dim)) == 1:
                sizes.setdefault(dim, batch if axis == 0 else _guess(value))
    return [_filled(value, _shape(value, sizes, batch)) for value in inputs]


def batch_of(arrays: Feeds) -> int:
    """Samples in one run: the length of the first input's first axis, 1 for a scalar."""
    first = next(iter(arrays.values()), None)
    return 1 if first is None or first.ndim == 0 else int(first.shape[0])


def _check_batch(inputs: Sequence[Any], batch: int) -> None:
    firsts = [value.shape[0] for value in inputs if value.shape]
    fixed = bool(firsts) and all(isinstance(size, int) for size in firsts)
    if batch != 1 and fixed and firsts[0] != batch:
        what = f"the model takes no batch of {batch}"
        because = f"the first axis of '{inputs[0].name}' is fixed at {firsts[0]}"
        raise ModelError(what, because=because, hint=f"--batch {firsts[0]}")


def _name(value: Any, axis: int) -> str:
    """Of a symbolic axis; one without a name is ``input:axis``."""
    dim = value.shape[axis]
    return dim if isinstance(dim, str) else f"{value.name}:{axis}"


def _terms(dim: str) -> list[str]:
    """``past + current`` as its two names."""
    return [part.strip() for part in dim.split("+")]


def _shape(value: Any, sizes: Mapping[str, int], batch: int) -> list[int]:
    shape = []
    for axis, dim in enumerate(value.shape):
        if isinstance(dim, int):
            shape.append(dim)
        elif dim is None:
            shape.append(sizes.get(_name(value, axis), batch if axis == 0 else _guess(value)))
        elif dim in sizes:
            shape.append(sizes[dim])
        else:
            shape.append(sum(int(t) if t.isdecimal() else sizes.get(t, SEQUENCE) for t in _terms(dim)))
    return shape


def _guess(value: Any) -> int:
    """Size of a symbolic axis after the first."""
    free = sum(not isinstance(dim, int) for dim in value.shape[1:])
    image = len(value.shape) == 4 and free >= 2 and "float" in value.type
    return IMAGE if image else SEQUENCE


def _filled(value: Any, shape: list[int]) -> dict[str, Any]:
    if value.type not in DTYPES:
        what = f"input '{value.name}' is a {value.type}"
        because = "only tensors of numbers can be made up for a measurement"
        if value.type == "tensor(bfloat16)":
            because = "onnxruntime's Python interface takes no arrays of that type"
        raise ModelError(what, because=because)
    dtype = DTYPES[value.type]
    if issubclass(dtype, np.floating):
        fill = "normal"
    elif dtype is np.bool_ or "mask" in value.name.lower():
        fill = "ones"
    else:
        fill = "zeros"
    return {"name": value.name, "dtype": np.dtype(dtype).name, "shape": shape, "fill": fill}
