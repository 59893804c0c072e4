"""Runs operators of onnxruntime's own domain: in onnxruntime, or in numpy where its CPU kernels lack them."""

from __future__ import annotations

from itertools import pairwise
from math import erf
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_conv import _conv_implementation

Array = np.ndarray[Any, Any]

#: Operators that onnxruntime keeps in the default domain.
_ITS_OWN = {"SimplifiedLayerNormalization"}
#: What onnxruntime says where a kernel for the CPU is lacking.
_LACKING = ("not implemented", "could not find an implementation", "cpu moe only supp")


def is_contrib(node: onnx.NodeProto) -> bool:
    return node.domain == "com.microsoft" or node.op_type in _ITS_OWN


def evaluate_contrib(proto: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    """All outputs."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    count = len(proto.graph.output)
    proto = _keeping_inputs(proto)
    try:
        session = ort.InferenceSession(proto.SerializeToString(), options)
        return list(session.run(None, feeds))[:count]
    except Exception as error:
        if not any(text in str(error).lower() for text in _LACKING):
            raise
    return [np.asarray(r) for r in ReferenceEvaluator(proto, new_ops=OPS).run(None, feeds)][:count]


def _keeping_inputs(proto: onnx.ModelProto) -> onnx.ModelProto:
    """onnxruntime's MoE may write over its input while it still reads it; an output it leaves alone."""
    kept = onnx.ModelProto()
    kept.CopyFrom(proto)
    given = {value.name for value in proto.graph.input}
    for node in proto.graph.node:
        if node.op_type == "MoE" and node.input[0] not in given:
            kept.graph.output.append(onnx.ValueInfoProto(name=node.input[0]))
    return kept


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def gelu_tanh(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + np.tanh(0.797885 * x + 0.035677 * x**3)))


_ACTIVATIONS = {"": lambda x: x, "Relu": lambda x: np.maximum(x, 0), "Sigmoid": sigmoid, "Tanh": np.tanh}


class _Contrib(OpRun):
    op_domain = "com.microsoft"

    def option(self, name: str, default: Any) -> Any:
        value = getattr(self, name, None)
        return default if value is None else value


def _attend(q: Array, k: Array, v: Array, scale: float, over: Array | None) -> Array:
    """``[.., S, H, D]`` each."""
    q, k, v = (np.moveaxis(a, -2, -3) for a in (q, k, v))
    scores = q @ np.swapaxes(k, -1, -2) * (scale or 1 / np.sqrt(q.shape[-1]))
    out = softmax(scores if over is None else scores + over) @ v
    out = np.moveaxis(out, -3, -2)
    return np.asarray(out.reshape(*out.shape[:-2], -1))


def _per_sequence(parts: list[Array], lengths: Array, scale: float, over: Array | None) -> Array:
    """Attention within each of the sequences that stand one after the other."""
    rows = []
    for b, (start, end) in enumerate(pairwise(lengths)):
        n = end - start
        here = None if over is None else over[min(b, len(over) - 1), :, :n, :n]
        rows.append(_attend(*(p[start:end] for p in parts), scale, here))
    return np.concatenate(rows)


class PackedAttention(_Contrib):
    def _run(self, x, w, bias, offset, lengths, over=None, **_: Any):  # type: ignore[no-untyped-def]
        made = x @ w + bias
        sizes = self.option("qkv_hidden_sizes", [made.shape[-1] // 3] * 3)
        cut = np.split(made, np.cumsum(sizes)[:-1], axis=-1)
        heads = self.option("num_heads", 1)
        parts = [p.reshape(len(p), heads, -1) for p in cut]
        return (_per_sequence(parts, lengths, self.option("scale", 0.0), over).astype(x.dtype),)


class PackedMultiHeadAttention(_Contrib):
    def _run(self, q, k, v, bias, offset, lengths, over=None, **_: Any):  # type: ignore[no-untyped-def]
        heads = self.option("num_heads", 1)
        parts = list(np.moveaxis(q, 2, 0)) if k is None else [a.reshape(len(a), heads, -1) for a in (q, k, v)]
        if bias is not None:
            sizes = [p[0].size for p in parts]
            added = np.split(bias, np.cumsum(sizes)[:-1])
            parts = [p + b.reshape(heads, -1) for p, b in zip(parts, added, strict=True)]
        return (_per_sequence(parts, lengths, self.option("scale", 0.0), over).astype(q.dtype),)


class MultiHeadAttention(_Contrib):
    """Packed forms only: the others run in onnxruntime."""

    def _run(self, q, k=None, v=None, bias=None, mask=None, over=None, **_: Any):  # type: ignore[no-untyped-def]
        heads = self.option("num_heads", 1)
        parts = [q, *np.moveaxis(k, 3, 0)] if q.ndim == 3 else list(np.moveaxis(q, 3, 0))
        parts = [p.reshape(*p.shape[:2], heads, -1) for p in parts]
        return (_attend(*parts, self.option("scale", 0.0), over).astype(q.dtype),)


class BiasSplitGelu(_Contrib):
    def _run(self, x, bias):  # type: ignore[no-untyped-def]
        left, right = np.split(x + bias, 2, axis=-1)
        gelu = 0.5 * right * (1 + np.vectorize(erf)(right / np.sqrt(2)))
        return ((left * gelu).astype(x.dtype),)


class BiasAdd(_Contrib):
    def _run(self, x, bias, skip):  # type: ignore[no-untyped-def]
        return (x + bias + skip,)


class GemmFastGelu(_Contrib):
    def _run(self, x, w, bias=None):  # type: ignore[no-untyped-def]
        return (gelu_tanh(x @ w + (0 if bias is None else bias)).astype(x.dtype),)


def _channels_last_conv(op: _Contrib, x: Array, w: Array, bias: Array | None) -> Array:
    rank = w.ndim - 2
    out = _conv_implementation(
        np.moveaxis(x, -1, 1), w, bias, "NOTSET", op.option("dilations", [1] * rank), op.option("group", 1),
        w.shape[2:], op.option("pads", [0] * 2 * rank), op.option("strides", [1] * rank),
    )  # fmt: skip
    return np.moveaxis(out, 1, -1).astype(x.dtype)


class NhwcConv(_Contrib):
    def _run(self, x, w, bias=None, **_: Any):  # type: ignore[no-untyped-def]
        return (_channels_last_conv(self, x, w, bias),)


class NhwcFusedConv(_Contrib):
    def _run(self, x, w, bias=None, z=None, **_: Any):  # type: ignore[no-untyped-def]
        out = _channels_last_conv(self, x, w, bias)
        return (_ACTIVATIONS[self.option("activation", "")](out if z is None else out + z).astype(x.dtype),)


def _group_norm(op: _Contrib, x: Array, gamma: Array, beta: Array) -> Array:
    last = bool(op.option("channels_last", 1))
    y = np.moveaxis(x, -1, 1) if last else x
    groups = y.reshape(len(y), op.option("groups", 1), -1).astype(np.float64)
    centred = groups - groups.mean(axis=-1, keepdims=True)
    y = (centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + op.option("epsilon", 1e-5))).reshape(
        y.shape
    )
    wide = (-1, *[1] * (y.ndim - 2))
    y = y * gamma.reshape(wide) + beta.reshape(wide)
    y = y * sigmoid(y) if op.option("activation", 0) else y
    return (np.moveaxis(y, 1, -1) if last else y).astype(x.dtype)


class GroupNorm(_Contrib):
    def _run(self, x, gamma, beta, **_: Any):  # type: ignore[no-untyped-def]
        return (_group_norm(self, x, gamma, beta),)


class SkipGroupNorm(_Contrib):
    def _run(self, x, gamma, beta, skip, bias=None, **_: Any):  # type: ignore[no-untyped-def]
        skip = skip[:, None, None, :] if skip.ndim == 2 else skip
        total = x + skip + (0 if bias is None else bias)
        return _group_norm(self, total, gamma, beta), total


class MoE(_Contrib):
    """The forms that onnxruntime's CPU kernel lacks: gated by a third weight, or by halves."""

    def _run(self, x, router, w1, b1, w2, b2=None, w3=None, b3=None, **_: Any):  # type: ignore[no-untyped-def]
        tokens, k = x.reshape(-1, x.shape[-1]), self.option("k", 1)
        out = np.zeros_like(tokens)
        probabilities = softmax(router)
        for t, token in enumerate(tokens):
            best = np.argsort(-probabilities[t], kind="stable")[:k]
            shares = probabilities[t][best]
            if self.option("normalize_routing_weights", 0):
                shares = shares / shares.sum()
            for e, share in zip(best, shares, strict=True):
                first = w1[e] @ token + (0 if b1 is None else b1[e])
                if w3 is None:
                    gate, linear = np.split(first, 2)
                else:
                    gate, linear = first, w3[e] @ token + (0 if b3 is None else b3[e])
                inner = gate * sigmoid(gate) * linear
                out[t] += share * (w2[e] @ inner + (0 if b2 is None else b2[e]))
        return (out.reshape(x.shape),)


OPS = [
    PackedAttention, PackedMultiHeadAttention, MultiHeadAttention, BiasSplitGelu, BiasAdd, GemmFastGelu,
    NhwcConv, NhwcFusedConv, GroupNorm, SkipGroupNorm, MoE,
]  # fmt: skip
