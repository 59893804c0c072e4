"""A convolution's input as rows: the window around each output position.

Stride, dilation and padding are exact; positions may be sampled, since neighbouring windows overlap and
say much the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Window:
    """Geometry of a convolution (https://onnx.ai/onnx/operators/onnx__Conv.html).

    Attributes:
        kernel: sizes of the kernel.
        strides: per spatial axis.
        dilations: per spatial axis.
        pads: begins, then ends; None where ``auto_pad`` computes them from the input's size.
        auto_pad: SAME_UPPER, SAME_LOWER or anything else.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    auto_pad: str = "NOTSET"

    @classmethod
    def of(cls, node: ir.Node, kernel: Sequence[int]) -> Window:
        """The window of a Conv node."""
        rank = len(kernel)
        ints = {k: tuple(node.attributes[k].as_ints()) for k in _LISTS if k in node.attributes}
        auto = node.attributes["auto_pad"].as_string() if "auto_pad" in node.attributes else "NOTSET"
        return cls(
            tuple(kernel),
            ints.get("strides", (1,) * rank),
            ints.get("dilations", (1,) * rank),
            ints.get("pads", (0,) * (2 * rank)) if auto != "VALID" else (0,) * (2 * rank),
            auto,
        )

    def padding(self, sizes: Sequence[int]) -> list[tuple[int, int]]:
        """Zeros before and after each spatial axis."""
        rank = len(self.kernel)
        if self.auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
            return [(self.pads[i], self.pads[rank + i]) for i in range(rank)]
        found = []
        for n, k, s, d in zip(sizes, self.kernel, self.strides, self.dilations, strict=True):
            total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
            small, large = total // 2, total - total // 2
            found.append((small, large) if self.auto_pad == "SAME_UPPER" else (large, small))
        return found

    def rows(self, data: Array, groups: int, pick: npt.NDArray[np.int64] | None) -> Array:
        """Windows ``[groups, n, channels per group * prod(kernel)]`` of a batch.

        Args:
            data: the batch, ``[samples, channels, *sizes]``.
            groups: of the convolution.
            pick: ``[samples, k]`` flat output positions of each sample; None for all of them.
        """
        samples, channels = data.shape[:2]
        sizes = data.shape[2:]
        pads = self.padding(sizes)
        if all(k == 1 for k in self.kernel) and not any(map(any, pads)):
            return self._pointwise(data, groups, pick)
        padded = np.pad(data, [(0, 0), (0, 0), *pads]) if any(map(any, pads)) else data
        reach = tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))
        views = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, data.ndim)))
        steps = tuple(slice(None, None, s) for s in self.strides)
        inside = tuple(slice(None, None, d) for d in self.dilations)
        views = views[(slice(None), slice(None), *steps, *inside)]  # [samples, channels, *out, *kernel]
        out = views.shape[2 : 2 + len(sizes)]
        views = np.moveaxis(views, 1, 1 + len(out))  # [samples, *out, channels, *kernel]
        if pick is not None:
            at = np.unravel_index(pick, out)
            taken = views[(np.arange(samples)[:, None], *at)]
        else:
            taken = views
        flat = taken.reshape(-1, groups, channels // groups * prod(self.kernel))
        return np.ascontiguousarray(flat.transpose(1, 0, 2))

    def rows_at(
        self, data: Array, groups: int, sample: npt.NDArray[np.int64], position: npt.NDArray[np.int64]
    ) -> Array:
        """Windows ``[groups, n, channels per group * prod(kernel)]`` at single output positions.

        Args:
            data: the batch, ``[samples, channels, *sizes]``.
            groups: of the convolution.
            sample: ``[n]``.
            position: ``[n]`` flat output position in that sample.
        """
        sizes = data.shape[2:]
        flat = self.sources(position, sizes)  # [n, kernel]
        array = data.reshape(*data.shape[:2], -1)
        taken = array[sample[:, None], :, np.maximum(flat, 0)]  # [n, kernel, channels]
        taken[flat < 0] = 0.0
        turned = taken.transpose(0, 2, 1).reshape(len(sample), groups, -1)
        return np.ascontiguousarray(turned.transpose(1, 0, 2))

    def out_sizes(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Spatial sizes of the output for those of the input."""
        pads = self.padding(sizes)
        geometry = zip(sizes, pads, self.kernel, self.strides, self.dilations, strict=True)
        return tuple((n + sum(p) - (k - 1) * d - 1) // s + 1 for n, p, k, s, d in geometry)

    def sources(self, position: npt.NDArray[np.int64], sizes: Sequence[int]) -> npt.NDArray[np.int64]:
        """Flat input positions ``[..., prod(kernel)]`` that output positions read; -1 for padding.

        Args:
            position: ``[...]`` flat output positions.
            sizes: spatial sizes of the input.
        """
        at = np.unravel_index(position, self.out_sizes(sizes))
        taps = np.meshgrid(*(np.arange(k) for k in self.kernel), indexing="ij")
        flat = np.zeros((*np.shape(position), prod(self.kernel)), np.int64)
        inside = np.ones(flat.shape, bool)
        for x, tap, n, (before, _), s, d in zip(
            at, taps, sizes, self.padding(sizes), self.strides, self.dilations, strict=True
        ):
            where = np.asarray(x)[..., None] * s - before + tap.ravel() * d
            inside &= (where >= 0) & (where < n)
            flat = flat * n + where
        return np.where(inside, flat, -1)

    def _pointwise(self, data: Array, groups: int, pick: npt.NDArray[np.int64] | None) -> Array:
        samples, channels = data.shape[:2]
        strided = data[(slice(None), slice(None), *(slice(None, None, s) for s in self.strides))]
        flat = strided.reshape(samples, channels, -1)
        if pick is not None:
            flat = np.take_along_axis(flat, pick[:, None, :], axis=2)
        rows = flat.transpose(0, 2, 1).reshape(-1, groups, channels // groups)
        return np.ascontiguousarray(rows.transpose(1, 0, 2))


_LISTS = ("strides", "dilations", "pads")
