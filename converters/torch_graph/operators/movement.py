"""Operators that move numbers and compute none."""

from __future__ import annotations

from math import prod

import torch
from graphprune.converters.torch_graph.call import Call, axes_of, ints, on_one_device
from graphprune.converters.torch_graph.registry import op
from torch import Tensor
from torch.nn import functional as F


@op("Reshape", since=5)
def reshape(call: Call, x: Tensor, shape: Tensor) -> Tensor:
    """Other sizes; 0 copies one, -1 is what is left."""
    sizes = ints(shape)
    if not call.get("allowzero", 0):
        sizes = [x.shape[i] if n == 0 else n for i, n in enumerate(sizes)]
    return x.reshape(sizes)


@op("Flatten")
def flatten(call: Call, x: Tensor) -> Tensor:
    """A matrix, cut before an axis."""
    axis = call.get("axis", 1)
    axis += x.ndim if axis < 0 else 0
    return x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))


@op("Transpose")
def transpose(call: Call, x: Tensor) -> Tensor:
    """Axes in another order; by default reversed."""
    return x.permute(call.get("perm") or tuple(range(x.ndim))[::-1])


@op("Squeeze")
def squeeze(call: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Without axes of size 1."""
    gone = axes_of(call, axes, x.ndim)
    if axes is None and call.get("axes") is None:
        return x.squeeze()
    for axis in gone:
        if x.shape[axis] != 1:
            call.refuse(f"axis {axis} to squeeze has size {x.shape[axis]}")
    return x.squeeze(tuple(gone)) if gone else x


@op("Unsqueeze")
def unsqueeze(call: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """With further axes of size 1."""
    count = len(ints(axes)) if axes is not None else len(call.get("axes") or [])
    for axis in sorted(axes_of(call, axes, x.ndim + count)):
        x = x.unsqueeze(axis)
    return x


@op("Concat", since=4)
def concat(call: Call, *inputs: Tensor) -> Tensor:
    """Tensors one behind the other."""
    return torch.cat(tuple(on_one_device(inputs)), call.get("axis"))


@op("Split", since=2)
def split(call: Call, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    """Consecutive pieces; without sizes they are equal, but for the last."""
    axis = call.get("axis", 0)
    given = ints(sizes) if sizes is not None else call.get("split")
    if given is None:
        count = len(call.outputs)
        given = [-(-x.shape[axis] // count)] * count
        given[-1] = x.shape[axis] - sum(given[:-1])
    return tuple(torch.split(x, list(given), axis))


@op("Expand", since=8)
def expand(call: Call, x: Tensor, shape: Tensor) -> Tensor:
    """Broadcast to a shape, or to what both of them broadcast to."""
    return x.expand(torch.broadcast_shapes(x.shape, tuple(ints(shape))))


@op("Tile", since=6)
def tile(call: Call, x: Tensor, repeats: Tensor) -> Tensor:
    """Copies along each axis."""
    return x.repeat(ints(repeats))


@op("Slice")
def slices(
    call: Call,
    x: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    """Ranges of some axes; negative steps go backwards."""
    first = ints(starts) if starts is not None else call.get("starts")
    last = ints(ends) if ends is not None else call.get("ends")
    along = axes_of(call, axes, x.ndim) or list(range(len(first)))
    by = ints(steps) if steps is not None else [1] * len(first)
    picks = [slice(None)] * x.ndim
    for axis, start, end, step in zip(along, first, last, by, strict=True):
        found = range(*slice(start, end, step).indices(x.shape[axis]))
        if step < 0:
            x, found = x.flip(axis), _flipped(found, x.shape[axis])
        picks[axis] = slice(found.start, max(found.stop, found.start), found.step)
    return x[tuple(picks)]


def _flipped(found: range, size: int) -> range:
    """The same positions, counted from the end of the axis."""
    return range(size - 1 - found.start, size - 1 - found.stop, -found.step)


@op("Pad", since=2)
def pad(
    call: Call,
    x: Tensor,
    pads: Tensor | None = None,
    value: Tensor | None = None,
    axes: Tensor | None = None,
) -> Tensor:
    """Margins of a number, of copies or of mirror images; negative ones cut."""
    given = ints(pads) if pads is not None else list(call.get("pads"))
    along = [a % x.ndim for a in ints(axes)] if axes is not None else list(range(x.ndim))
    before, after = [0] * x.ndim, [0] * x.ndim
    for i, axis in enumerate(along):
        before[axis], after[axis] = given[i], given[len(along) + i]
    mode = call.get("mode", "constant")
    if mode == "constant":
        number = value.item() if value is not None else call.get("value", 0.0)
        both = [n for axis in reversed(range(x.ndim)) for n in (before[axis], after[axis])]
        return F.pad(x, both, value=number) if any(both) else x
    for axis in range(x.ndim):
        if before[axis] or after[axis]:
            at = _margin(mode, x.shape[axis], before[axis], after[axis], call)
            x = x.index_select(axis, at.to(x.device))
    return x


def _margin(mode: str, size: int, before: int, after: int, call: Call) -> Tensor:
    """Which position stands at each place of a padded axis."""
    at = torch.arange(-before, size + after)
    if mode == "edge":
        return at.clamp(0, size - 1)
    if mode == "wrap":
        return at % size
    if mode != "reflect":
        call.refuse(f"its mode is '{mode}'")
    if size == 1:
        return torch.zeros_like(at)
    at = at.abs() % (2 * (size - 1))
    return torch.where(at >= size, 2 * (size - 1) - at, at)


@op("Trilu", since=14)
def trilu(call: Call, x: Tensor, k: Tensor | None = None) -> Tensor:
    """The upper or lower triangle of matrices."""
    diagonal = 0 if k is None else int(k)
    return torch.triu(x, diagonal) if call.get("upper", 1) else torch.tril(x, diagonal)


@op("DepthToSpace")
def depth_to_space(call: Call, x: Tensor) -> Tensor:
    """Channels into blocks of pixels."""
    b = call.get("blocksize")
    n, c, h, w = x.shape
    if call.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, b)
    x = x.reshape(n, b, b, c // (b * b), h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n, c // (b * b), h * b, w * b)


@op("SpaceToDepth")
def space_to_depth(call: Call, x: Tensor) -> Tensor:
    """Blocks of pixels into channels."""
    b = call.get("blocksize")
    n, c, h, w = x.shape
    x = x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(n, c * b * b, h // b, w // b)
