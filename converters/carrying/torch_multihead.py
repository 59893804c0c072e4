"""``nn.MultiheadAttention`` whose heads no longer fill its width.

The class itself insists on ``embed_dim == num_heads * head_dim`` and computes the scale of the scores from
``head_dim``, which must stay what it was.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional


class CutMultiheadAttention(torch.nn.MultiheadAttention):  # type: ignore[misc]  # torch may be absent
    """Takes over an instance's parameters and options; only the computation is its own.

    Attributes:
        key_dim: size of a head's queries and keys.
        value_dim: size of a head's values.
        scale: of the scores: that of the uncut head.
    """

    key_dim: int
    value_dim: int
    scale: float

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As https://pytorch.org/docs/stable/generated/torch.nn.MultiheadAttention.html has it."""
        is_single = query.dim() == 2
        if is_single:
            query, key, value = (t.unsqueeze(0) for t in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (t.transpose(0, 1) for t in (query, key, value))
        q, k, v = self._projected(query, key, value)
        mask = self._mask(attn_mask, key_padding_mask, q)
        if is_causal and attn_mask is None:
            message = "Need attn_mask if specifying the is_causal hint."
            raise RuntimeError(message)
        if need_weights:
            scores = q @ k.transpose(-2, -1) * self.scale
            weights = (scores if mask is None else scores + mask).softmax(dim=-1)
            mixed = functional.dropout(weights, self.dropout, self.training) @ v
        else:
            dropout = self.dropout if self.training else 0.0
            mixed = functional.scaled_dot_product_attention(q, k, v, mask, dropout, scale=self.scale)
        out = self.out_proj(mixed.transpose(1, 2).flatten(2))
        given = None
        if need_weights:
            given = weights.mean(dim=1) if average_attn_weights else weights
            given = given.squeeze(0) if is_single else given
        if is_single:
            out = out.squeeze(0)
        elif not self.batch_first:
            out = out.transpose(0, 1)
        return out, given

    def _projected(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        """Queries, keys and values ``[batch, heads, length, size]``."""
        sizes = [self.num_heads * size for size in (self.key_dim, self.key_dim, self.value_dim)]
        if self.in_proj_weight is not None:
            weights: Any = self.in_proj_weight.split(sizes)
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        biases: Any = (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.split(sizes)
        parts = zip(inputs, weights, biases, strict=True)
        projected = [functional.linear(x, weight, bias) for x, weight, bias in parts]
        return [t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in projected]

    def _mask(
        self, mask: torch.Tensor | None, padding: torch.Tensor | None, q: torch.Tensor
    ) -> torch.Tensor | None:
        """Both masks as numbers to add to the scores ``[batch, heads, queries, keys]``."""
        mask = self._added(mask, q)
        if mask is not None and mask.dim() == 3:
            mask = mask.unflatten(0, (q.shape[0], self.num_heads))
        padding = self._added(padding, q)
        if padding is None:
            return mask
        padding = padding[:, None, None, :]
        return padding if mask is None else mask + padding

    @staticmethod
    def _added(mask: torch.Tensor | None, q: torch.Tensor) -> torch.Tensor | None:
        if mask is None or mask.dtype != torch.bool:
            return mask
        return torch.zeros_like(mask, dtype=q.dtype).masked_fill_(mask, float("-inf"))
