"""Normalisation."""

from __future__ import annotations

import torch
from graphprune.converters.torch_graph.call import Call
from graphprune.converters.torch_graph.registry import op
from torch import Tensor
from torch.nn import functional as F


@op("BatchNormalization", since=7)
def batch_norm(call: Call, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    """With running statistics, as in inference."""
    if call.get("training_mode", 0):
        call.refuse("training_mode is set: it would normalise by the batch")
    return F.batch_norm(x, mean, var, scale, bias, False, 0.0, call.get("epsilon", 1e-5))


@op("InstanceNormalization", since=6)
def instance_norm(call: Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Each channel of each sample by its own mean and variance."""
    return F.group_norm(x, x.shape[1], scale, bias, call.get("epsilon", 1e-5))


@op("GroupNormalization", since=21)
def group_norm(call: Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Groups of channels by their mean and variance."""
    return F.group_norm(x, call.get("num_groups"), scale, bias, call.get("epsilon", 1e-5))


@op("GroupNormalization", since=18)
def group_norm_by_group(call: Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """The same, with one scale and bias per group."""
    groups = call.get("num_groups")
    each = x.shape[1] // groups
    scale, bias = scale.repeat_interleave(each), bias.repeat_interleave(each)
    return F.group_norm(x, groups, scale, bias, call.get("epsilon", 1e-5))


@op("LayerNormalization", since=17)
def layer_norm(call: Call, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> tuple[Tensor, ...]:
    """Over all axes from one on."""
    axis = call.get("axis", -1) % x.ndim
    shape, epsilon = x.shape[axis:], call.get("epsilon", 1e-5)
    if scale.shape == shape and (bias is None or bias.shape == shape):
        made = F.layer_norm(x, shape, scale, bias, epsilon)
    else:
        made = F.layer_norm(x, shape, None, None, epsilon) * scale
        made = made if bias is None else made + bias
    if not call.wants(1) and not call.wants(2):
        return (made,)
    axes = list(range(axis, x.ndim))
    mean = x.mean(axes, keepdim=True)
    inverse = torch.rsqrt((x - mean).square().mean(axes, keepdim=True) + epsilon)
    return made, mean, inverse


@op("RMSNormalization", since=23)
def rms_norm(call: Call, x: Tensor, scale: Tensor) -> Tensor:
    """By the root of the mean square."""
    axis = call.get("axis", -1) % x.ndim
    square = x.square().mean(list(range(axis, x.ndim)), keepdim=True)
    return x * torch.rsqrt(square + call.get("epsilon", 1e-5)) * scale


@op("LRN")
def local_response_norm(call: Call, x: Tensor) -> Tensor:
    """By the sum of squares of neighbouring channels."""
    size = call.get("size")
    if size % 2 == 0:
        call.refuse(f"its size {size} is even, which runtimes read in different ways")
    square = F.pad(x.square(), [0, 0] * (x.ndim - 2) + [size // 2, size // 2])
    around = square.unfold(1, size, 1).sum(-1)
    scale = call.get("bias", 1.0) + call.get("alpha", 1e-4) / size * around
    return x / scale.pow(call.get("beta", 0.75))


@op("LpNormalization")
def lp_norm(call: Call, x: Tensor) -> Tensor:
    """Along one axis."""
    p, axis = call.get("p", 2), call.get("axis", -1)
    norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(x), x / norm)


@op("MeanVarianceNormalization", since=9)
def mean_variance_norm(call: Call, x: Tensor) -> Tensor:
    """Mean 0 and variance 1 over some axes."""
    axes = call.get("axes") or [0, 2, 3]
    centred = x - x.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)
