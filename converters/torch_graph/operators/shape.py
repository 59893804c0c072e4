"""Sizes as numbers, and tensors made from sizes."""

from __future__ import annotations

import math

import numpy as np
import torch
from graphprune.converters.torch_graph.call import Call, ints, tensor_of
from graphprune.converters.torch_graph.registry import op
from torch import Tensor


@op("Shape")
def shape(call: Call, x: Tensor) -> Tensor:
    """Sizes of all axes or, from opset 15 on, of some."""
    sizes = list(x.shape)[call.get("start", 0) : call.get("end")]
    return torch.tensor(sizes, dtype=torch.int64)


@op("Size")
def size(call: Call, x: Tensor) -> Tensor:
    """How many numbers there are."""
    return torch.tensor(x.numel(), dtype=torch.int64)


@op("ConstantOfShape", since=9)
def constant_of_shape(call: Call, sizes: Tensor) -> Tensor:
    """One number, repeated."""
    value = call.get("value")
    number = tensor_of(np.zeros(1, np.float32) if value is None else value, call)
    dtype = number.dtype
    if number.is_floating_point() and call.precision.real is not None:
        dtype = call.precision.real
    return torch.full(ints(sizes), number.item(), dtype=dtype, device=sizes.device)


@op("Range", since=11)
def arange(call: Call, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """Numbers from ``start`` in steps of ``delta``, without ``limit``."""
    first, last, step = start.item(), limit.item(), delta.item()
    count = max(math.ceil((last - first) / step), 0)
    return first + step * torch.arange(count, dtype=start.dtype, device=start.device)


@op("Constant")
def constant(call: Call) -> Tensor:
    """A constant that names an output of the graph."""
    value = call.get("value")
    if value is None:
        found = [
            (name, call.get(name)) for name in ("value_float", "value_floats", "value_int", "value_ints")
        ]
        name, number = next(((n, v) for n, v in found if v is not None), (None, None))
        if name is None:
            call.refuse("it holds neither a tensor nor numbers")
        value = np.asarray(number, np.float32 if "float" in name else np.int64)
    made = tensor_of(np.asarray(value), call)
    real = call.precision.real
    return made.to(real) if real is not None and made.is_floating_point() else made


@op("EyeLike", since=9)
def eye_like(call: Call, x: Tensor) -> Tensor:
    """A matrix with ones along a diagonal."""
    dtype = call.dtype(call.get("dtype")) if call.get("dtype") is not None else x.dtype
    ones = torch.ones(x.shape, dtype=dtype, device=x.device)
    k = call.get("k", 0)
    return torch.tril(torch.triu(ones, k), k)
