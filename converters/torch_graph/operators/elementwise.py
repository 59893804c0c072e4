"""Operators that compute each number by itself, with numpy broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
from graphprune.converters.torch_graph.call import Call, on_one_device
from graphprune.converters.torch_graph.registry import op
from torch import Tensor
from torch.nn import functional as F

_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardSwish": F.hardswish,
    "Log": torch.log,
    "Mish": F.mish,
    "Neg": torch.neg,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": lambda x: torch.where(x.isnan(), x, x.sign()),
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
}


def _unary(function: Callable[[Tensor], Tensor]) -> Callable[[Call, Tensor], Tensor]:
    return lambda call, x: function(x)


for _name, _function in _UNARY.items():
    op(_name)(_unary(_function))

_SINCE_BROADCASTING = 7


@op("Add", since=_SINCE_BROADCASTING)
def add(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """Sum."""
    a, b = on_one_device((a, b))
    return a + b


@op("Sub", since=_SINCE_BROADCASTING)
def sub(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """Difference."""
    a, b = on_one_device((a, b))
    return a - b


@op("Mul", since=_SINCE_BROADCASTING)
def mul(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """Product."""
    a, b = on_one_device((a, b))
    return a * b


@op("Div", since=_SINCE_BROADCASTING)
def div(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """Quotient; of integers, rounded towards zero."""
    a, b = on_one_device((a, b))
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


@op("Mod", since=10)
def mod(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """Remainder with the divisor's sign; with the dividend's for ``fmod``."""
    a, b = on_one_device((a, b))
    return torch.fmod(a, b) if call.get("fmod", 0) else torch.remainder(a, b)


@op("Pow", since=7)
def power(call: Call, base: Tensor, exponent: Tensor) -> Tensor:
    """Power, in the type of the base."""
    base, exponent = on_one_device((base, exponent))
    if exponent.numel() == 1 and exponent.ndim <= base.ndim and not exponent.requires_grad:
        return torch.pow(base, exponent.item()).to(base.dtype)  # squares are faster, and exact at 0
    return torch.pow(base, exponent).to(base.dtype)


@op("Max", since=8)
def maximum(call: Call, *inputs: Tensor) -> Tensor:
    """Largest of several."""
    return reduce(torch.maximum, on_one_device(inputs))


@op("Min", since=8)
def minimum(call: Call, *inputs: Tensor) -> Tensor:
    """Smallest of several."""
    return reduce(torch.minimum, on_one_device(inputs))


@op("Sum", since=8)
def total(call: Call, *inputs: Tensor) -> Tensor:
    """Sum of several."""
    return reduce(torch.add, on_one_device(inputs))


@op("Mean", since=8)
def mean(call: Call, *inputs: Tensor) -> Tensor:
    """Mean of several."""
    return reduce(torch.add, on_one_device(inputs)) / len(inputs)


@op("Clip", since=6)
def clip(call: Call, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """Numbers between two bounds; they are attributes before opset 11."""
    if call.opset < 11:
        return x if not call.attributes else torch.clamp(x, call.get("min"), call.get("max"))
    if low is not None:
        x = torch.maximum(x, low.to(x))
    return x if high is None else torch.minimum(x, high.to(x))


@op("LeakyRelu")
def leaky_relu(call: Call, x: Tensor) -> Tensor:
    """``x`` or ``alpha x``."""
    return F.leaky_relu(x, call.get("alpha", 0.01))


@op("PRelu", since=7)
def prelu(call: Call, x: Tensor, slope: Tensor) -> Tensor:
    """``x`` or ``slope * x``, the slope broadcast to the shape of ``x``."""
    return torch.where(x < 0, x * slope, x)


@op("Elu")
def elu(call: Call, x: Tensor) -> Tensor:
    """``x`` or ``alpha (exp(x) - 1)``."""
    return F.elu(x, call.get("alpha", 1.0))


@op("Celu")
def celu(call: Call, x: Tensor) -> Tensor:
    """``max(0, x) + min(0, alpha (exp(x / alpha) - 1))``."""
    return F.celu(x, call.get("alpha", 1.0))


@op("Selu")
def selu(call: Call, x: Tensor) -> Tensor:
    """``gamma x`` or ``gamma alpha (exp(x) - 1)``."""
    alpha, gamma = call.get("alpha", 1.67326319217681884765625), call.get("gamma", 1.05070102214813232421875)
    return gamma * F.elu(x, alpha)


@op("ThresholdedRelu")
def thresholded_relu(call: Call, x: Tensor) -> Tensor:
    """``x`` above ``alpha``, else 0."""
    return torch.where(x > call.get("alpha", 1.0), x, torch.zeros_like(x))


@op("HardSigmoid")
def hard_sigmoid(call: Call, x: Tensor) -> Tensor:
    """``alpha x + beta`` between 0 and 1."""
    return torch.clamp(call.get("alpha", 0.2) * x + call.get("beta", 0.5), 0.0, 1.0)


@op("Gelu", since=20)
def gelu(call: Call, x: Tensor) -> Tensor:
    """``x Phi(x)``, or its approximation by tanh."""
    return F.gelu(x, approximate=call.get("approximate", "none"))


@op("Swish", since=24)
def swish(call: Call, x: Tensor) -> Tensor:
    """``x sigmoid(alpha x)``."""
    return x * torch.sigmoid(call.get("alpha", 1.0) * x)


@op("Dropout", since=7)
def dropout(
    call: Call, x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Nothing, as in inference."""
    if training is not None and bool(training):
        call.refuse("training_mode is set, whose numbers are random")
    return (x, torch.ones_like(x, dtype=torch.bool)) if call.wants(1) else (x,)
