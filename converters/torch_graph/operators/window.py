"""Where the windows of a convolution or a pooling lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphprune.converters.torch_graph.call import Call
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Window:
    """Along each spatial axis.

    Attributes:
        kernel: sizes.
        strides: steps between windows.
        dilations: steps between the places of a window.
        before: margin before the input.
        after: margin behind it.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @classmethod
    def of(cls, call: Call, sizes: Sequence[int], kernel: Sequence[int]) -> Window:
        """From a node's attributes, ``auto_pad`` included, for an input of these sizes."""
        rank = len(kernel)
        strides = tuple(call.get("strides") or [1] * rank)
        dilations = tuple(call.get("dilations") or [1] * rank)
        auto = call.get("auto_pad", "NOTSET")
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            before, after = [], []
            for n, k, s, d in zip(sizes, kernel, strides, dilations, strict=True):
                total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
                less = total // 2
                before.append(less if auto == "SAME_UPPER" else total - less)
                after.append(total - before[-1])
        else:
            pads = [0] * (2 * rank) if auto == "VALID" else call.get("pads") or [0] * (2 * rank)
            before, after = list(pads[:rank]), list(pads[rank:])
        return cls(tuple(kernel), strides, dilations, tuple(before), tuple(after))

    @property
    def is_symmetric(self) -> bool:
        """Is the margin the same on both sides?"""
        return self.before == self.after

    @property
    def reach(self) -> tuple[int, ...]:
        """Places from the first of a window to the one behind its last."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    def padded(self, x: Tensor, value: float) -> tuple[Tensor, Window]:
        """``x`` with its margins, and a window that needs none."""
        rank = len(self.kernel)
        both = [n for i in reversed(range(rank)) for n in (self.before[i], self.after[i])]
        none = (0,) * rank
        return F.pad(x, both, value=value), replace(self, before=none, after=none)

    def reaching_over(self, sizes: Sequence[int]) -> Window:
        """For ``ceil_mode``: a margin behind the input so that the last, partial window counts.

        A window that would start behind the input and its margin before does not.
        """
        after = []
        for n, s, r, b, a in zip(sizes, self.strides, self.reach, self.before, self.after, strict=True):
            steps = -(-(n + b + a - r) // s)
            if steps * s >= n + b:
                steps -= 1
            after.append(max(steps * s + r - n - b, a))
        return replace(self, after=tuple(after))
