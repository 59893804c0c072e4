"""Small torch networks for carrying; every one has random weights and a batch of its inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional


def with_noise(module: nn.Module, seed: int = 0) -> nn.Module:
    """No two scales, biases or statistics are equal; the same for a seed, whatever was drawn before."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in dict.fromkeys([*module.parameters(), *module.buffers()]):
            if tensor.is_floating_point():
                spread = 0.5 * tensor.numel() ** (-1 / tensor.dim()) if tensor.dim() > 1 else 0.1
                start = torch.randn if tensor.dim() > 1 else torch.rand
                tensor.copy_(start(tensor.shape, generator=rng) * spread + (tensor.dim() == 1))
    return module.eval()


class Convolutions(nn.Module):
    """Plain, depthwise, grouped and transposed convolutions with norms, a residual sum and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.deep = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.grouped = nn.Conv2d(16, 24, 3, padding=1, groups=4)
        self.groups = nn.GroupNorm(4, 24)
        self.back = nn.Conv2d(24, 16, 1)
        self.up = nn.ConvTranspose2d(16, 12, 2, 2)
        self.slopes = nn.PReLU(12)
        self.head = nn.Linear(12, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.stem(image)).relu()
        x = x + self.back(self.groups(self.grouped(self.deep(x).relu())).relu())
        return self.head(self.slopes(self.up(x)).mean(dim=(2, 3)))


class Attention(nn.Module):
    """Queries share heads of keys; ``window`` and ``stride`` are as large as other numbers here."""

    def __init__(self, width: int, heads: int, kv_heads: int, size: int, *, explicit: bool) -> None:
        super().__init__()
        self.num_heads = heads
        self.num_kv_heads = kv_heads
        self.num_key_value_groups = heads // kv_heads
        self.head_dim = size
        self.window_size = heads
        self.scale = size**-0.5 if explicit else None
        self.q_proj = nn.Linear(width, heads * size)
        self.k_proj = nn.Linear(width, kv_heads * size)
        self.v_proj = nn.Linear(width, kv_heads * size)
        self.o_proj = nn.Linear(heads * size, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        if length % self.window_size:
            message = f"length {length} is no multiple of the window {self.window_size}"
            raise ValueError(message)
        q = self.q_proj(x).view(batch, length, self.num_heads, self.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(batch, length, self.num_kv_heads, self.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(batch, length, self.num_kv_heads, self.head_dim).transpose(1, 2)
        k, v = (t.repeat_interleave(self.num_key_value_groups, dim=1) for t in (k, v))
        out = functional.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, -1))


class Fused(nn.Module):
    """One projection for all three, a single size of a head, and the usual scale."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, width // heads
        self.attn_dim = width
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        out = functional.scaled_dot_product_attention(*qkv.unbind(0))
        return self.proj(out.transpose(1, 2).reshape(batch, length, self.attn_dim))


class Literal(nn.Module):
    """Sizes that only the code knows."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(32, 96)
        self.proj = nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, length, 3, 4, 8).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(mixed.transpose(1, 2).reshape(batch, length, 32))


class Transformer(nn.Module):
    """Blocks around an attention, with a head whose weight may be the embedding's."""

    def __init__(self, attention: Any, *, tied: bool = False, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, width)
        self.blocks = nn.ModuleList(Block(width, attention) for _ in range(2))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 20, bias=False)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Block(nn.Module):
    def __init__(self, width: int, attention: Any) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = attention()
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Encoder(nn.Module):
    """torch's own layer around ``nn.MultiheadAttention``."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu")
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(x))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.rnn = kind(16, 12, batch_first=True)
        self.head = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(self.first(x))[0])


def images() -> torch.Tensor:
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def sequence(width: int = 32) -> torch.Tensor:
    return torch.randn(2, 8, width, generator=torch.Generator().manual_seed(1))


def ids() -> torch.Tensor:
    return torch.randint(0, 20, (2, 8), generator=torch.Generator().manual_seed(1))
