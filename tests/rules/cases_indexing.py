"""TopK, ArgMax, OneHot, Equal on positions, GatherElements, GatherND, Scatter..."""

from __future__ import annotations

import numpy as np
from rule_law import Case, case

K2 = {"k": [2]}
CASES: list[Case] = [
    # An output of positions keeps its axis whole.
    case("TopK", "x[3,6,4]", "v, i = TopK(x, k)", **K2),
    case("TopK axis", "x[3,6,4]", "v, i = TopK <axis=1> (x, k)", k=[3]),
    case("TopK values", "x[3,6]", "v, i = TopK(x, k); y = Neg(v)", outputs=("y",), **K2),
    case("TopK smallest", "x[3,6]", "v, i = TopK <largest=0> (x, k)", outputs=("v",), **K2),
    case("ArgMax", "x[3,6,4]", "y = ArgMax <axis=1> (x)"),
    case("ArgMax dropped", "x[3,6,4]", "y = ArgMax <axis=-1, keepdims=0> (x)"),
    case("ArgMin looked up", "x[3,6] *w[6,4]", "i = ArgMin <axis=1, keepdims=0> (x); y = Gather(w, i)"),
    case("ArgMax looked up", "x[3,6] *w[6,4]", "i = ArgMax <axis=1, keepdims=0> (x); y = Gather(w, i)"),
    case(
        "Gather of the best rows",
        "x[3,6] *w[6,4]",
        "v, i = TopK(x, k); y = Gather(w, i)",
        outputs=("y",),
        **K2,
    ),
    case(
        "Gather of the best rows, moved indices",
        "x[3,6] *w[6,4]",
        "v, i = TopK(x, k); t = Transpose(i); c = Cast <to=6> (t); f = Reshape(c, s); y = Gather(w, f)",
        outputs=("y",),
        s=[6],
        **K2,
    ),
    case(
        "Gather of another axis than the one ranked",
        "x[3,6] *w[5,4]",
        "v, i = TopK(x, k); m = Mod(i, n); y = Gather(w, m)",
        outputs=("y",),
        n=[5],
        **K2,
    ),
    case("GatherElements", "x[3,6] i:int64[3,2]<6", "y = GatherElements <axis=1> (x, i)"),
    case("GatherElements fewer rows", "x[3,6] i:int64[2,2]<6", "y = GatherElements <axis=1> (x, i)"),
    case(
        "GatherElements of the best",
        "x[3,6] z[3,6]",
        "v, i = TopK(x, k); y = GatherElements <axis=1> (z, i)",
        outputs=("y",),
        **K2,
    ),
    case("GatherND", "x[3,6,4] i:int64[2,2]<3", "y = GatherND(x, i)"),
    case("GatherND batched", "x[3,6,4] i:int64[3,2,1]<6", "y = GatherND <batch_dims=1> (x, i)"),
    case(
        "GatherND of the best",
        "x[3,6] *w[6,4,2]",
        "v, i = TopK(x, k); u = Unsqueeze(i, m); y = GatherND(w, u)",
        outputs=("y",),
        m=[2],
        **K2,
    ),
    case("ScatterND", "x[6,4] *i:int64[2,1]<6 u[2,4]", "y = ScatterND(x, i, u)"),
    case("ScatterND sum", "x[6,4] *i:int64[2,1]<6 u[2,4]", 'y = ScatterND <reduction="add"> (x, i, u)'),
    case("ScatterElements", "x[3,6] i:int64[3,2]<6 u[3,2]", "y = ScatterElements <axis=1> (x, i, u)"),
    case(
        "ScatterElements fewer rows", "x[3,6] i:int64[2,2]<6 u[2,2]", "y = ScatterElements <axis=1> (x, i, u)"
    ),
    case(
        "ScatterElements of the best",
        "x[3,6] z[3,6]",
        "v, i = TopK(x, k); y = ScatterElements <axis=1> (z, i, v)",
        outputs=("y",),
        **K2,
    ),
    case(
        "ScatterElements sum of the best",
        "x[3,6] z[3,6]",
        'v, i = TopK(x, k); y = ScatterElements <axis=1, reduction="add"> (z, i, v)',
        outputs=("y",),
        **K2,
    ),
    case("OneHot", "i:int64[3,4]<5", "y = OneHot(i, n, v)", n=[5], v=np.array([0.0, 1.0], np.float32)),
    case(
        "OneHot of the best",
        "x[3,6]",
        "v, i = TopK(x, k); y = OneHot(i, n, o)",
        outputs=("y",),
        n=[6],
        o=np.array([0.0, 1.0], np.float32),
        **K2,
    ),
    case(
        "OneHot of the best, first axis, off is not zero",
        "x[3,6]",
        "v, i = TopK(x, k); y = OneHot <axis=0> (i, n, o)",
        outputs=("y",),
        n=[6],
        o=np.array([0.5, 1.0], np.float32),
        **K2,
    ),
    case(
        "OneHot of more classes than positions",
        "x[3,6]",
        "v, i = TopK(x, k); y = OneHot(i, n, o)",
        outputs=("y",),
        n=[8],
        o=np.array([0.0, 1.0], np.float32),
        **K2,
    ),
    case(
        "Equal to each position",
        "x[3,6]",
        "v, i = TopK(x, k); u = Unsqueeze(i, m); e = Equal(u, n); y = Cast <to=1> (e)",
        outputs=("y",),
        m=[2],
        n=np.arange(6),
        **K2,
    ),
    case(
        "Equal to some positions in another order",
        "x[3,6]",
        "v, i = TopK(x, k); u = Unsqueeze(i, m); e = Equal(n, u); y = Cast <to=1> (e)",
        outputs=("y",),
        m=[2],
        n=[4, 1, 3],
        **K2,
    ),
    case(
        "Equal to one position, which is added up",
        "x[3,6] z[3,2]",
        "v, i = TopK(x, k); e = Equal(i, n); f = Cast <to=1> (e); g = Mul(f, v); y = Add(z, g)",
        outputs=("y",),
        n=3,
        **K2,
    ),
    case(
        "Equal to numbers that are no positions",
        "x[3,6]",
        "v, i = TopK(x, k); e = Equal(i, n); y = Cast <to=1> (e)",
        outputs=("y",),
        n=7,
        **K2,
    ),
    case(
        "Add of parts that stand for a position each",
        "x[3,6] z[3,1]",
        "a = Slice(x, s0, e0, ax); b = Slice(x, e0, e1, ax); p = Add(a, b); y = Add(p, z)",
        s0=[1],
        e0=[2],
        e1=[3],
        ax=[1],
    ),
    case(
        "Mul by a part that stands for a position",
        "x[3,6] z[3,4] r[3,4]",
        "a = Slice(x, s0, e0, ax); p = Mul(z, a); y = Add(p, r)",
        s0=[1],
        e0=[2],
        ax=[1],
    ),
    case(
        "Add of a part that is no longer zero",
        "x[3,6] z[3,1]",
        "a = Slice(x, s0, e0, ax); q = Sigmoid(a); y = Add(q, z)",
        s0=[1],
        e0=[2],
        ax=[1],
    ),
    *(
        case(
            f"Split into parts that stand for a position each, {name}",
            "x[3,4] a[3,5] b[3,5] c[3,5] r[3,5]",
            f"{split}; f = Mul(p, a); g = Mul(q, b); h = Mul(s, c); d = ReduceSum(t, ax); e = Mul(d, r);"
            "k = Sum(f, g, h); y = Add(k, e)",
            opset=opset,
            ax=[1],
            **constants,
        )
        for name, split, opset, constants in (
            ("sizes", "p, q, s, t = Split <axis=1> (x, n)", 13, {"n": [1, 1, 1, 1]}),
            ("number", "p, q, s, t = Split <axis=-1, num_outputs=4> (x)", 18, {}),
            ("equal", "p, q, s, t = Split <axis=1> (x)", 13, {}),
        )
    ),
    case(
        "Split by an attribute into parts that stand for a position each, or two",
        "x[3,5] a[3,5] b[3,5] c[3,2] r[3,5]",
        "p, q, s, t = Split <axis=1, split=[1,1,2,1]> (x); f = Mul(p, a); g = Mul(t, b); k = Sum(f, g, r);"
        "h = Mul(s, c); e = Mul(q, k)",
        opset=11,
    ),
    case(
        "Concat of parts that stand for a position each",
        "x[3,6] z[3,4]",
        "a = Slice(x, s0, e0, ax); b = Slice(x, e0, e1, ax); p = Mul(a, z); y = Concat <axis=1> (p, b, z)",
        s0=[1],
        e0=[2],
        e1=[3],
        ax=[1],
    ),
    case(
        "NonZero of a part selects rows to add",
        "x[5,6] z[5,3]",
        "a = Slice(x, s0, e0, ax); h = Squeeze(a, ax); g = Relu(h); n = NonZero(g); r = Squeeze(n, zero);"
        "d = Gather(z, r); u = Unsqueeze(r, ax); q = Expand(u, size);"
        'e = Exp(d); y = ScatterElements <axis=0, reduction="add"> (z, q, e)',
        s0=[1],
        e0=[2],
        ax=[1],
        zero=[0],
        size=[1, 3],
        laws=("zero",),
    ),
    case(
        "Concat of single positions, weighted and added up",
        "a[3,1,4] b[3,1,4] c[3,1,4] x[3,3]",
        "h = Concat <axis=1> (a, b, c); t = Unsqueeze(x, m); p = Mul(h, t);"
        "y = ReduceSum <keepdims=0> (p, one)",
        m=[2],
        one=[1],
    ),
    case("Compress", "x[2,6]", "y = Compress <axis=1> (x, c)", c=np.array([True, False, True, True])),
]
