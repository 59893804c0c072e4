"""Networks to plan for a latency."""

from __future__ import annotations

import onnx
from networks import build


def convolutions(batch: str = "n") -> onnx.ModelProto:
    """Three convolutions and a depthwise one, a sum and a classifier; every time depends on two widths."""
    body = """
        a0 = Conv<pads: ints = [1, 1, 1, 1]>(x, c1.w, c1.b) a = Relu(a0)
        d0 = Conv<pads: ints = [1, 1, 1, 1], group: int = 48>(a, dw.w) d = Clip(d0, low, high)
        b0 = Conv(d, c2.w, c2.b) b = Relu(b0)
        e0 = Conv<pads: ints = [1, 1, 1, 1]>(b, c3.w) e = Add(b, e0)
        p = GlobalAveragePool(e) f = Flatten(p) y = Gemm<transB: int = 1>(f, fc.w, fc.b)"""
    weights = {
        "c1.w": (48, 3, 3, 3), "c1.b": (48,), "dw.w": (48, 1, 3, 3), "c2.w": (64, 48, 1, 1), "c2.b": (64,),
        "c3.w": (64, 64, 3, 3), "fc.w": (10, 64), "fc.b": (10,), "low": (), "high": (),
    }  # fmt: skip
    return build(f"(float[{batch}, 3, 16, 16] x) => (float[{batch}, 10] y)", body, weights)


def attention() -> onnx.ModelProto:
    """Four heads of 16 dims and a hidden layer of 96, in a residual stream of 32 that stays."""
    body = """
        q0 = MatMul(x, q.w) q1 = Add(q0, q.b) q2 = Reshape(q1, split)
        q = Transpose<perm: ints = [0, 2, 1, 3]>(q2)
        k0 = MatMul(x, k.w) k2 = Reshape(k0, split) k = Transpose<perm: ints = [0, 2, 3, 1]>(k2)
        v0 = MatMul(x, v.w) v2 = Reshape(v0, split) v = Transpose<perm: ints = [0, 2, 1, 3]>(v2)
        s0 = MatMul(q, k) s = Softmax<axis: int = -1>(s0) o0 = MatMul(s, v)
        o1 = Transpose<perm: ints = [0, 2, 1, 3]>(o0) o2 = Reshape(o1, join) o = MatMul(o2, o.w) r = Add(x, o)
        h0 = MatMul(r, up.w) h1 = Add(h0, up.b) h = Relu(h1) m = MatMul(h, down.w) y = Add(r, m)"""
    weights = {
        "q.w": (32, 64), "q.b": (64,), "k.w": (32, 64), "v.w": (32, 64), "o.w": (64, 32),
        "up.w": (32, 96), "up.b": (96,), "down.w": (96, 32), "split": [0, 0, 4, 16], "join": [0, 0, 64],
    }  # fmt: skip
    return build("(float[n, 24, 32] x) => (float[n, 24, 32] y)", body, weights)
