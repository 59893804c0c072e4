"""Resizing: along each axis a weighted sum of a few positions, as the ONNX page defines it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from graphprune.converters.torch_graph.call import Call, ints
from graphprune.converters.torch_graph.registry import op
from torch import Tensor

#: Before opset 11, which does not say it, onnxruntime rounds up where it shrinks and down where it enlarges.
_OLD_NEAREST = "before opset 11"


@op("Resize", since=11)
def resize(
    call: Call,
    x: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    """To other sizes, or by scales."""
    axes = [a % x.ndim for a in call.get("axes") or range(x.ndim)]
    if call.get("antialias", 0):
        call.refuse("antialias is set")
    if sizes is not None and sizes.numel():
        if call.get("keep_aspect_ratio_policy", "stretch") != "stretch":
            call.refuse("its keep_aspect_ratio_policy is not 'stretch'")
        wanted = ints(sizes)
        factors = [n / x.shape[a] for n, a in zip(wanted, axes, strict=True)]
    elif scales is not None and scales.numel():
        factors = [float(s) for s in scales.reshape(-1).tolist()]
        wanted = _sizes([x.shape[a] for a in axes], scales)
    else:
        call.refuse("it has neither scales nor sizes")
    return _resized(call, x, axes, wanted, factors)


@op("Upsample", since=9)
def upsample(call: Call, x: Tensor, scales: Tensor) -> Tensor:
    """By scales, as before opset 10."""
    return _old(call, x, scales)


@op("Resize", since=10)
def resize_by_scales(call: Call, x: Tensor, scales: Tensor) -> Tensor:
    """By scales, as in opset 10."""
    return _old(call, x, scales)


def _sizes(before: Sequence[int], scales: Tensor) -> list[int]:
    """Products in single precision, as runtimes make them: ten times 0.7 is seven."""
    products = torch.tensor(list(before), dtype=torch.float32) * scales.detach().reshape(-1).float().cpu()
    return ints(products.long())


def _old(call: Call, x: Tensor, scales: Tensor) -> Tensor:
    factors = [float(s) for s in scales.reshape(-1).tolist()]
    wanted = _sizes(x.shape, scales)
    attributes = {
        "mode": call.get("mode", "nearest"),
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": _OLD_NEAREST,
    }
    old = Call(call.op_type, call.name, call.opset, attributes, call.outputs, call.precision)
    return _resized(old, x, list(range(x.ndim)), wanted, factors)


def _resized(
    call: Call, x: Tensor, axes: Sequence[int], wanted: Sequence[int], factors: Sequence[float]
) -> Tensor:
    mode = call.get("mode", "nearest")
    for axis, n, factor in zip(axes, wanted, factors, strict=True):
        if n == x.shape[axis] and factor == 1.0:
            continue
        at = _coordinates(call, x.shape[axis], n, factor)
        if mode == "nearest":
            x = x.index_select(axis, _nearest(call, at, x.shape[axis], factor).to(x.device))
            continue
        positions, weights = _taps(call, mode, at, x.shape[axis])
        shape = [1] * x.ndim
        shape[axis] = n
        parts = [
            x.index_select(axis, p.clamp(0, x.shape[axis] - 1).to(x.device)) * w.to(x).reshape(shape)
            for p, w in zip(positions, weights, strict=True)
        ]
        x = sum(parts[1:], parts[0])
    return x


def _coordinates(call: Call, size: int, wanted: int, factor: float) -> Tensor:
    """Where each output position lies in the input."""
    mode = call.get("coordinate_transformation_mode", "half_pixel")
    out = torch.arange(wanted, dtype=torch.float64)
    if mode == "half_pixel":
        return (out + 0.5) / factor - 0.5
    if mode == "half_pixel_symmetric":
        centre = size / 2 * (1 - wanted / (factor * size))
        return centre + (out + 0.5) / factor - 0.5
    if mode == "pytorch_half_pixel":
        return (out + 0.5) / factor - 0.5 if wanted > 1 else torch.zeros_like(out)
    if mode == "align_corners":
        return out * (size - 1) / (wanted - 1) if wanted > 1 else torch.zeros_like(out)
    if mode != "asymmetric":
        call.refuse(f"its coordinate_transformation_mode is '{mode}'")
    return out / factor


def _nearest(call: Call, at: Tensor, size: int, factor: float) -> Tensor:
    mode = call.get("nearest_mode", "round_prefer_floor")
    # Coordinates such as 2.9999999 are meant to be whole: runtimes compute them in single precision.
    at = at.float()
    rounded = {
        "round_prefer_floor": lambda: torch.ceil(at - 0.5),
        "round_prefer_ceil": lambda: torch.floor(at + 0.5),
        "floor": lambda: torch.floor(at),
        "ceil": lambda: torch.ceil(at),
        _OLD_NEAREST: lambda: torch.ceil(at) if factor < 1 else torch.floor(at),
    }
    if mode not in rounded:
        call.refuse(f"its nearest_mode is '{mode}'")
    return rounded[mode]().long().clamp(0, size - 1)


def _taps(call: Call, mode: str, at: Tensor, size: int) -> tuple[list[Tensor], list[Tensor]]:
    """Positions and their weights."""
    if mode == "linear":
        at = at.clamp(0, size - 1)
        low = at.floor()
        share = at - low
        return [low.long(), low.long() + 1], [1 - share, share]
    if mode != "cubic":
        call.refuse(f"its mode is '{mode}'")
    a = call.get("cubic_coeff_a", -0.75)
    low = at.floor()
    t = at - low
    distances = [1 + t, t, 1 - t, 2 - t]
    weights = [_cubic(d, a) for d in distances]
    positions = [low.long() + i for i in (-1, 0, 1, 2)]
    if call.get("exclude_outside", 0):
        weights = [w * ((p >= 0) & (p < size)) for p, w in zip(positions, weights, strict=True)]
        total = sum(weights[1:], weights[0])
        weights = [w / total for w in weights]
    return positions, weights


def _cubic(d: Tensor, a: float) -> Tensor:
    """Keys' kernel (1981)."""
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d <= 1, near, far)
