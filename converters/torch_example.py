"""Example inputs of a torch module: how they are named, and the same at other sizes.

Needs torch; only the torch converters import it, within functions.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

import numpy as np
import torch
from graphprune.converters.dynamic import Axes
from graphprune.converters.example import arguments_of

from graphprune.errors import ModelError


@dataclass(frozen=True)
class Example:
    """A call of ``forward``, ready to be traced.

    Attributes:
        signature: of ``forward``.
        arguments: by parameter: a tensor, a constant, a tuple for ``*args``, a mapping for
            ``**kwargs``.
    """

    signature: inspect.Signature
    arguments: dict[str, Any]

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional arguments."""
        return inspect.BoundArguments(self.signature, OrderedDict(self.arguments)).args

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword-only arguments."""
        return inspect.BoundArguments(self.signature, OrderedDict(self.arguments)).kwargs

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors in order, by the name they get in the ONNX file."""
        found: dict[str, torch.Tensor] = {}
        self.map(found.__setitem__)
        return found

    def map(self, function: Callable[[str, torch.Tensor], Any], *, constants: bool = False) -> dict[str, Any]:
        """``arguments`` with ``function(name, tensor)`` for each tensor.

        Constants stay if ``constants`` is true and become None otherwise.
        """

        def visit(name: str, value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                return function(name, value)
            return value if constants else None

        mapped: dict[str, Any] = {}
        for name, value in self.arguments.items():
            kind = self.signature.parameters[name].kind
            if kind is Parameter.VAR_POSITIONAL:
                mapped[name] = tuple(visit(f"{name}_{i}", item) for i, item in enumerate(value))
            elif kind is Parameter.VAR_KEYWORD:
                mapped[name] = {key: visit(key, item) for key, item in value.items()}
            else:
                mapped[name] = visit(name, value)
        return mapped

    def with_tensors(self, tensors: Mapping[str, torch.Tensor]) -> Example:
        """The same call with other tensors."""
        return Example(self.signature, self.map(lambda name, _: tensors[name], constants=True))


def bind(module: Any, inputs: Any, signature: inspect.Signature | None = None) -> Example:
    """Binds a tensor, a tuple of arguments or a mapping of keyword arguments to ``module.forward``.

    Args:
        module: the module.
        inputs: its arguments.
        signature: of ``forward``, where that can't be asked.

    Raises:
        ModelError: they do not fit the signature, or one is a container of tensors.
    """
    args, kwargs = arguments_of(inputs)
    args = tuple(_tensor(value) for value in args)
    kwargs = {name: _tensor(value) for name, value in kwargs.items()}
    signature = signature or inspect.signature(module.forward)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        where = f"{type(module).__name__}.forward{signature}"
        msg = "the example inputs do not fit"
        raise ModelError(msg, where=where, because=str(error)) from error
    for name, value in bound.arguments.items():
        star = signature.parameters[name].kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
        if not star and isinstance(value, (list, tuple, Mapping)):
            what = f"the example input '{name}' is a {type(value).__name__}"
            raise ModelError(what, because="only tensors can be inputs of the exported model")
    last = max(i for i, name in enumerate(signature.parameters) if name in bound.arguments)
    bound.apply_defaults()
    used = list(signature.parameters)[: last + 1]
    example = Example(signature, {name: bound.arguments[name] for name in used})
    if not example.tensors:
        msg = "the example inputs hold no tensor"
        raise ModelError(msg, where=str(signature))
    return example


def _tensor(value: Any) -> Any:
    """Arrays, as read from a file, are tensors to a module."""
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def resize_batch(example: Example, axes: Axes, batch: str | None, size: int) -> Example:
    """The same samples, repeated or cut to ``size`` along the batch axis and scaled apart.

    Floats of sample ``i`` are multiplied by a factor near one, so that no two samples are equal
    while zeros, signs and ranges survive.
    """

    def resize(name: str, tensor: torch.Tensor) -> torch.Tensor:
        axis = next((a for a, dim in axes[name].items() if batch and dim == batch), None)
        if axis is None:
            return tensor
        index = torch.arange(size, device=tensor.device) % tensor.shape[axis]
        picked = tensor.index_select(axis, index)
        if not picked.is_floating_point():
            return picked
        factors = 1 - 0.05 * torch.arange(size, device=tensor.device, dtype=picked.dtype)
        return picked * factors.reshape([-1 if a == axis else 1 for a in range(picked.ndim)])

    return Example(example.signature, example.map(resize, constants=True))


def free_lengths(example: Example, axes: Axes, batch: str | None) -> dict[str, int]:
    """Sizes of the free axes but the batch, by their names."""
    return {
        dim: tensor.shape[axis]
        for name, tensor in example.tensors.items()
        for axis, dim in axes[name].items()
        if dim != batch
    }


def shortened(example: Example, axes: Axes, batch: str | None) -> Example | None:
    """The same call with every free axis but the batch one shorter; None where there is none."""
    lengths = free_lengths(example, axes, batch)
    if not lengths or min(lengths.values()) <= 2:
        return None

    def cut(name: str, tensor: torch.Tensor) -> torch.Tensor:
        for axis, dim in axes[name].items():
            if dim != batch:
                tensor = tensor.narrow(axis, 0, tensor.shape[axis] - 1)
        return tensor

    return Example(example.signature, example.map(cut, constants=True))


def flatten_outputs(result: Any, name: str = "output") -> dict[str, torch.Tensor]:
    """Tensors of a nested result in order: ``output``, ``output_0`` ..., or a mapping's keys."""
    if isinstance(result, torch.Tensor):
        return {name: result}
    flat: dict[str, torch.Tensor] = {}
    if isinstance(result, Mapping):
        for key, value in result.items():
            flat.update(flatten_outputs(value, str(key) if name == "output" else f"{name}_{key}"))
    elif isinstance(result, (tuple, list)):
        single = len(result) == 1
        for i, value in enumerate(result):
            flat.update(flatten_outputs(value, name if single else f"{name}_{i}"))
    return flat
