"""Operators on quantized numbers: zero is written as the zero point."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from rule_law import Array, Case, case


def scales(*shape: int) -> Array:
    """Small and all different, so that results don't saturate and a wrong scale shows."""
    count = int(np.prod(shape))
    return np.linspace(0.011, 0.023, count).reshape(shape).astype(np.float32)


def points(*shape: int, dtype: type = np.uint8, around: int = 100) -> Array:
    """Zero points, all different."""
    return (around + np.arange(int(np.prod(shape)))).reshape(shape).astype(dtype)


def nibbles(*shape: int) -> Array:
    """4-bit numbers."""
    return (np.arange(int(np.prod(shape))) * 7 % 15 - 7).reshape(shape).astype(ml_dtypes.int4)


S, T = np.array(0.02, np.float32), np.array(0.3, np.float32)
Z, OTHER, ZERO = (np.array(n, np.uint8) for n in (120, 99, 0))
QDQ = "q = QuantizeLinear(x, s, z); d = DequantizeLinear(q, s, z);"
CONV = "x:uint8[2,6,4,4]<255 *w:uint8[4,6,3,3]<255"
MATMUL = "x:uint8[3,6]<255 *w:uint8[6,4]<255"

CASES: list[Case] = [
    case("QuantizeLinear", "x[3,6]", "y = QuantizeLinear(x, s, z)", s=S, z=Z),
    case("QuantizeLinear no zero point", "x[3,6]", "y = QuantizeLinear(x, s)", s=S),
    case("QuantizeLinear zero point 0", "x[3,6]", "y = QuantizeLinear(x, s, z)", s=S, z=np.array(0, np.int8)),
    case("QuantizeLinear opset 10", "x[3,6]", "y = QuantizeLinear(x, s, z)", s=S, z=Z, opset=10),
    case(
        "QuantizeLinear per axis",
        "x[3,6,2]",
        "y = QuantizeLinear(x, s, z)",
        s=scales(6),
        z=points(6),
    ),
    case(
        "QuantizeLinear per axis symmetric",
        "x[3,6,2]",
        "y = QuantizeLinear <axis=-1> (x, s, z)",
        s=scales(2),
        z=np.zeros(2, np.int8),
    ),
    case("QuantizeLinear scale at run time", "x[3,6] s[6]", "y = QuantizeLinear(x, s, z)", z=points(6)),
    case(
        "QuantizeLinear blocked",
        "x[3,6]",
        "y = QuantizeLinear <axis=1, block_size=2> (x, s, z)",
        s=scales(3, 3),
        z=points(3, 3),
    ),
    case(
        "QuantizeLinear ragged blocks",
        "x[3,7]",
        "y = QuantizeLinear <axis=1, block_size=3> (x, s)",
        s=scales(3, 3),
    ),
    case("QuantizeLinear one block", "x[3,6]", "y = QuantizeLinear <block_size=6> (x, s)", s=scales(3, 1)),
    case("DequantizeLinear", "x:uint8[3,6]<255", "y = DequantizeLinear(x, s, z)", s=S, z=Z),
    case("DequantizeLinear no zero point", "x:uint8[3,6]<255", "y = DequantizeLinear(x, s)", s=S),
    case(
        "DequantizeLinear per axis",
        "x:uint8[3,6]<255",
        "y = DequantizeLinear(x, s, z)",
        s=scales(6),
        z=points(6),
    ),
    case(
        "DequantizeLinear blocked",
        "x:uint8[3,6]<255",
        "y = DequantizeLinear <axis=0, block_size=3> (x, s, z)",
        s=scales(1, 6),
        z=points(1, 6),
    ),
    case(
        "DequantizeLinear blocked rows",
        "x:uint8[6,3]<255",
        "y = DequantizeLinear <axis=-2, block_size=3> (x, s)",
        s=scales(2, 3),
    ),
    case(
        "DequantizeLinear weights",
        "x[3,6] *w:uint8[6,4]<255",
        "d = DequantizeLinear(w, s, z); y = MatMul(x, d)",
        s=S,
        z=Z,
    ),
    case(
        "DequantizeLinear weights per channel",
        "x[3,6] *w:uint8[4,6]<255 *b:int32[4]<99",
        "d = DequantizeLinear <axis=0> (w, s, z); c = DequantizeLinear <axis=0> (b, t, zb);"
        "y = Gemm <transB=1> (x, d, c)",
        s=scales(4),
        z=points(4),
        t=scales(4),
        zb=np.zeros(4, np.int32),
    ),
    case(
        "DequantizeLinear weights transposed",
        "x[3,6] *w:uint8[4,6]<255",
        "d = DequantizeLinear(w, s, z); t = Transpose(d); y = MatMul(x, t)",
        s=scales(6),
        z=points(6),
    ),
    case(
        "DequantizeLinear blocked nibbles",
        "x[3,8]",
        "d = DequantizeLinear <axis=0, block_size=2> (w, s, z); y = MatMul(x, d)",
        w=nibbles(8, 5),
        s=scales(4, 5),
        z=nibbles(4, 5),
    ),
    case(
        "DequantizeLinear float8",
        "x[3,6]",
        "d = DequantizeLinear(w, s); y = MatMul(x, d)",
        w=np.linspace(-3, 3, 24).reshape(6, 4).astype(ml_dtypes.float8_e4m3fn),
        s=S,
    ),
    case(
        "DequantizeLinear zero point at run time",
        "x[3,6] *w:uint8[6,4]<255 !z:uint8[]<255",
        "d = DequantizeLinear(w, s, z); y = MatMul(x, d)",
        s=S,
    ),
    case(
        "DequantizeLinear embedding gathered first",
        "!i:int64[5]<7 *w:uint8[7,6]<255 *v[6,4]",
        "g = Gather(w, i); d = DequantizeLinear(g, s, z); y = MatMul(d, v)",
        s=S,
        z=Z,
    ),
    # What stands between the two keeps the zero point, or does not.
    case("QuantizeLinear and back", "x[3,6]", QDQ + "r = ReduceSum(d, a)", s=S, z=Z, a=[1]),
    case(
        "QuantizeLinear and back by another zero point",
        "x[3,6]",
        "q = QuantizeLinear(x, s, z); d = DequantizeLinear(q, s, u); r = ReduceSum(d, a)",
        s=S,
        z=Z,
        u=OTHER,
        a=[1],
    ),
    case(
        "QuantizeLinear moved and back",
        "x[2,6,4] *v[24,5]",
        "q = QuantizeLinear(x, s, z); t = Transpose <perm=[0,2,1]> (q); f = Reshape(t, to);"
        "l, m = Split <axis=1> (f, n); c = Concat <axis=1> (m, l);"
        "d = DequantizeLinear(c, s, z); r = ReduceSum(d, a); y = MatMul(d, v)",
        s=S,
        z=Z,
        to=[2, 24],
        n=[10, 14],
        a=[1],
    ),
    case(
        "QuantizeLinear pooled and back",
        "x[2,6,4,4]",
        "q = QuantizeLinear(x, s, z); p = MaxPool <kernel_shape=[2,2]> (q);"
        "d = DequantizeLinear(p, s, z); r = ReduceSum(d, a)",
        s=S,
        z=Z,
        a=[1],
    ),
    case(
        "QuantizeLinear cast",
        "x[3,6]",
        "q = QuantizeLinear(x, s, z); c = Cast <to=1> (q); r = ReduceSum(c, a)",
        s=S,
        z=Z,
        a=[1],
    ),
    case(
        "QuantizeLinear joined with others",
        "x[3,6] u:uint8[3,6]<255",
        "q = QuantizeLinear(x, s, z); c = Concat <axis=0> (q, u); d = DequantizeLinear(c, s, z);"
        "r = ReduceSum(d, a)",
        s=S,
        z=Z,
        a=[1],
    ),
    case("DynamicQuantizeLinear", "x[3,6]", "y, s, z = DynamicQuantizeLinear(x)"),
    case(
        "DynamicQuantizeLinear after exponential", "x[3,6]", "e = Exp(x); y, s, z = DynamicQuantizeLinear(e)"
    ),
    case(
        "DynamicQuantizeLinear linear layer",
        "x[3,6] *w:uint8[6,4]<255 *b[4]",
        "q, s, z = DynamicQuantizeLinear(x); m = MatMulInteger(q, w, z, zw); f = Cast <to=1> (m);"
        "k = Mul(s, sw); h = Mul(f, k); y = Add(h, b)",
        sw=scales(4),
        zw=points(4),
    ),
    case(
        "DynamicQuantizeLinear of two activations",
        "x[3,6] u[6,4]",
        "q, s, z = DynamicQuantizeLinear(x); p, t, o = DynamicQuantizeLinear(u);"
        "m = MatMulInteger(q, p, z, o); y = Cast <to=1> (m)",
    ),
    case(
        "DynamicQuantizeLinear with a strange zero point",
        "x[3,6] u[6,4]",
        "q, s, z = DynamicQuantizeLinear(x); p, t, o = DynamicQuantizeLinear(u);"
        "m = MatMulInteger(q, p, o, z); y = Cast <to=1> (m)",
    ),
    case("MatMulInteger", MATMUL, "y = MatMulInteger(x, w, zx, zw)", zx=Z, zw=OTHER),
    case("MatMulInteger no zero points", MATMUL, "y = MatMulInteger(x, w)"),
    case("MatMulInteger per column", MATMUL, 'y = MatMulInteger(x, w, "", z)', z=points(4)),
    case(
        "MatMulInteger per row",
        "*x:uint8[4,6]<255 w:uint8[6,3]<255",
        "y = MatMulInteger(x, w, zx, zw)",
        zx=points(4, 1),
        zw=Z,
    ),
    case(
        "MatMulInteger stacks",
        "x:uint8[2,3,6]<255 *w:uint8[2,6,4]<255",
        'y = MatMulInteger(x, w, "", z)',
        z=points(2, 1, 4),
    ),
    case("MatMulInteger vector", "x:uint8[6]<255 *w:uint8[6,4]<255", 'y = MatMulInteger(x, w, "", z)', z=Z),
    case(
        "MatMulInteger zero point at run time", MATMUL + " !z:uint8[]<255", 'y = MatMulInteger(x, w, "", z)'
    ),
    case(
        "QLinearMatMul",
        MATMUL,
        "y = QLinearMatMul(x, s, zx, w, s, zw, t, zy)",
        s=S,
        t=T,
        zx=ZERO,
        zw=OTHER,
        zy=Z,
    ),
    case(
        "QLinearMatMul per column",
        MATMUL,
        "y = QLinearMatMul(x, s, zx, w, sw, zw, t, zy)",
        s=S,
        sw=scales(4),
        t=T,
        zx=Z,
        zw=points(4),
        zy=Z,
    ),
    case(
        "QLinearMatMul then sum",
        MATMUL,
        "q = QLinearMatMul(x, s, zx, w, s, zw, t, zy); y = DequantizeLinear(q, t, zy); r = ReduceSum(y, a)",
        s=S,
        t=T,
        zx=ZERO,
        zw=OTHER,
        zy=Z,
        a=[1],
    ),
    case(
        "QLinearMatMul per row",
        "*x:uint8[4,6]<255 w:uint8[6,3]<255",
        "y = QLinearMatMul(x, sx, zx, w, s, z, ty, zy)",
        sx=scales(4, 1),
        zx=points(4, 1),
        s=S,
        z=Z,
        ty=scales(4, 1) * 20,
        zy=points(4, 1),
    ),
    case("ConvInteger", CONV, "y = ConvInteger <pads=[1,1,1,1]> (x, w, zx, zw)", zx=Z, zw=OTHER),
    case("ConvInteger no zero points", CONV, "y = ConvInteger(x, w)"),
    case("ConvInteger per channel", CONV, 'y = ConvInteger(x, w, "", z)', z=points(4)),
    case(
        "ConvInteger depthwise",
        "x:uint8[2,6,4,4]<255 *w:uint8[6,1,3,3]<255",
        "y = ConvInteger <group=6> (x, w, zx, zw)",
        zx=Z,
        zw=Z,
    ),
    case(
        "ConvInteger grouped",
        "x:uint8[2,6,4,4]<255 *w:uint8[9,2,3,3]<255",
        "y = ConvInteger <group=3> (x, w, zx, zw)",
        zx=Z,
        zw=points(9),
    ),
    case(
        "QLinearConv",
        CONV + " *b:int32[4]<9",
        "y = QLinearConv <pads=[1,1,1,1]> (x, s, zx, w, s, zw, t, zy, b)",
        s=S,
        t=T,
        zx=Z,
        zw=OTHER,
        zy=Z,
    ),
    case(
        "QLinearConv per channel",
        CONV,
        "y = QLinearConv(x, s, zx, w, sw, zw, t, zy)",
        s=S,
        t=T,
        sw=scales(4),
        zx=Z,
        zw=points(4),
        zy=Z,
    ),
    case(
        "QLinearConv grouped",
        "x:uint8[2,6,4,4]<255 *w:int8[9,2,3,3]<127 *b:int32[9]<9",
        "y = QLinearConv <group=3> (x, s, zx, w, sw, zw, t, zy, b)",
        s=S,
        t=T,
        sw=scales(9),
        zx=Z,
        zw=np.zeros(9, np.int8),
        zy=Z,
    ),
    case(
        "QLinearConv twice",
        CONV + " *v:uint8[3,4,1,1]<255",
        "h = QLinearConv(x, s, zx, w, s, zw, t, zy); y = QLinearConv(h, t, zy, v, s, zw, t, zy)",
        s=S,
        t=T,
        zx=Z,
        zw=OTHER,
        zy=Z,
    ),
    case(
        "QLinearAdd",
        "x:uint8[3,6]<255 u:uint8[6]<255",
        "y = com.microsoft.QLinearAdd(x, s, z, u, t, z, t, z)",
        s=S,
        t=T,
        z=Z,
    ),
    case(
        "QLinearAdd then sum",
        "x[3,6] u[3,6]",
        "p = QuantizeLinear(x, s, z); q = QuantizeLinear(u, s, o);"
        "a = com.microsoft.QLinearAdd(p, s, z, q, s, o, t, z); d = DequantizeLinear(a, t, z);"
        "y = ReduceSum(d, one)",
        s=S,
        t=T,
        z=Z,
        o=OTHER,
        one=[1],
    ),
    case(
        "QLinearAdd parameter",
        "x:uint8[3,6]<255 *b:uint8[6]<255",
        "y = com.microsoft.QLinearAdd(x, s, z, b, t, o, t, z)",
        s=S,
        t=T,
        z=Z,
        o=OTHER,
    ),
    case(
        "QLinearMul",
        "x:uint8[3,6]<255 *b:uint8[6]<255",
        "m = com.microsoft.QLinearMul(x, s, z, b, t, o, t, z); d = DequantizeLinear(m, t, z);"
        "y = ReduceSum(d, one)",
        s=S,
        t=T,
        z=Z,
        o=OTHER,
        one=[1],
    ),
    case(
        "QLinearLeakyRelu",
        "x:uint8[3,6]<255",
        "y = com.microsoft.QLinearLeakyRelu <alpha=0.1> (x, s, z, t, z)",
        s=S,
        t=T,
        z=Z,
    ),
    case(
        "QLinearLeakyRelu then sum",
        "x[3,6]",
        "q = QuantizeLinear(x, s, z); l = com.microsoft.QLinearLeakyRelu <alpha=0.1> (q, s, z, t, o);"
        "d = DequantizeLinear(l, t, o); y = ReduceSum(d, one)",
        s=S,
        t=T,
        z=Z,
        o=OTHER,
        one=[1],
    ),
    case(
        "QLinearSigmoid", "x:uint8[3,6]<255", "y = com.microsoft.QLinearSigmoid(x, s, z, t, z)", s=S, t=T, z=Z
    ),
    case(
        "QLinearSoftmax",
        "x:uint8[3,4,6]<255",
        "y = com.microsoft.QLinearSoftmax <opset=13, axis=1> (x, s, z, t, z)",
        s=S,
        t=T,
        z=Z,
    ),
    case(
        "QLinearSoftmax flattened",
        "x:uint8[3,4,6]<255",
        "y = com.microsoft.QLinearSoftmax <opset=11, axis=1> (x, s, z, t, z)",
        s=S,
        t=T,
        z=Z,
    ),
    case(
        "QLinearGlobalAveragePool",
        "x:uint8[2,6,3,3]<255",
        "y = com.microsoft.QLinearGlobalAveragePool <channels_last=0> (x, s, z, t, o)",
        s=S,
        t=T,
        z=Z,
        o=OTHER,
    ),
    case(
        "QLinearAveragePool then sum",
        "x[2,6,4,4]",
        "q = QuantizeLinear(x, s, z);"
        "p = com.microsoft.QLinearAveragePool <kernel_shape=[2,2]> (q, s, z, s, o);"
        "d = DequantizeLinear(p, s, o); y = ReduceSum(d, one)",
        s=S,
        z=Z,
        o=OTHER,
        one=[1],
    ),
    case(
        "QLinearConcat",
        "x:uint8[3,6]<255 u:uint8[3,2]<255",
        "y = com.microsoft.QLinearConcat <axis=1> (t, z, x, s, z, u, s, o)",
        s=S,
        t=T,
        z=Z,
        o=OTHER,
    ),
    case(
        "QLinearConcat then sum",
        "x[3,6] u[4,6]",
        "p = QuantizeLinear(x, s, z); q = QuantizeLinear(u, s, o);"
        "c = com.microsoft.QLinearConcat <axis=0> (t, z, p, s, z, q, s, o); d = DequantizeLinear(c, t, z);"
        "y = ReduceSum(d, one)",
        s=S,
        t=T,
        z=Z,
        o=OTHER,
        one=[1],
    ),
    *(
        case(
            f"QGemm transA={a} transB={b}",
            f"x:uint8[{'6,3' if a else '3,6'}]<255 *w:uint8[{'4,6' if b else '6,4'}]<255 *c:int32[4]<99",
            f"y = com.microsoft.QGemm <transA={a}, transB={b}> (x, s, z, w, sw, zw, c, t, z)",
            s=S,
            t=T,
            z=Z,
            sw=scales(4),
            zw=points(4),
        )
        for a in (0, 1)
        for b in (0, 1)
    ),
    case(
        "QGemm to float",
        "x:uint8[3,6]<255 *w:uint8[6,4]<255",
        "y = com.microsoft.QGemm(x, s, z, w, s, o)",
        s=S,
        z=Z,
        o=OTHER,
    ),
    case(
        "MatMulIntegerToFloat",
        "x:uint8[3,6]<255 *w:uint8[6,4]<255 *b[4]",
        "y = com.microsoft.MatMulIntegerToFloat(x, w, s, sw, z, zw, b)",
        s=S,
        z=Z,
        sw=scales(4),
        zw=points(4),
    ),
    case(
        "DynamicQuantizeMatMul",
        "x[3,6] *w:uint8[6,4]<255 *b[4]",
        "y = com.microsoft.DynamicQuantizeMatMul(x, w, sw, zw, b)",
        sw=scales(4),
        zw=points(4),
    ),
    case(
        "DynamicQuantizeMatMul after exponential",
        "x[3,6] *w:uint8[6,4]<255",
        "e = Exp(x); y = com.microsoft.DynamicQuantizeMatMul(e, w, s, z)",
        s=S,
        z=Z,
    ),
    case(
        "QuantizeLinear and back in onnxruntime's own domain",
        "x[3,6]",
        "q = com.microsoft.QuantizeLinear <axis=1> (x, s, z);"
        "d = com.microsoft.DequantizeLinear <axis=1> (q, s, z); r = ReduceSum(d, a)",
        s=S,
        z=np.array(3000, np.uint16),
        a=[1],
    ),
]
