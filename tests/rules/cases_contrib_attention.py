"""Fused attention of onnxruntime's own domain."""

from __future__ import annotations

import numpy as np
from rule_law import Case, case

MS = "com.microsoft"
_PACKED = "x[2,3,6] *w[6,24] *b[24]"
_QKV = "q[2,3,8] k[2,5,8] v[2,5,12]"
_GQA = "q[2,3,64] k[2,3,32] v[2,3,32]"
_ROTARY = "do_rotary=1, num_heads=4, kv_num_heads=2"
_LENGTHS = {"n": np.array([2, 2], np.int32), "t": np.array(3, np.int32)}
_PLACES = {"o": np.arange(6, dtype=np.int32).reshape(2, 3), "l": np.array([0, 3, 5], np.int32)}

CASES: list[Case] = [
    case("com.microsoft.Attention", _PACKED, f"y = {MS}.Attention <num_heads=4> (x, w, b)"),
    case(
        "com.microsoft.Attention scale",
        _PACKED,
        f"y = {MS}.Attention <num_heads=4, scale=0.3, unidirectional=1> (x, w, b)",
    ),
    case(
        "com.microsoft.Attention sizes",
        "x[2,3,6] *w[6,28] *b[28]",
        f"y = {MS}.Attention <num_heads=4, qkv_hidden_sizes=[8,8,12]> (x, w, b)",
    ),
    case(
        "com.microsoft.Attention mask and bias",
        f"{_PACKED} !m:int32[2,3]<2 a[2,4,3,3]",
        f"y = {MS}.Attention <num_heads=4> (x, w, b, m, , a)",
    ),
    case(
        "com.microsoft.Attention bias of one head",
        f"{_PACKED} a[1,1,3,3]",
        f"y = {MS}.Attention <num_heads=4> (x, w, b, , , a)",
    ),
    case(
        "com.microsoft.Attention cache",
        f"{_PACKED} p[2,2,4,5,2]",
        f"y, n = {MS}.Attention <num_heads=4> (x, w, b, , p)",
    ),
    case("com.microsoft.Attention makes a cache", _PACKED, f"y, n = {MS}.Attention <num_heads=4> (x, w, b)"),
    case(
        "com.microsoft.Attention behind an exponential",
        "z[2,3,6] *w[6,24] *v[24] *o[8,5]",
        f"x = Exp(z); b = Exp(v); h = {MS}.Attention <num_heads=4> (x, w, b); y = MatMul(h, o)",
    ),
    case("com.microsoft.MultiHeadAttention", _QKV, f"y = {MS}.MultiHeadAttention <num_heads=4> (q, k, v)"),
    case(
        "com.microsoft.MultiHeadAttention bias",
        f"{_QKV} *b[28]",
        f"y = {MS}.MultiHeadAttention <num_heads=4> (q, k, v, b)",
    ),
    case(
        "com.microsoft.MultiHeadAttention added to scores",
        f"{_QKV} a[2,4,3,5]",
        f"y = {MS}.MultiHeadAttention <num_heads=4> (q, k, v, , , a)",
    ),
    case(
        "com.microsoft.MultiHeadAttention keys of four axes",
        "q[2,3,8] k[2,4,5,2] v[2,4,5,2]",
        f"y = {MS}.MultiHeadAttention <num_heads=4> (q, k, v)",
    ),
    case(
        "com.microsoft.MultiHeadAttention cache",
        "q[2,3,8] k[2,3,8] v[2,3,8] *b[24] pk[2,4,2,2] pv[2,4,2,2]",
        f"y, nk, nv = {MS}.MultiHeadAttention <num_heads=4> (q, k, v, b, , , pk, pv)",
    ),
    case(
        "com.microsoft.MultiHeadAttention makes a cache",
        "q[2,3,8] k[2,3,8] v[2,3,12]",
        f"y, nk, nv = {MS}.MultiHeadAttention <num_heads=4> (q, k, v)",
    ),
    case(
        "com.microsoft.MultiHeadAttention packed",
        "q[2,3,4,3,5]",
        f"y = {MS}.MultiHeadAttention <num_heads=4> (q)",
    ),
    case(
        "com.microsoft.MultiHeadAttention packed keys",
        "q[2,3,8] k[2,5,4,2,2]",
        f"y = {MS}.MultiHeadAttention <num_heads=4> (q, k)",
    ),
    case(
        "com.microsoft.MultiHeadAttention on a projection",
        "x[2,3,6] *wq[6,8] *wk[6,8] *wv[6,12] *wo[12,6]",
        "q = MatMul(x, wq); k = MatMul(x, wk); v = MatMul(x, wv);"
        f"a = {MS}.MultiHeadAttention <num_heads=4> (q, k, v); y = MatMul(a, wo)",
    ),
    case(
        "com.microsoft.DecoderMaskedMultiHeadAttention",
        "q[2,1,8] k[2,1,8] v[2,1,8] *b[24] pk[2,4,5,2] pv[2,4,5,2] *a[1,4,1,3]",
        f"y, nk, nv = {MS}.DecoderMaskedMultiHeadAttention"
        " <num_heads=4, past_present_share_buffer=1> (q, k, v, , a, pk, pv, p, , , b)",
        p=np.array([2], np.int32),
    ),
    case(
        "com.microsoft.DecoderMaskedMultiHeadAttention across",
        "q[2,1,8] k[2,4,5,2] v[2,4,5,2]",
        f"y = {MS}.DecoderMaskedMultiHeadAttention <num_heads=4> (q, k, v)",
    ),
    case(
        "com.microsoft.QAttention",
        "x:uint8[2,3,6]<255 *w:int8[6,24]<99 *b[24] *ws[24]",
        f"y = {MS}.QAttention <num_heads=4> (x, w, b, xs, ws, , xz, wz)",
        xs=np.array(0.01, np.float32),
        xz=np.array(120, np.uint8),
        wz=np.array(5, np.int8),
    ),
    case(
        "com.microsoft.QAttention one scale",
        "x[2,3,6] *w:int8[6,24]<99 *b[24] p[2,2,4,5,2]",
        f"q = QuantizeLinear(x, xs, xz); y, n = {MS}.QAttention <num_heads=4> (q, w, b, xs, ws, , xz, , p)",
        xs=np.array(0.01, np.float32),
        xz=np.array(120, np.uint8),
        ws=np.array(0.02, np.float32),
    ),
    case(
        "com.microsoft.PackedAttention",
        "x[5,6] *w[6,28] *b[28] a[1,4,3,3]",
        f"y = {MS}.PackedAttention <num_heads=4, qkv_hidden_sizes=[8,8,12]> (x, w, b, o, l, a)",
        **_PLACES,
    ),
    case(
        "com.microsoft.PackedMultiHeadAttention",
        "q[5,8] k[5,8] v[5,12] *b[28]",
        f"y = {MS}.PackedMultiHeadAttention <num_heads=4> (q, k, v, b, o, l)",
        **_PLACES,
    ),
    case(
        "com.microsoft.PackedMultiHeadAttention stacked",
        "q[5,4,3,2] *b[24]",
        f"y = {MS}.PackedMultiHeadAttention <num_heads=4> (q, , , b, o, l)",
        **_PLACES,
    ),
    case(
        "com.microsoft.GroupQueryAttention",
        "q[2,3,128] k[2,3,64] v[2,3,64]",
        f"y = {MS}.GroupQueryAttention <num_heads=8, kv_num_heads=4> (q, k, v, , , n, t)",
        **_LENGTHS,
    ),
    case(
        "com.microsoft.GroupQueryAttention packed",
        "q[2,3,128]",
        f"y = {MS}.GroupQueryAttention <num_heads=4, kv_num_heads=2> (q, , , , , n, t)",
        **_LENGTHS,
    ),
    case(
        "com.microsoft.GroupQueryAttention cache",
        "q[2,1,64] k[2,1,32] v[2,1,32] pk[2,2,6,16] pv[2,2,6,16] a[1,4,1,7] *s[4]",
        f"y, nk, nv, qk = {MS}.GroupQueryAttention <num_heads=4, kv_num_heads=2, qk_output=1>"
        " (q, k, v, pk, pv, n, t, , , , a, s)",
        n=np.array([6, 6], np.int32),
        t=np.array(7, np.int32),
    ),
    case(
        "com.microsoft.GroupQueryAttention rotary",
        "q[2,3,192] k[2,3,96] v[2,3,96] *c[8,24] *s[8,24]",
        f"y, nk, nv = {MS}.GroupQueryAttention <{_ROTARY}> (q, k, v, , , n, t, c, s)",
        **_LENGTHS,
    ),
    case(
        "com.microsoft.GroupQueryAttention rotary in part",
        "q[2,3,256] k[2,3,128] v[2,3,128] *c[8,16] *s[8,16]",
        f"y = {MS}.GroupQueryAttention <{_ROTARY}, rotary_interleaved=1> (q, k, v, , , n, t, c, s)",
        **_LENGTHS,
    ),
    case(
        "com.microsoft.RotaryEmbedding",
        "x[2,4,3,8] *c[5,4] *s[5,4]",
        f"y = {MS}.RotaryEmbedding(x, p, c, s)",
        p=[[0, 1, 2], [1, 2, 3]],
    ),
    case(
        "com.microsoft.RotaryEmbedding of three axes",
        "x[2,3,32] *c[5,4] *s[5,4]",
        f"y = {MS}.RotaryEmbedding(x, p, c, s)",
        p=[[0, 1, 2], [1, 2, 3]],
    ),
    case(
        "com.microsoft.RotaryEmbedding in part",
        "x[2,3,40] *c[5,2] *s[5,2]",
        f"y = {MS}.RotaryEmbedding <num_heads=4, rotary_embedding_dim=4, interleaved=1> (x, p, c, s)",
        p=[1],
    ),
]
