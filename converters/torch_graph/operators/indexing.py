"""Gathering, scattering and sorting."""

from __future__ import annotations

import torch
from graphprune.converters.torch_graph.call import Call, ints, on_one_device
from graphprune.converters.torch_graph.registry import op
from torch import Tensor
from torch.nn import functional as F

_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _from_front(indices: Tensor, size: int) -> Tensor:
    """Negative positions counted from the beginning."""
    return torch.where(indices < 0, indices + size, indices).long()


@op("Gather")
def gather(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    """Slices along an axis."""
    axis = call.get("axis", 0) % x.ndim
    if indices.ndim == 0 and indices.device.type == "cpu":
        return x.select(axis, int(indices))
    at = _from_front(indices, x.shape[axis]).to(x.device)
    if axis == 0 and x.ndim == 2 and x.is_floating_point():
        return F.embedding(at, x)
    found = x.index_select(axis, at.reshape(-1))
    return found.reshape(*x.shape[:axis], *at.shape, *x.shape[axis + 1 :])


@op("GatherElements", since=11)
def gather_elements(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    """One number per index."""
    x, indices = on_one_device((x, indices))
    axis = call.get("axis", 0) % x.ndim
    return x.gather(axis, _from_front(indices, x.shape[axis]))


@op("GatherND", since=11)
def gather_nd(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    """Slices at tuples of positions."""
    x, indices = on_one_device((x, indices))
    batch = call.get("batch_dims", 0)
    picks = [_from_front(indices[..., i], x.shape[batch + i]) for i in range(indices.shape[-1])]
    rank = picks[0].ndim
    for axis in reversed(range(batch)):
        where = [1] * rank
        where[axis] = -1
        picks.insert(0, torch.arange(x.shape[axis], device=x.device).reshape(where))
    return x[tuple(picks)]


@op("ScatterElements", "Scatter")
def scatter_elements(call: Call, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """One number per index, put or combined."""
    x, indices, updates = on_one_device((x, indices, updates))
    axis = call.get("axis", 0) % x.ndim
    at = _from_front(indices, x.shape[axis])
    reduction = call.get("reduction", "none")
    if reduction == "none":
        return x.scatter(axis, at, updates)
    if reduction == "add":
        return x.scatter_add(axis, at, updates)
    return x.scatter_reduce(axis, at, updates, _REDUCTIONS[reduction])


@op("ScatterND", since=11)
def scatter_nd(call: Call, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """Slices at tuples of positions, put or combined."""
    x, indices, updates = on_one_device((x, indices, updates))
    picks = tuple(_from_front(indices[..., i], x.shape[i]) for i in range(indices.shape[-1]))
    reduction = call.get("reduction", "none")
    if reduction == "none":
        return x.index_put(picks, updates)
    if reduction == "add":
        return x.index_put(picks, updates, accumulate=True)
    depth = len(picks)
    flat = torch.zeros((), dtype=torch.int64, device=x.device)
    for i, pick in enumerate(picks):
        flat = flat * x.shape[i] + pick
    rows = x.flatten(0, depth - 1)
    new = updates.reshape(-1, *x.shape[depth:])
    at = flat.reshape(-1, *[1] * (rows.ndim - 1)).expand(new.shape)
    return rows.scatter_reduce(0, at, new, _REDUCTIONS[reduction]).reshape(x.shape)


@op("OneHot", since=9)
def one_hot(call: Call, indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    """Rows with one number that differs."""
    indices, values = on_one_device((indices, values))
    size, axis = ints(depth)[0], call.get("axis", -1)
    at = indices.long()
    at = torch.where(at < 0, at + size, at).unsqueeze(axis)
    shape = [1] * at.ndim
    shape[axis] = size
    hit = at == torch.arange(size, device=at.device).reshape(shape)
    return torch.where(hit, values[1], values[0])


@op("TopK", since=10)
def top_k(call: Call, x: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """The largest or smallest numbers and their positions, equal ones in the order they have."""
    axis, count = call.get("axis", -1), ints(k)[0]
    largest = bool(call.get("largest", 1))
    _, order = torch.sort(x.detach(), dim=axis, descending=largest, stable=True)
    at = order.narrow(axis, 0, count)
    return x.gather(axis, at), at


@op("NonZero", since=9)
def nonzero(call: Call, x: Tensor) -> Tensor:
    """Positions of what is not zero, one row per axis."""
    return torch.nonzero(x).T


@op("Compress", since=9)
def compress(call: Call, x: Tensor, condition: Tensor) -> Tensor:
    """Slices where a condition holds."""
    axis = call.get("axis")
    x, axis = (x.reshape(-1), 0) if axis is None else (x, axis)
    return x.index_select(axis, torch.nonzero(condition)[:, 0].to(x.device))


@op("ReverseSequence", since=10)
def reverse_sequence(call: Call, x: Tensor, lengths: Tensor) -> Tensor:
    """The first so many steps of each sample backwards."""
    batch, time = call.get("batch_axis", 1), call.get("time_axis", 0)
    steps = torch.arange(x.shape[time], device=x.device)
    lengths = lengths.to(x.device)[:, None]
    at = torch.where(steps < lengths, lengths - 1 - steps, steps)  # [batch, time]
    moved = x.movedim((batch, time), (0, 1))
    at = at.reshape(*at.shape, *[1] * (moved.ndim - 2)).expand(moved.shape)
    return moved.gather(1, at).movedim((0, 1), (batch, time))


@op("GridSample", since=16)
def grid_sample(call: Call, x: Tensor, grid: Tensor) -> Tensor:
    """Values between pixels."""
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(
        call.get("mode", "linear"), call.get("mode", "linear")
    )
    margin = call.get("padding_mode", "zeros")
    return F.grid_sample(x, grid, mode, margin, align_corners=bool(call.get("align_corners", 0)))
