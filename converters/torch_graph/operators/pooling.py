"""Pooling."""

from __future__ import annotations

import torch
from graphprune.converters.torch_graph.call import Call
from graphprune.converters.torch_graph.operators.window import Window
from graphprune.converters.torch_graph.registry import op
from torch import Tensor
from torch.nn import functional as F

_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_MEAN = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _window(call: Call, x: Tensor) -> Window:
    rank = x.ndim - 2
    if rank not in _MAX:
        call.refuse(f"it has {rank} spatial axes")
    window = Window.of(call, x.shape[2:], call.get("kernel_shape"))
    return window.reaching_over(x.shape[2:]) if call.get("ceil_mode", 0) else window


@op("MaxPool")
def max_pool(call: Call, x: Tensor) -> Tensor:
    """Largest number of each window."""
    if call.wants(1):
        call.refuse("its second output, the positions, is read")
    if not x.is_floating_point():
        call.refuse(f"its input has the type {x.dtype}")
    window = _window(call, x)
    halves = all(2 * b <= k for b, k in zip(window.before, window.kernel, strict=True))
    if not window.is_symmetric or not halves:
        x, window = window.padded(x, -torch.inf)
    return _MAX[x.ndim - 2](x, window.kernel, window.strides, window.before, window.dilations)


@op("AveragePool")
def average_pool(call: Call, x: Tensor) -> Tensor:
    """Mean of each window; margins count only for ``count_include_pad``."""
    window = _window(call, x)
    rank = x.ndim - 2
    is_plain = not call.get("ceil_mode", 0) and all(d == 1 for d in window.dilations)
    halves = all(2 * b <= k for b, k in zip(window.before, window.kernel, strict=True))
    counts_margin = bool(call.get("count_include_pad", 0))
    if is_plain and window.is_symmetric and halves:
        return _MEAN[rank](x, window.kernel, window.strides, window.before, False, counts_margin)
    ones = torch.ones_like(x[:1, :1])
    if counts_margin:
        given = Window.of(call, x.shape[2:], call.get("kernel_shape"))
        counted, _ = given.padded(ones, 1.0)
        over = tuple(w - g for w, g in zip(window.after, given.after, strict=True))
        counted = F.pad(counted, [n for i in reversed(range(rank)) for n in (0, over[i])])
    else:
        counted, _ = window.padded(ones, 0.0)
    margined, _ = window.padded(x, 0.0)
    return _sums(margined, window) / _sums(counted, window)


def _sums(x: Tensor, window: Window) -> Tensor:
    """Sum of each window of a tensor that has its margins."""
    for axis, (k, s, d) in enumerate(zip(window.kernel, window.strides, window.dilations, strict=True), 2):
        count = (x.shape[axis] - (k - 1) * d - 1) // s + 1
        parts = [x.narrow(axis, i * d, (count - 1) * s + 1) for i in range(k)]
        picks = tuple(slice(None, None, s) if a == axis else slice(None) for a in range(x.ndim))
        x = sum(part[picks] for part in parts[1:]) + parts[0][picks] if k > 1 else parts[0][picks]
    return x


@op("GlobalAveragePool")
def global_average_pool(call: Call, x: Tensor) -> Tensor:
    """Mean of each channel."""
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


@op("GlobalMaxPool")
def global_max_pool(call: Call, x: Tensor) -> Tensor:
    """Largest number of each channel."""
    return x.amax(tuple(range(2, x.ndim)), keepdim=True)


@op("LpPool")
def lp_pool(call: Call, x: Tensor) -> Tensor:
    """Norm of each window."""
    p = call.get("p", 2)
    window = _window(call, x)
    margined, _ = window.padded(x.abs().pow(p), 0.0)
    return _sums(margined, window).pow(1.0 / p)
