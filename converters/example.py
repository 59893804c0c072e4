"""Example inputs that a source brings along, and the same samples at another batch size."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from graphprune.converters.dynamic import Axes
from graphprune.converters.parity import Array, first_line

from graphprune.archive_sizes import require_archive_size, require_arrays
from graphprune.errors import ModelError

# The parity is measured at another batch size than the traced one, which shows a batch frozen by
# tracing.
CHECKED_BATCH = 3
ATTRIBUTES = ("example_inputs", "example_input_array", "dummy_inputs")


def split_made(made: Any, inputs: Any = None) -> tuple[Any, Any]:
    """The model that a factory returned, and its example inputs: ``inputs`` before its own."""
    if isinstance(made, tuple) and len(made) == 2:
        return made[0], made[1] if inputs is None else inputs
    return made, inputs


def arguments_of(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Example inputs as positional and keyword arguments: one value, a sequence, or a mapping by name."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,), {}


def find_inputs(model: Any, factory: Any, given: Any, *, what: str = "torch module") -> Any:
    """Example inputs: given ones first, then an attribute of the model or of its factory.

    Raises:
        ModelError: there are none.
    """
    if given is not None:
        return given
    for holder in (model, factory):
        for attribute in ATTRIBUTES:
            found = getattr(holder, attribute, None)
            if found is not None:
                return found() if inspect.ismethod(found) else found
    message = f"a {what} can't be exported without an example of its inputs"
    hint = "--inputs FILE.npz (inputs= in Python), or set model.example_inputs"
    if factory is not None:
        hint = "let the factory return (model, example_inputs), or set model.example_inputs"
    raise ModelError(message, hint=hint)


def read_inputs(path: Path) -> dict[str, Array]:
    """Example inputs from an ``.npz`` file, by the names of the model's parameters.

    Raises:
        ModelError: it can't be read, or holds nothing.
    """
    try:
        require_archive_size(path)
        with np.load(path, allow_pickle=False) as archive:
            arrays = require_arrays({name: archive[name] for name in archive.files})
    except Exception as error:  # numpy, zip and OS errors; a single array has no files
        what = f"cannot read the example inputs '{path}'"
        raise ModelError(what, because=first_line(error), hint="numpy.savez(path, name=array)") from error
    if not arrays:
        what = f"there are no arrays in '{path}'"
        raise ModelError(what, hint="numpy.savez(path, name=array)")
    return arrays


def resized(arrays: Mapping[str, Array], axes: Axes, batch: str | None, size: int) -> dict[str, Array]:
    """The same samples, repeated or cut to ``size`` along the batch axis and scaled apart.

    Floats of sample ``i`` are multiplied by a factor near one, so that no two samples are equal
    while zeros, signs and ranges survive.

    Args:
        arrays: by input.
        axes: symbolic axes by input.
        batch: what the batch axis is called there; None leaves all arrays as they are.
        size: samples wanted.
    """
    made = dict(arrays)
    for name, array in arrays.items():
        axis = next((a for a, dim in axes[name].items() if batch and dim == batch), None)
        if axis is None:
            continue
        picked = np.take(array, np.arange(size) % array.shape[axis], axis)
        if array.dtype.kind not in "iub":  # extension types of JAX (bfloat16) are of kind "V"
            factors = 1 - 0.05 * np.arange(size)
            shape = [-1 if a == axis else 1 for a in range(array.ndim)]
            picked = picked * factors.reshape(shape).astype(array.dtype)
        made[name] = picked
    return made
