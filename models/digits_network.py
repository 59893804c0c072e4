"""The demo's network: a residual CNN for 8x8 grey images, 64 thousand parameters.

::

    images [N,1,8,8]
      stem      conv3x3(1 -> 24), bn, relu
      stage 1   x + conv3x3(24) bn relu conv3x3(24) bn                      8x8
      stage 2   conv1x1/2(24 -> 40) bn  +  conv3x3/2(40) bn relu conv3x3(40) bn   4x4
      stage 3   x + conv3x3(40) bn relu conv3x3(40) bn                      4x4
      head      global mean pool, linear(40 -> 10)                          logits [N,10]

It is a little wider than the task needs, and it has what makes pruning hard: residual adds that
tie channels over several layers, and a strided shortcut.

This file needs torch, so nothing imports it but the recipe in :mod:`graphprune.models.digits`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, WIDE, CLASSES = 24, 40, 10
TARGETED, DROP = 0.6, 0.7


def _conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> Any:
    """A convolution without bias and its batch normalisation; same padding."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def _masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """Channels of ``x [N, C, H, W]`` times ``mask [C]``; ``x`` itself when there is no mask."""
    return x if mask is None else x * mask[None, :, None, None]


class Residual(nn.Module):  # type: ignore[misc]  # torch is absent where the types are checked
    """``relu(shortcut(x) + conv(relu(conv(x))))`` (He et al. 2016, arXiv:1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = _conv_bn(inputs, outputs, 3, stride)
        self.conv2 = _conv_bn(outputs, outputs, 3)
        plain = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if plain else _conv_bn(inputs, outputs, 1, stride)

    def forward(self, x: Tensor, inner: Tensor | None = None, outer: Tensor | None = None) -> Tensor:
        """Maps ``[N, inputs, H, W]`` to ``[N, outputs, H/stride, W/stride]``, masked."""
        branch = self.conv2(_masked(F.relu(self.conv1(x)), inner))
        return _masked(F.relu(self.shortcut(x) + branch), outer)


class DigitsNet(nn.Module):  # type: ignore[misc]
    """Logits ``[N, 10]`` of images ``[N, 1, 8, 8]`` with values in 0..1."""

    def __init__(self) -> None:
        super().__init__()
        self.dropping = False
        self.stem = _conv_bn(1, WIDTH, 3)
        self.stage1 = Residual(WIDTH, WIDTH)
        self.stage2 = Residual(WIDTH, WIDE, stride=2)
        self.stage3 = Residual(WIDE, WIDE)
        self.head = nn.Linear(WIDE, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Maps ``[N, 1, 8, 8]`` to logits ``[N, 10]``."""
        narrow, inner1, inner2, wide, inner3 = self._dropped() if self.dropping else [None] * 5
        x = _masked(F.relu(self.stem(images)), narrow)
        x = self.stage1(x, inner1, narrow)
        x = self.stage2(x, inner2, wide)
        x = self.stage3(x, inner3, wide)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))

    def _writers(self) -> list[list[Any]]:
        """The conv-bn pairs that write each of the five sets of coupled channels."""
        return [
            [self.stem, self.stage1.conv2],
            [self.stage1.conv1],
            [self.stage2.conv1],
            [self.stage2.shortcut, self.stage2.conv2, self.stage3.conv2],
            [self.stage3.conv1],
        ]

    def _dropped(self) -> list[Tensor]:
        """One 0/1 mask per set: of the smallest ``TARGETED`` share, each goes with chance ``DROP``.

        Targeted dropout (Gomez et al. 2019, arXiv:1905.13678) on whole coupled channels, measured
        by their folded weights.
        """
        masks = []
        for pairs in self._writers():
            with torch.no_grad():
                sizes = sum(
                    conv.weight.abs().sum((1, 2, 3)) * (bn.weight.abs() * bn.running_var.rsqrt())
                    for conv, bn in pairs
                )
            targets = sizes.argsort()[: int(len(sizes) * TARGETED)]
            mask = torch.ones(len(sizes))
            mask[targets] = (torch.rand(len(targets)) >= DROP).float()
            masks.append(mask)
        return masks

    def width_penalty(self) -> Tensor:
        """Group lasso over the scales and shifts that write one channel (a scalar).

        ``sum_c sqrt(sum_l gamma_lc^2 + beta_lc^2)``, where ``l`` runs over all the layers that add
        into the same residual channel (network slimming, Liu et al. 2017, arXiv:1708.06519, in
        grouped form).
        """
        total = torch.zeros(())
        for pairs in self._writers():
            total = total + sum(bn.weight**2 + bn.bias**2 for _, bn in pairs).add(1e-12).sqrt().sum()
        return total
