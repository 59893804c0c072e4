"""Comparisons, logic, choices and casts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from graphprune.converters.torch_graph.call import Call, on_one_device
from graphprune.converters.torch_graph.registry import op
from torch import Tensor

_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "And": torch.logical_and,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
}


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Call, Tensor, Tensor], Tensor]:
    return lambda call, a, b: function(*on_one_device((a, b)))


for _name, _function in _BINARY.items():
    op(_name, since=7)(_binary(_function))


@op("Not")
def negation(call: Call, x: Tensor) -> Tensor:
    """Logical not."""
    return torch.logical_not(x)


@op("IsNaN", since=9)
def is_nan(call: Call, x: Tensor) -> Tensor:
    """Where a number is none."""
    return torch.isnan(x)


@op("IsInf", since=10)
def is_inf(call: Call, x: Tensor) -> Tensor:
    """Where a number is infinite, of either sign unless an attribute says otherwise."""
    found = torch.isinf(x)
    if not call.get("detect_negative", 1):
        found = found & (x > 0)
    return found if call.get("detect_positive", 1) else found & (x < 0)


@op("Where", since=9)
def where(call: Call, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """One or the other."""
    condition, a, b = on_one_device((condition, a, b))
    return torch.where(condition, a, b)


@op("Cast", since=6)
def cast(call: Call, x: Tensor) -> Tensor:
    """Another type; a floating one is the module's own."""
    return x.to(call.dtype(call.get("to")))


@op("CastLike", since=15)
def cast_like(call: Call, x: Tensor, example: Tensor) -> Tensor:
    """The type of another tensor."""
    return x.to(example.dtype)


@op("Identity")
def identity(call: Call, x: Tensor) -> Tensor:
    """The same tensor."""
    return x
