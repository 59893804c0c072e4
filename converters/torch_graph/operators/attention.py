"""Attention and rotary positions as one operator (opset 23)."""

from __future__ import annotations

import torch
from graphprune.converters.torch_graph.call import Call
from graphprune.converters.torch_graph.registry import op
from torch import Tensor
from torch.nn import functional as F


def _heads(call: Call, x: Tensor, attribute: str) -> Tensor:
    """``[batch, length, heads * size]`` as ``[batch, heads, length, size]``."""
    if x.ndim == 4:
        return x
    heads = call.get(attribute)
    return x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


@op("Attention", since=23)
def attention(
    call: Call,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    lengths: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Scaled dot products, with grouped heads, a cache and a soft cap."""
    if lengths is not None:
        call.refuse("nonpad_kv_seqlen is given")
    is_flat = q.ndim == 3
    query = _heads(call, q, "q_num_heads")
    key, value = _heads(call, k, "kv_num_heads"), _heads(call, v, "kv_num_heads")
    if past_key is not None and past_value is not None:
        key, value = torch.cat((past_key, key), 2), torch.cat((past_value, value), 2)
    repeat = query.shape[1] // key.shape[1]
    keys = key.repeat_interleave(repeat, 1) if repeat > 1 else key
    values = value.repeat_interleave(repeat, 1) if repeat > 1 else value
    scale = call.get("scale") or query.shape[-1] ** -0.5
    rows, columns = query.shape[2], keys.shape[2]
    mask = mask if mask is None else mask.to(query.device)
    if mask is not None and mask.shape[-1] < columns:
        missing = columns - mask.shape[-1]
        fill = False if mask.dtype == torch.bool else -torch.inf
        mask = F.pad(mask, (0, missing), value=fill)
    if call.get("is_causal", 0):
        before = 0 if past_key is None else past_key.shape[2]
        ahead = torch.ones(rows, columns, dtype=torch.bool, device=query.device).tril(before)
        mask = _joined(mask, ahead, query.dtype)
    cap = call.get("softcap", 0.0)
    if cap or call.wants(3):
        made, scores = _by_steps(call, query, keys, values, mask, scale, cap)
    else:
        made, scores = F.scaled_dot_product_attention(query, keys, values, mask, scale=scale), None
    if is_flat:
        made = made.transpose(1, 2).reshape(made.shape[0], rows, -1)
    outputs = [made, key, value, scores]
    return tuple(o for o in outputs if o is not None)


def _joined(mask: Tensor | None, allowed: Tensor, dtype: torch.dtype) -> Tensor:
    if mask is None:
        return allowed
    if mask.dtype == torch.bool:
        return mask & allowed
    return mask + torch.zeros(allowed.shape, dtype=dtype, device=mask.device).masked_fill(
        ~allowed, -torch.inf
    )


def _by_steps(
    call: Call, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float, cap: float
) -> tuple[Tensor, Tensor]:
    """The same in steps, for what the fused function has no place for."""
    mode = call.get("qk_matmul_output_mode", 0)
    if call.wants(3) and mode not in (0, 3):
        call.refuse(f"qk_matmul_output_mode is {mode}, which differs between versions")
    if cap and call.opset < 24:
        call.refuse("softcap is set, whose order with the mask differs between versions")
    products = query @ keys.transpose(-1, -2) * scale
    scores = cap * torch.tanh(products / cap) if cap else products
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    shares = F.softmax(scores, -1)
    # A row that may look at nothing sees nothing.
    shares = shares.masked_fill((scores == -torch.inf).all(-1, keepdim=True), 0.0)
    return shares @ values, shares if mode == 3 else products


@op("RotaryEmbedding", since=23)
def rotary_embedding(
    call: Call, x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None = None
) -> Tensor:
    """Pairs of features turned by an angle per position."""
    flat = x.ndim == 3
    heads = (
        _heads(call, x, "num_heads").transpose(1, 2) if flat else x.transpose(1, 2)
    )  # [b, length, heads, size]
    size = call.get("rotary_embedding_dim", 0) or heads.shape[-1]
    turned, rest = heads[..., :size], heads[..., size:]
    if positions is not None:
        cos, sin = cos[positions.to(cos.device)], sin[positions.to(sin.device)]
    cos, sin = cos[..., : size // 2].unsqueeze(2), sin[..., : size // 2].unsqueeze(2)
    if call.get("interleaved", 0):
        a, b = turned[..., 0::2], turned[..., 1::2]
        made = torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)
    else:
        a, b = turned.chunk(2, -1)
        made = torch.cat((a * cos - b * sin, b * cos + a * sin), -1)
    made = torch.cat((made, rest), -1) if rest.shape[-1] else made
    return made.reshape(x.shape) if flat else made.transpose(1, 2)
