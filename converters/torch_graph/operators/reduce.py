"""Sums, means and extremes over axes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from graphprune.converters.torch_graph.call import Call, axes_of, ints
from graphprune.converters.torch_graph.registry import op
from torch import Tensor
from torch.nn import functional as F


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


_REDUCE: dict[str, Callable[[Tensor, list[int], bool], Tensor]] = {
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keepdim=keep),
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keepdim=keep),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keepdim=keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keepdim=keep),
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keepdim=keep),
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keepdim=keep),
    "ReduceProd": _product,
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keepdim=keep, dtype=x.dtype),
    "ReduceSumSquare": lambda x, axes, keep: x.square().sum(axes, keepdim=keep),
}


def _reduction(function: Callable[[Tensor, list[int], bool], Tensor]) -> Callable[..., Tensor]:
    def reduced(call: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
        along = axes_of(call, axes, x.ndim)
        if not x.ndim or (not along and call.get("noop_with_empty_axes", 0)):
            # Nothing to sum over: each number alone still becomes a magnitude, a square, a logarithm.
            return function(x.unsqueeze(0), [0], False)
        return function(x, along or list(range(x.ndim)), bool(call.get("keepdims", 1)))

    return reduced


for _name, _function in _REDUCE.items():
    op(_name)(_reduction(_function))


@op("ArgMax", "ArgMin")
def arg_extreme(call: Call, x: Tensor) -> Tensor:
    """Position of the largest or smallest number; the first one, or the last."""
    axis, keep = call.get("axis", 0), bool(call.get("keepdims", 1))
    find = torch.argmax if call.op_type == "ArgMax" else torch.argmin
    x = x.detach()
    if call.get("select_last_index", 0):
        return x.shape[axis] - 1 - find(x.flip(axis), axis, keepdim=keep)
    return find(x, axis, keepdim=keep)


@op("CumSum", since=11)
def cumsum(call: Call, x: Tensor, axis: Tensor) -> Tensor:
    """Running sums, of what stands before for ``exclusive``."""
    along = ints(axis)[0]
    x = x.flip(along) if call.get("reverse", 0) else x
    found = x.cumsum(along, dtype=x.dtype)
    if call.get("exclusive", 0):
        # Subtracting would leave no number behind an infinite one.
        first = torch.zeros_like(x).sum(along, keepdim=True, dtype=x.dtype)
        found = torch.cat([first, found], along).narrow(along, 0, x.shape[along])
    return found.flip(along) if call.get("reverse", 0) else found


@op("Softmax", since=13)
def softmax(call: Call, x: Tensor) -> Tensor:
    """Along one axis."""
    return F.softmax(x, call.get("axis", -1))


@op("LogSoftmax", since=13)
def log_softmax(call: Call, x: Tensor) -> Tensor:
    """Along one axis."""
    return F.log_softmax(x, call.get("axis", -1))


@op("Softmax", "LogSoftmax")
def softmax_of_rows(call: Call, x: Tensor) -> Tensor:
    """Before opset 13, over all axes from one on."""
    function = F.softmax if call.op_type == "Softmax" else F.log_softmax
    axis = call.get("axis", 1) % x.ndim
    return function(x.flatten(axis), -1).reshape(x.shape)
