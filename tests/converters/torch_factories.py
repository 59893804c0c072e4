"""Factories that the torch converter's tests name; imported only where torch is."""

from __future__ import annotations

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
