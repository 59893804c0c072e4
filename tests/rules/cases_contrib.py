"""Fused norms, activations, products and experts of onnxruntime's own domain."""

from __future__ import annotations

import numpy as np
from rule_law import Case, case

MS = "com.microsoft"
_MOE = "x[5,6] r[5,4] *f[4,8,6] *fb[4,8] *g[4,6,8] *gb[4,6]"
_GATED = "x[5,6] r[5,4] *f[4,8,6] *g[4,6,8] *h[4,8,6]"
_IDS = {"i": np.array([[0, 1, 2], [3, 1, 0]], np.int32), "s": np.array([[0, 1, 1], [0, 0, 1]], np.int32)}
_SHAPES = {  # trans, transBatch -> shape of an operand [5, 7, rows, columns]
    "A": {(0, 0): "5,7,3,4", (1, 0): "5,7,4,3", (0, 1): "3,5,7,4", (1, 1): "4,5,7,3"},
    "B": {(0, 0): "5,7,4,2", (1, 0): "5,7,2,4", (0, 1): "4,5,7,2", (1, 1): "2,5,7,4"},
}

NORMS: list[Case] = [
    case(
        "com.microsoft.SkipLayerNormalization",
        "x[2,3,6] s[2,3,6] *g[6] *b[6] *c[6]",
        f"y, , , t = {MS}.SkipLayerNormalization(x, s, g, b, c)",
    ),
    case(
        "com.microsoft.SkipLayerNormalization of one sample",
        "x[2,3,6] s[1,3,6] *g[6]",
        f"y = {MS}.SkipLayerNormalization(x, s, g)",
    ),
    case(
        "com.microsoft.SkipLayerNormalization of two axes",
        "x[2,3,6] s[3,6] g[6] b[6]",
        f"y = {MS}.SkipLayerNormalization(x, s, g, b)",
    ),
    case(
        "com.microsoft.SkipLayerNormalization statistics",
        "x[2,3,6] s[2,3,6] *g[6]",
        f"y, m, v = {MS}.SkipLayerNormalization(x, s, g)",
        laws=(),
    ),
    case(
        "com.microsoft.SkipSimplifiedLayerNormalization",
        "x[2,3,6] s[2,3,6] *g[6] *c[6]",
        f"y, , , t = {MS}.SkipSimplifiedLayerNormalization(x, s, g, c)",
    ),
    case(
        "SimplifiedLayerNormalization", "x[2,3,6] *g[6]", "y = SimplifiedLayerNormalization <axis=-1> (x, g)"
    ),
    case(
        "com.microsoft.EmbedLayerNormalization",
        "*w[5,6] *p[8,6] *e[2,6] *g[6] *b[6]",
        f"y, , t = {MS}.EmbedLayerNormalization(i, s, w, p, e, g, b)",
        **_IDS,
    ),
    case(
        "com.microsoft.EmbedLayerNormalization no segments",
        "*w[5,6] *p[8,6] *g[6] *b[6] *o[6,4]",
        f"h, m = {MS}.EmbedLayerNormalization(i, , w, p, , g, b, s); y = MatMul(h, o)",
        i=_IDS["i"],
        s=_IDS["s"],
        outputs=("y",),
    ),
    *(
        case(
            f"com.microsoft.GatedRMSNorm {act}",
            "x[2,3,8] *s[4] g[2,3,8]",
            f'y = {MS}.GatedRMSNorm <activation="{act}"> (x, s, g)',
        )
        for act in ("silu", "sigmoid")
    ),
    *(
        case(
            f"com.microsoft.GroupNorm channels_last={last} activation={act}",
            f"x[2,{'3,3,8' if last else '8,3,3'}] *g[8] *b[8]",
            f"y = {MS}.GroupNorm <groups=4, activation={act}, channels_last={last}> (x, g, b)",
        )
        for last, act in ((1, 1), (0, 0))
    ),
    case(
        "com.microsoft.SkipGroupNorm",
        "x[2,3,3,8] s[2,3,3,8] *g[8] *b[8] *c[8]",
        f"y, t = {MS}.SkipGroupNorm <groups=4, activation=1> (x, g, b, s, c)",
    ),
    case(
        "com.microsoft.SkipGroupNorm per channel",
        "x[2,3,3,8] s[2,8] *g[8] *b[8]",
        f"y, t = {MS}.SkipGroupNorm <groups=4, activation=0> (x, g, b, s)",
    ),
    case(
        "com.microsoft.SkipGroupNorm per channel of four axes",
        "x[2,3,3,8] s[2,1,1,8] *g[8] *b[8]",
        f"y, t = {MS}.SkipGroupNorm <groups=4, activation=0> (x, g, b, s)",
    ),
    case(
        "com.microsoft.SkipGroupNorm channels first",
        "x[2,8,3,3] s[2,8,3,3] *g[8] *b[8]",
        f"y, t = {MS}.SkipGroupNorm <groups=4, activation=0, channels_last=0> (x, g, b, s)",
        laws=(),
    ),
]

ACTIVATIONS: list[Case] = [
    *(
        case(f"com.microsoft.{op}", "x[2,3,6]", f"y = {MS}.{op}(x)")
        for op in ("Gelu", "QuickGelu", "FastGelu")
    ),
    *(
        case(f"com.microsoft.{op} bias", "x[2,3,6] *b[6]", f"y = {MS}.{op}(x, b)")
        for op in ("BiasGelu", "FastGelu")
    ),
    case("com.microsoft.BiasGelu input", "x[2,3,6] b[6]", f"y = {MS}.BiasGelu(x, b)"),
    case("com.microsoft.BiasAdd", "x[2,3,6] *b[6] s[2,3,6]", f"y = {MS}.BiasAdd(x, b, s)"),
    case("com.microsoft.ScaledSiLU", "x[2,3,6]", f"y = {MS}.ScaledSiLU <alpha=1.5> (x)"),
    case("com.microsoft.GatedAdd", "x[2,3,6] z[2,3,6] g[2,3,1]", f"y = {MS}.GatedAdd(x, z, g)"),
    case("com.microsoft.BiasSplitGelu", "x[2,3,8] *b[8]", f"y = {MS}.BiasSplitGelu(x, b)"),
]

PRODUCTS: list[Case] = [
    *(
        case(
            f"com.microsoft.FusedMatMul {a}{c} {b}{d}",
            f"x[{_SHAPES['A'][a, c]}] z[{_SHAPES['B'][b, d]}]",
            f"y = {MS}.FusedMatMul"
            f" <transA={a}, transBatchA={c}, transB={b}, transBatchB={d}, alpha=0.5> (x, z)",
        )
        for a, c, b, d in ((0, 0, 1, 0), (1, 0, 0, 0), (0, 1, 0, 1), (1, 1, 1, 1), (0, 0, 0, 1))
    ),
    case("com.microsoft.FusedMatMul weight", "x[2,3,4] *w[5,4]", f"y = {MS}.FusedMatMul <transB=1> (x, w)"),
    case("com.microsoft.FusedMatMul vector", "x[4] *w[4,5]", f"y = {MS}.FusedMatMul <transA=1> (x, w)"),
    case("com.microsoft.TransposeMatMul", "x[4,3] *w[4,5]", f"y = {MS}.TransposeMatMul <transA=1> (x, w)"),
    case("com.microsoft.GemmFastGelu", "x[2,3,4] *w[4,5] *b[5]", f"y = {MS}.GemmFastGelu(x, w, b)"),
    *(
        case(
            f"com.microsoft.FusedGemm {act}",
            "x[6,4] *w[5,4] *c[5]",
            f'y = {MS}.FusedGemm <transB=1, activation="{act}"> (x, w, c)',
        )
        for act in ("Relu", "Sigmoid")
    ),
    case(
        "com.microsoft.FusedConv residual",
        "x[2,6,5,5] *w[4,6,3,3] *b[4] z[2,4,3,3]",
        f'y = {MS}.FusedConv <activation="Relu"> (x, w, b, z)',
    ),
    case(
        "com.microsoft.FusedConv grouped",
        "x[2,6,5,5] *w[9,2,3,3] *b[9]",
        f'y = {MS}.FusedConv <activation="Clip", activation_params=[0.0, 6.0], group=3> (x, w, b)',
    ),
    case(
        "com.microsoft.FusedConv bounds above zero",
        "x[2,6,5,5] *w[4,6,3,3]",
        f'y = {MS}.FusedConv <activation="Clip", activation_params=[0.5, 2.0]> (x, w)',
    ),
    case("com.microsoft.NhwcConv", "x[2,5,5,6] *w[9,2,3,3] *b[9]", f"y = {MS}.NhwcConv <group=3> (x, w, b)"),
    case(
        "com.microsoft.NhwcFusedConv",
        "x[2,5,5,6] *w[4,6,3,3] *b[4] z[2,3,3,4]",
        f'y = {MS}.NhwcFusedConv <activation="Relu"> (x, w, b, z)',
    ),
    case(
        "com.microsoft.NhwcFusedConv depthwise",
        "x[2,5,5,6] *w[6,1,3,3]",
        f'y = {MS}.NhwcFusedConv <activation="Sigmoid", group=6> (x, w)',
    ),
    case(
        "com.microsoft.NhwcMaxPool",
        "x:uint8[2,5,5,4]<255",
        f"y = {MS}.NhwcMaxPool <kernel_shape=[2,2], pads=[1,1,1,1]> (x)",
    ),
    case(
        "com.microsoft.MatMulNBits",
        "x[3,64] *w:uint8[6,4,8]<255 *s[6,4] *b[6]",
        f"y = {MS}.MatMulNBits <K=64, N=6, bits=4, block_size=16> (x, w, s, , , b)",
    ),
    case(
        "com.microsoft.MatMulNBits packed zero points",
        "x[3,64] *w:uint8[6,4,8]<255 *s[6,4] *z:uint8[6,2]<255",
        f"y = {MS}.MatMulNBits <K=64, N=6, bits=4, block_size=16> (x, w, s, z)",
    ),
    case(
        "com.microsoft.MatMulNBits flat",
        "x[3,64] *w:uint8[6,4,16]<255 *s[24] *z:uint8[24]<255",
        f"y = {MS}.MatMulNBits <K=64, N=6, bits=8, block_size=16> (x, w, s, z)",
    ),
    case(
        "com.microsoft.MatMulNBits zero points at full width",
        "x[3,64] *w:uint8[6,4,8]<255 *s[6,4] *z[6,4]",
        f"y = {MS}.MatMulNBits <K=64, N=6, bits=4, block_size=16> (x, w, s, z)",
    ),
    case(
        "com.microsoft.MatMulNBits part of a block",
        "x[3,60] *w:uint8[6,4,8]<255 *s[6,4]",
        f"y = {MS}.MatMulNBits <K=60, N=6, bits=4, block_size=16> (x, w, s)",
    ),
]

EXPERTS: list[Case] = [
    case("com.microsoft.MoE", _MOE, f'y = {MS}.MoE <k=2, activation_type="relu"> (x, r, f, fb, g, gb)'),
    case(
        "com.microsoft.MoE of three axes",
        "x[2,5,6] r[10,4] *f[4,8,6] *g[4,6,8]",
        f'y = {MS}.MoE <k=1, activation_type="gelu", normalize_routing_weights=1> (x, r, f, , g)',
    ),
    case(
        "com.microsoft.MoE interleaved",
        "x[5,6] r[5,4] *f[4,16,6] *fb[4,16] *g[4,6,8]",
        f'y = {MS}.MoE <k=2, activation_type="swiglu", swiglu_fusion=1> (x, r, f, fb, g)',
    ),
    case(
        "com.microsoft.MoE halves",
        "x[5,6] r[5,4] *f[4,16,6] *fb[4,16] *g[4,6,8]",
        f'y = {MS}.MoE <k=2, activation_type="swiglu", swiglu_fusion=2> (x, r, f, fb, g)',
    ),
    case(
        "com.microsoft.MoE gated",
        _GATED,
        f'y = {MS}.MoE <k=2, activation_type="silu"> (x, r, f, , g, , h)',
    ),
    case(
        "com.microsoft.QMoE",
        "x[5,32] r[5,4] *f:uint8[4,64,16]<255 *fs[4,64] *fb[4,64] *g:uint8[4,32,16]<255 *gs[4,32] *gb[4,32]",
        f'y = {MS}.QMoE <k=2, activation_type="swiglu", swiglu_fusion=1> (x, r, f, fs, fb, g, gs, gb)',
    ),
    case(
        "com.microsoft.QMoE mixing weights",
        "x[5,32] r[5,4] m[5,4] *f:uint8[4,16,32]<255 *fs[4,16] *g:uint8[4,32,16]<255 *gs[4,32]",
        f'y = {MS}.QMoE <k=1, activation_type="relu", expert_weight_bits=8>'
        " (x, r, f, fs, , g, gs, , , , , , , , m)",
    ),
]

CASES: list[Case] = [*NORMS, *ACTIVATIONS, *PRODUCTS, *EXPERTS]
