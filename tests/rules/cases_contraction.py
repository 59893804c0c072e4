"""Conv, ConvTranspose, Gemm, MatMul."""

from __future__ import annotations

from rule_law import Case, case

CASES: list[Case] = [
    case("Conv dense", "x[2,6,5,5] *w[4,6,3,3] *b[4]", "y = Conv(x, w, b)"),
    case("Conv no bias", "x[2,6,5,5] *w[4,6,3,3]", "y = Conv <pads=[1,1,1,1], strides=[2,2]> (x, w)"),
    case("Conv one dimension", "x[2,6,7] *w[4,6,3] *b[4]", "y = Conv <dilations=[2]> (x, w, b)"),
    case("Conv depthwise", "x[2,6,5,5] *w[6,1,3,3] *b[6]", "y = Conv <group=6> (x, w, b)"),
    case("Conv depthwise multiplier", "x[2,4,5,5] *w[12,1,3,3] *b[12]", "y = Conv <group=4> (x, w, b)"),
    case("Conv grouped", "x[2,6,5,5] *w[9,2,3,3] *b[9]", "y = Conv <group=3> (x, w, b)"),
    case("Conv grouped one output each", "x[2,6,5,5] *w[3,2,3,3]", "y = Conv <group=3> (x, w)"),
    case("Conv weights at run time", "x[2,6,5,5] w[4,6,3,3]", "y = Conv(x, w)"),
    case("Conv bias at run time", "x[2,6,5,5] *w[4,6,3,3] b[4]", "y = Conv(x, w, b)"),
    case(
        "Conv twice grouped",
        "x[2,8,3,3] *w[8,2,1,1] *v[8,2,1,1]",
        "h = Conv <group=4> (x, w); y = Conv <group=4> (h, v)",
    ),
    case(
        "Conv grouped after dense",
        "x[2,5,3,3] *w[8,5,1,1] *v[8,4,1,1]",
        "h = Conv(x, w); y = Conv <group=2> (h, v)",
    ),
    case(
        "Conv groups of another count",
        "x[2,12,3,3] *w[12,4,1,1] *v[12,2,1,1]",
        "h = Conv <group=3> (x, w); y = Conv <group=6> (h, v)",
    ),
    case("Conv tied", "x[2,6,3,3] *w[6,6,1,1]", "h = Conv(x, w); y = Conv(h, w)"),
    case(
        "Conv residual",
        "x[2,6,3,3] *w[4,6,1,1] *v[6,4,1,1] *b[6]",
        "h = Conv(x, w); r = Relu(h); k = Conv(r, v, b); y = Add(x, k)",
    ),
    case("Conv after sigmoid", "x[2,6,3,3] *w[4,6,1,1]", "h = Sigmoid(x); y = Conv(h, w)"),
    case(
        "ConvTranspose dense", "x[2,6,3,3] *w[6,4,2,2] *b[4]", "y = ConvTranspose <strides=[2,2]> (x, w, b)"
    ),
    case("ConvTranspose depthwise", "x[2,6,3,3] *w[6,1,2,2] *b[6]", "y = ConvTranspose <group=6> (x, w, b)"),
    case(
        "ConvTranspose depthwise multiplier",
        "x[2,4,3,3] *w[4,3,2,2] *b[12]",
        "y = ConvTranspose <group=4> (x, w, b)",
    ),
    case("ConvTranspose grouped", "x[2,6,3,3] *w[6,2,2,2] *b[6]", "y = ConvTranspose <group=3> (x, w, b)"),
    case(
        "ConvTranspose grouped one output each",
        "x[2,6,3,3] *w[6,1,2,2]",
        "y = ConvTranspose <group=3> (x, w)",
    ),
    *(
        case(
            f"Gemm transA={a} transB={b}",
            f"x[{'4,6' if a else '6,4'}] *w[{'5,4' if b else '4,5'}] *c[5]",
            f"y = Gemm <transA={a}, transB={b}, alpha=0.5, beta=2.0> (x, w, c)",
        )
        for a in (0, 1)
        for b in (0, 1)
    ),
    case("Gemm no C", "x[6,4] *w[4,5]", "y = Gemm(x, w)"),
    case("Gemm C full", "x[6,4] *w[4,5] *c[6,5]", "y = Gemm(x, w, c)"),
    case("Gemm C column", "x[6,4] *w[4,5] *c[6,1]", "y = Gemm(x, w, c)"),
    case("Gemm C row", "x[6,4] *w[4,5] *c[1,5]", "y = Gemm(x, w, c)"),
    case("Gemm C scalar", "x[6,4] *w[4,5] *c[1]", "y = Gemm(x, w, c)"),
    case("Gemm C at run time", "x[6,4] *w[4,5] c[6,5]", "y = Gemm(x, w, c)"),
    case("Gemm activations", "x[6,4] z[4,5]", "y = Gemm(x, z)"),
    case("Gemm parameter left", "x[4,5] *w[6,4]", "y = Gemm(w, x)"),
    case("MatMul parameter right", "x[2,3,4] *w[4,5]", "y = MatMul(x, w)"),
    case("MatMul parameter left", "x[4,5] *w[6,4]", "y = MatMul(w, x)"),
    case("MatMul parameter left batched", "x[3,4,5] *w[6,4]", "y = MatMul(w, x)"),
    case("MatMul batched parameter", "x[3,6,4] *w[3,4,5]", "y = MatMul(x, w)"),
    case("MatMul activations", "x[2,3,4] z[2,4,5]", "y = MatMul(x, z)"),
    case("MatMul broadcast batch", "x[7,1,3,4] z[2,4,5]", "y = MatMul(x, z)"),
    case("MatMul one batch", "x[7,2,3,4] z[1,1,4,5]", "y = MatMul(x, z)"),
    case("MatMul vector right", "x[2,3,4] *w[4]", "y = MatMul(x, w)"),
    case("MatMul vector left", "x[4] *w[2,4,5]", "y = MatMul(x, w)"),
    case("MatMul vectors", "x[4] *w[4]", "y = MatMul(x, w)"),
    case("MatMul tied", "x[3,6] *w[6,6]", "h = MatMul(x, w); y = MatMul(h, w)"),
    case(
        "MatMul tied across rows",
        "x[3,6] z[3,6] *w[6,4]",
        "h = MatMul(x, w); k = MatMul(z, w); y = Add(h, k)",
    ),
    case("MatMul of itself", "x[2,6,4]", "t = Transpose <perm=[0,2,1]> (x); y = MatMul(x, t)"),
    case("MatMul after exponential", "x[3,6] *w[6,4]", "h = Exp(x); y = MatMul(h, w)"),
    case("MatMul of two exponentials", "x[3,6] z[6,4]", "h = Exp(x); k = Exp(z); y = MatMul(h, k)"),
    case("MatMul outer product", "x[6,1] z[1,5]", "y = MatMul(x, z)"),
    # Two uses of one vector are two parameters, of one matrix one.
    case(
        "MatMul shared vector",
        "x[3,6] z[3,6] *b[6] *w[6,4] *v[6,4]",
        "p = Add(x, b); q = Add(z, b); h = MatMul(p, w); k = MatMul(q, v); y = Add(h, k)",
    ),
    case(
        "MatMul gated",
        "x[3,6] *w[6,4] *v[6,4] *u[4,5]",
        "g = MatMul(x, w); s = Sigmoid(g); h = MatMul(x, v); p = Mul(s, h); y = MatMul(p, u)",
    ),
]
