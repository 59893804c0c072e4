"""Multiply-adds of attention, experts and the other fused operators.

Each operator is a sum of products of sizes. A size is whatever the caller counts with: an axis that may
shrink, or a number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import onnx_ir as ir

F = TypeVar("F")

_CONVOLUTIONS = ("FusedConv", "NhwcConv", "NhwcFusedConv")
_PROJECTIONS = {"Attention": 4, "PackedAttention": None, "QAttention": 8}
#: Operator -> input with the cached keys, None for none.
_MULTI_HEAD = {
    "MultiHeadAttention": 6, "PackedMultiHeadAttention": None, "DecoderMaskedMultiHeadAttention": 5,
    "GroupQueryAttention": 3,
}  # fmt: skip
_PRODUCTS = ("FusedMatMul", "TransposeMatMul", "GemmFastGelu", "MatMulNBits")


@dataclass(frozen=True)
class Sizes(Generic[F]):
    """What the caller knows about one node.

    Attributes:
        of: sizes of the axes of an input (None: of the first output); empty for an absent one.
        number: the nominal number behind a size.
        fixed: a size that stays.
        first: the first so many positions of a size.
    """

    of: Callable[[int | None], list[F]]
    number: Callable[[F], int]
    fixed: Callable[[int], F]
    first: Callable[[F, int], F]


def fused_terms(node: ir.Node, sizes: Sizes[F]) -> list[list[F]] | None:
    """Products whose sum is the node's multiply-adds; None for an operator that is not fused."""
    is_ours = node.domain == "com.microsoft"
    if node.op_type == "Attention" and not is_ours:
        return _attention(sizes)
    if not is_ours:
        return None
    if node.op_type in _CONVOLUTIONS:
        return [sizes.of(None) + sizes.of(1)[1:]]
    if node.op_type in _PRODUCTS:
        if not sizes.of(0):  # onnxruntime refuses the node: nothing is known of its result
            return []
        return [[*sizes.of(None), _inner(node, sizes)]]
    if node.op_type == "FusedGemm":
        return [[*sizes.of(None), sizes.of(0)[0 if node.attributes.get_int("transA", 0) else 1]]]
    if node.op_type in _PROJECTIONS:
        return _projection(node, sizes, _PROJECTIONS[node.op_type])
    if node.op_type in _MULTI_HEAD:
        return _multi_head(sizes, _MULTI_HEAD[node.op_type], node.op_type == "PackedMultiHeadAttention")
    if node.op_type in ("MoE", "QMoE"):
        return _experts(node, sizes)
    return None


def _inner(node: ir.Node, sizes: Sizes[F]) -> F:
    """The axis of the first operand that is summed over."""
    axes = sizes.of(0)
    is_transposed, is_first = (node.attributes.get_int(name, 0) for name in ("transA", "transBatchA"))
    if len(axes) < 2 or not is_transposed:
        return axes[-1]
    return axes[0] if is_first else axes[-2]


def _keys(sizes: Sizes[F], new: F, past: list[F]) -> F:
    """Number of keys: those of this call and the cached ones."""
    cached = sizes.number(past[-2]) if len(past) > 2 else 0
    return sizes.fixed(sizes.number(new) + cached)


def _attention(sizes: Sizes[F]) -> list[list[F]]:
    """Each query meets each key over the dims of all heads, then each value."""
    key = sizes.of(1)
    total = _keys(sizes, key[-2], sizes.of(4))
    return [[*sizes.of(0), total], [*sizes.of(None), total]]


def _projection(node: ir.Node, sizes: Sizes[F], past: int | None) -> list[list[F]]:
    x, w, out = sizes.of(0), sizes.of(1), sizes.of(None)
    given = node.attributes.get_ints("qkv_hidden_sizes", None)
    queries = sizes.first(w[1], given[0] if given else sizes.number(w[1]) // 3)
    cached = sizes.of(past) if past is not None else []
    # Without padding only the longest possible sequence is known, from where its tokens stand.
    total = sizes.of(3)[-1] if len(x) < 3 else _keys(sizes, x[1], cached)
    return [[*x, w[1]], [*x[:-1], queries, total], [*out, total]]


def _multi_head(sizes: Sizes[F], past: int | None, is_packed: bool) -> list[list[F]]:
    query, key, out = sizes.of(0), sizes.of(1), sizes.of(None)
    if is_packed:
        total = sizes.of(4)[-1]
    else:
        new = key[2] if len(key) == 4 else key[1] if key else query[1]
        total = _keys(sizes, new, sizes.of(past) if past is not None else [])
    tokens = len(out) - 1
    # Where queries, keys and values are packed in one input, all have the dims of the result.
    queries = query if key and len(query) == tokens + 1 else out
    return [[*queries, total], [*out, total]]


def _experts(node: ir.Node, sizes: Sizes[F]) -> list[list[F]]:
    """Each token meets the weights of the experts that it is sent to."""
    x, chosen = sizes.of(0), sizes.fixed(node.attributes.get_int("k", 1))
    if node.op_type == "MoE":
        return [[*x[:-1], chosen, *sizes.of(i)[1:]] for i in (2, 4, 6) if sizes.of(i)]
    hidden = x[-1]
    per_byte = 8 // node.attributes.get_int("expert_weight_bits", 4)
    inner = sizes.fixed(sizes.number(sizes.of(5)[2]) * per_byte)
    first = [[*x, chosen, sizes.of(i)[1]] for i in (2, 8) if sizes.of(i)]
    return [*first, [*x[:-1], chosen, inner, hidden]]
