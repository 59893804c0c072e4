"""Factories that the torch converter's tests name; imported only where torch is."""

from __future__ import annotations

import numpy as np
import same_network
import torch
from torch import nn


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5)
        )
        self.head = nn.Linear(4, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(images).mean((2, 3)))


def with_inputs() -> tuple[nn.Module, tuple[torch.Tensor]]:
    return Small(), (torch.randn(1, 3, 8, 8),)


def bare() -> nn.Module:
    return Small()


def with_attribute() -> nn.Module:
    module = Small()
    module.example_inputs = torch.randn(2, 3, 8, 8)
    return module


class Tokens(nn.Module):
    """Two inputs, one given by keyword over a gap; two outputs in a mapping."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(11, 6)
        self.head = nn.Linear(6, 4)

    def forward(
        self,
        ids: torch.Tensor,
        offset: float | None = None,
        mask: torch.Tensor | None = None,
        *,
        scale: float = 2.0,
    ) -> dict[str, torch.Tensor]:
        hidden = self.table(ids) * scale
        if mask is not None:
            hidden = hidden * mask[..., None]
        if offset is not None:
            hidden = hidden + offset
        return {"logits": self.head(hidden), "pooled": hidden.sum(1)}


def tokens() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    ids = torch.arange(14).reshape(2, 7) % 11
    return Tokens(), {"ids": ids, "mask": torch.ones(2, 7)}


class FrozenBatch(nn.Module):
    """Correct in torch at any batch; a tracer writes the batch it saw as a number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / float(x.shape[0])


def frozen_batch() -> tuple[nn.Module, torch.Tensor]:
    return FrozenBatch(), torch.ones(2, 3)


def raises() -> nn.Module:
    message = "no checkpoint here\nsecond line"
    raise FileNotFoundError(message)


def not_a_module() -> dict[str, int]:
    return {}


class Sorts(nn.Module):
    """Needs an operator that neither exporter has."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(x).real


def cannot_export() -> tuple[nn.Module, torch.Tensor]:
    return Sorts(), torch.randn(2, 3, 3)


def linear(weight: np.ndarray, bias: np.ndarray) -> nn.Linear:
    layer = nn.Linear(*weight.shape)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight.T))
        layer.bias.copy_(torch.from_numpy(bias))
    return layer


def same_dense() -> tuple[nn.Module, torch.Tensor]:
    a, b, c = (linear(*layer) for layer in same_network.dense_layers())
    return nn.Sequential(a, nn.ReLU(), b, nn.ReLU(), c), torch.from_numpy(same_network.rows())


class SameImage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        convolutions, head = same_network.image_layers()
        self.layers = nn.ModuleList(self.layer(c) for c in convolutions)
        self.head = linear(*head)

    @staticmethod
    def layer(numbers: same_network.Convolution) -> nn.Sequential:
        size, before = numbers.kernel.shape[:2]
        conv = nn.Conv2d(before, size, 3, padding=1, bias=False)
        norm = nn.BatchNorm2d(size, eps=same_network.EPSILON)
        with torch.no_grad():
            for parameter, array in (
                (conv.weight, numbers.kernel),
                (norm.weight, numbers.gamma),
                (norm.bias, numbers.beta),
                (norm.running_mean, numbers.mean),
                (norm.running_var, numbers.variance),
            ):
                parameter.copy_(torch.from_numpy(array))
        return nn.Sequential(conv, norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b, c, d = self.layers
        stem = a(x).relu()
        h = nn.functional.max_pool2d((stem + c(b(stem).relu())).relu(), 2)
        return self.head(d(h).relu().mean((2, 3)))


def same_image() -> tuple[nn.Module, torch.Tensor]:
    return SameImage(), torch.from_numpy(same_network.images())


def half() -> tuple[nn.Module, torch.Tensor]:
    module, example = same_image()
    return module.half(), example.half()


def brain() -> tuple[nn.Module, torch.Tensor]:
    module, example = same_image()
    return module.bfloat16(), example.bfloat16()


class FrozenLength(nn.Module):
    """Correct in torch at any length; a tracer writes the length it saw as a number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(1) / float(x.shape[1])


def frozen_length() -> tuple[nn.Module, torch.Tensor]:
    return FrozenLength(), torch.ones(2, 5, 3)
