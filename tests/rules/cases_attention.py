"""Attention and RotaryEmbedding of ai.onnx."""

from __future__ import annotations

from rule_law import Case, case

_QKV = "q[2,3,8] k[2,5,8] v[2,5,12]"
_HEADS = "q_num_heads=4, kv_num_heads=4"
_GROUPED = "q[2,3,16] k[2,5,8] v[2,5,12]"

CASES: list[Case] = [
    case("Attention", _QKV, f"y = Attention <{_HEADS}> (q, k, v)", opset=23),
    case("Attention opset 24", _QKV, f"y = Attention <{_HEADS}> (q, k, v)", opset=24),
    case("Attention scale", _QKV, f"y = Attention <{_HEADS}, scale=0.3, softcap=2.0> (q, k, v)", opset=23),
    case("Attention causal", _QKV, f"y = Attention <{_HEADS}, is_causal=1> (q, k, v)", opset=23),
    case(
        "Attention window",
        _QKV,
        f"y = Attention <{_HEADS}, left_window_size=1, right_window_size=2> (q, k, v)",
        opset=25,
    ),
    case(
        "Attention grouped queries",
        _GROUPED,
        "y = Attention <q_num_heads=8, kv_num_heads=4> (q, k, v)",
        opset=23,
    ),
    case(
        "Attention one key head",
        "q[2,3,16] k[2,5,4] v[2,5,3]",
        "y = Attention <q_num_heads=4, kv_num_heads=1> (q, k, v)",
        opset=23,
    ),
    case("Attention of four axes", "q[2,4,3,6] k[2,4,5,6] v[2,4,5,2]", "y = Attention(q, k, v)", opset=23),
    case(
        "Attention of four axes, grouped queries",
        "q[2,6,3,4] k[2,2,5,4] v[2,2,5,3]",
        "y = Attention(q, k, v)",
        opset=23,
    ),
    case(
        "Attention cache",
        "q[2,3,16] k[2,5,8] v[2,5,12] pk[2,4,2,2] pv[2,4,2,3]",
        "y, nk, nv = Attention <q_num_heads=8, kv_num_heads=4> (q, k, v, , pk, pv)",
        opset=23,
    ),
    case(
        "Attention cache of four axes",
        "q[2,4,3,6] k[2,4,5,6] v[2,4,5,2] pk[2,4,2,6] pv[2,4,2,2]",
        "y, nk, nv = Attention <is_causal=1> (q, k, v, , pk, pv)",
        opset=23,
    ),
    *(
        case(
            f"Attention scores {mode}",
            f"{_QKV} m[4,3,5]",
            f"y, , , s = Attention <{_HEADS}, qk_matmul_output_mode={mode}> (q, k, v, m)",
            opset=23,
        )
        for mode in (0, 2, 3)
    ),
    case("Attention mask", f"{_QKV} m[2,4,3,5]", f"y = Attention <{_HEADS}> (q, k, v, m)", opset=23),
    case("Attention mask of two axes", f"{_QKV} m[3,5]", f"y = Attention <{_HEADS}> (q, k, v, m)", opset=23),
    case(
        "Attention mask parameter",
        f"{_QKV} *m[1,4,3,5]",
        f"y = Attention <{_HEADS}> (q, k, v, m)",
        opset=23,
    ),
    case(
        "Attention mask of truths",
        f"{_GROUPED} m:bool[1,1,3,5]",
        "y = Attention <q_num_heads=8, kv_num_heads=4> (q, k, v, m)",
        opset=23,
    ),
    case(
        "Attention padded keys",
        f"{_QKV} n:int64[2]<5",
        f"y = Attention <{_HEADS}> (q, k, v, , , , n)",
        opset=24,
    ),
    case(
        "Attention in a network",
        "x[2,3,6] *wq[6,16] *wk[6,8] *wv[6,8] *wo[16,6]",
        "q = MatMul(x, wq); k = MatMul(x, wk); v = MatMul(x, wv);"
        "a = Attention <q_num_heads=8, kv_num_heads=4> (q, k, v); y = MatMul(a, wo)",
        opset=23,
    ),
    case(
        "RotaryEmbedding",
        "x[2,4,3,8] *c[5,4] *s[5,4] p:int64[2,3]<5",
        "y = RotaryEmbedding(x, c, s, p)",
        opset=23,
    ),
    case(
        "RotaryEmbedding interleaved",
        "x[2,4,3,8] *c[5,4] *s[5,4] p:int64[2,3]<5",
        "y = RotaryEmbedding <interleaved=1> (x, c, s, p)",
        opset=23,
    ),
    case(
        "RotaryEmbedding of three axes",
        "x[2,3,32] *c[5,4] *s[5,4] p:int64[2,3]<5",
        "y = RotaryEmbedding <num_heads=4> (x, c, s, p)",
        opset=23,
    ),
    case(
        "RotaryEmbedding in part",
        "x[2,3,40] *c[5,2] *s[5,2] p:int64[2,3]<5",
        "y = RotaryEmbedding <num_heads=4, rotary_embedding_dim=4> (x, c, s, p)",
        opset=23,
    ),
    case(
        "RotaryEmbedding in part, odd rest",
        "x[2,2,3,9] *c[5,2] *s[5,2] p:int64[2,3]<5",
        "y = RotaryEmbedding <num_heads=2, rotary_embedding_dim=4, interleaved=1> (x, c, s, p)",
        opset=23,
    ),
    case(
        "RotaryEmbedding no positions",
        "x[2,4,3,8] c[2,3,4] s[2,3,4]",
        "y = RotaryEmbedding(x, c, s)",
        opset=23,
    ),
]
