"""Convolutions."""

from __future__ import annotations

from graphprune.converters.torch_graph.call import Call
from graphprune.converters.torch_graph.operators.window import Window
from graphprune.converters.torch_graph.registry import op
from torch import Tensor
from torch.nn import functional as F

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@op("Conv")
def conv(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Cross-correlation, with groups, strides and dilations."""
    rank = x.ndim - 2
    if rank not in _CONV:
        call.refuse(f"it has {rank} spatial axes")
    window = Window.of(call, x.shape[2:], weight.shape[2:])
    if not window.is_symmetric:
        x, window = window.padded(x, 0.0)
    return _CONV[rank](x, weight, bias, window.strides, window.before, window.dilations, call.get("group", 1))


@op("ConvTranspose")
def conv_transpose(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The adjoint of a convolution."""
    rank = x.ndim - 2
    if rank not in _TRANSPOSE:
        call.refuse(f"it has {rank} spatial axes")
    strides = call.get("strides") or [1] * rank
    dilations = call.get("dilations") or [1] * rank
    extra = call.get("output_padding") or [0] * rank
    full = [
        s * (n - 1) + (k - 1) * d + 1
        for s, n, k, d in zip(strides, x.shape[2:], weight.shape[2:], dilations, strict=True)
    ]
    before, sizes = _placed(call, full, list(x.shape[2:]), strides, extra)
    group = call.get("group", 1)
    # torch insists on an output padding below the stride: what lies beyond the full output is zeros and bias.
    made = _TRANSPOSE[rank](x, weight, None, strides, 0, 0, group, dilations)
    beyond = [max(b + n - f, 0) for b, n, f in zip(before, sizes, full, strict=True)]
    if any(beyond):
        made = F.pad(made, [p for n in reversed(beyond) for p in (0, n)])
    for axis, (b, n) in enumerate(zip(before, sizes, strict=True), 2):
        if b or made.shape[axis] != n:
            made = made.narrow(axis, b, n)
    return made if bias is None else made + bias.reshape(-1, *[1] * rank)


def _placed(
    call: Call, full: list[int], sizes: list[int], strides: list[int], extra: list[int]
) -> tuple[list[int], list[int]]:
    """Where the output starts in the full one, and how large it is."""
    rank = len(full)
    auto, wanted = call.get("auto_pad", "NOTSET"), call.get("output_shape")
    if auto in ("SAME_UPPER", "SAME_LOWER") and not wanted:
        wanted = [n * s for n, s in zip(sizes, strides, strict=True)]
    if not wanted:
        pads = [0] * (2 * rank) if auto == "VALID" else call.get("pads") or [0] * (2 * rank)
        return pads[:rank], [full[i] + extra[i] - pads[i] - pads[rank + i] for i in range(rank)]
    total = [f + e - w for f, e, w in zip(full, extra, wanted[-rank:], strict=True)]
    if min(total) < 0:
        call.refuse("its windows do not reach the asked output, which runtimes read in different ways")
    # The odd one goes to the end for SAME_UPPER, else to the beginning.
    before = [t // 2 if auto == "SAME_UPPER" else t - t // 2 for t in total]
    return before, list(wanted[-rank:])


@op("Col2Im", since=18)
def col2im(call: Call, x: Tensor, image: Tensor, block: Tensor) -> Tensor:
    """Sums overlapping blocks into an image."""
    sizes, kernel = [int(n) for n in image], [int(n) for n in block]
    if len(sizes) != 2:
        call.refuse(f"it has {len(sizes)} spatial axes")
    pads = call.get("pads") or [0] * 4
    dilations, strides = call.get("dilations") or [1, 1], call.get("strides") or [1, 1]
    padded = [sizes[i] + pads[i] + pads[2 + i] for i in range(2)]
    made = F.fold(x, padded, kernel, dilations, 0, strides)
    return made[:, :, pads[0] : pads[0] + sizes[0], pads[1] : pads[1] + sizes[1]]
