"""Norms, softmax, pools, Resize and reductions."""

from __future__ import annotations

from rule_law import Case, case

_REDUCE = (
    "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
    "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp",
)  # fmt: skip

CASES: list[Case] = [
    case(
        "BatchNormalization",
        "x[2,6,3,3] *s[6] *b[6] *m[6] *p[6]",
        "y = BatchNormalization <epsilon=2.5> (x, s, b, m, p)",
    ),
    case(
        "BatchNormalization matrix",
        "x[4,6] *s[6] *b[6] *m[6] *p[6]",
        "y = BatchNormalization <epsilon=2.5> (x, s, b, m, p)",
    ),
    case(
        "BatchNormalization opset 9",
        "x[2,6,3] *s[6] *b[6] *m[6] *p[6]",
        "y = BatchNormalization <epsilon=2.5> (x, s, b, m, p)",
        opset=9,
    ),
    case(
        "BatchNormalization spatial=0",
        "x[2,6,3] *s[6,3] *b[6,3] *m[6,3] *p[6,3]",
        "y = BatchNormalization <epsilon=2.5, spatial=0> (x, s, b, m, p)",
        opset=7,
        laws=(),
    ),
    case(
        "BatchNormalization training",
        "x[2,6,3] *s[6] *b[6] *m[6] *p[6]",
        "y, rm, rv = BatchNormalization <epsilon=2.5, training_mode=1> (x, s, b, m, p)",
        laws=(),
    ),
    case("InstanceNormalization", "x[2,6,5] *s[6] *b[6]", "y = InstanceNormalization(x, s, b)"),
    case("GroupNormalization", "x[2,6,5] *s[6] *b[6]", "y = GroupNormalization <num_groups=3> (x, s, b)"),
    case(
        "GroupNormalization opset 18",
        "x[2,6,5] *s[3] *b[3]",
        "y = GroupNormalization <num_groups=3> (x, s, b)",
        opset=18,
    ),
    case(
        "GroupNormalization one group",
        "x[2,6,5] *s[6] *b[6]",
        "y = GroupNormalization <num_groups=1> (x, s, b)",
    ),
    case(
        "GroupNormalization group per channel",
        "x[2,6,5] *s[6] *b[6]",
        "y = GroupNormalization <num_groups=6> (x, s, b)",
    ),
    case("LayerNormalization", "x[2,4,6] *s[6] *b[6]", "y = LayerNormalization(x, s, b)"),
    case("LayerNormalization no bias", "x[2,4,6] *s[6]", "y = LayerNormalization <axis=-1> (x, s)"),
    case(
        "LayerNormalization two axes", "x[2,4,6] *s[4,6] *b[4,6]", "y = LayerNormalization <axis=1> (x, s, b)"
    ),
    case(
        "LayerNormalization broadcast scale",
        "x[2,4,6] *s[6] *b[4,6]",
        "y = LayerNormalization <axis=-2> (x, s, b)",
    ),
    case("LayerNormalization statistics used", "x[2,4,6] *s[6]", "y, m = LayerNormalization(x, s)", laws=()),
    case("RMSNormalization", "x[2,4,6] *s[6]", "y = RMSNormalization(x, s)", opset=23),
    case("LpNormalization", "x[2,4,6]", "y = LpNormalization <axis=-1, p=2> (x)", finite=False),
    case("LRN", "x[2,6,3,3]", "y = LRN <size=3> (x)"),
    case("MeanVarianceNormalization", "x[2,6,3,3]", "y = MeanVarianceNormalization(x)", laws=("any",)),
    case(
        "MeanVarianceNormalization axes",
        "x[2,6,3,3]",
        "y = MeanVarianceNormalization <axes=[-1]> (x)",
        laws=("any",),
    ),
    *(case(op, "x[2,4,6]", f"y = {op}(x)") for op in ("Softmax", "LogSoftmax", "Hardmax")),
    *(
        case(f"{op} axis", "x[2,4,6]", f"y = {op} <axis=1> (x)")
        for op in ("Softmax", "LogSoftmax", "Hardmax")
    ),
    case("Softmax negative axis", "x[2,4,6]", "y = Softmax <axis=-3> (x)"),
    case("Softmax flattened", "x[2,4,6]", "y = Softmax(x)", opset=11),
    case("Softmax flattened axis", "x[2,4,6]", "y = Softmax <axis=2> (x)", opset=11),
    case("LogSoftmax flattened", "x[2,4,6]", "y = LogSoftmax(x)", opset=11),
    *(
        case(f"{pool}", "x[2,6,5,5]", f"y = {pool}(x)")
        for pool in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
    ),
    case("MaxPool", "x[2,6,5,5]", "y = MaxPool <kernel_shape=[2,2], strides=[2,2]> (x)"),
    case("MaxPool padded", "x[2,6,5]", "y = MaxPool <kernel_shape=[3], pads=[1,1]> (x)"),
    case("MaxPool ceil", "x[2,6,5,5]", "y = MaxPool <kernel_shape=[2,2], strides=[2,2], ceil_mode=1> (x)"),
    case("MaxPool indices leave the model", "x[2,6,4]", "y, i = MaxPool <kernel_shape=[2]> (x)", laws=()),
    case("MaxPool indices used", "x[2,6,4]", "y, i = MaxPool <kernel_shape=[2]> (x); z = Neg(i)", laws=()),
    case("AveragePool", "x[2,6,5,5]", "y = AveragePool <kernel_shape=[3,3], pads=[1,1,1,1]> (x)"),
    case("LpPool", "x[2,6,5,5]", "y = LpPool <kernel_shape=[2,2]> (x)"),
    case("Resize scales", "x[2,6,3,4]", 'y = Resize(x, "", s)', s=[1.0, 1.0, 2.0, 2.0]),
    case("Resize sizes", "x[2,6,3,4]", 'y = Resize <mode="linear"> (x, "", "", s)', s=[2, 6, 5, 8]),
    case("Resize sizes of some axes", "x[2,6,3,4]", 'y = Resize <axes=[2,3]> (x, "", "", s)', s=[6, 8]),
    case(
        "Resize sizes of axes with channels",
        "x[2,6,3,4]",
        'y = Resize <axes=[1,-1]> (x, "", "", s)',
        s=[6, 8],
    ),
    case("Resize opset 10", "x[2,6,3,4]", "y = Resize(x, s)", s=[1.0, 1.0, 2.0, 2.0], opset=10),
    # The size stays, the positions don't: linear interpolation along the channels.
    case("Resize by little", "x[2,6,3]", 'y = Resize <mode="linear"> (x, "", s)', s=[1.0, 1.1, 2.0]),
    case(
        "Resize crop",
        "x[2,6,4]",
        'y = Resize <mode="linear", coordinate_transformation_mode="tf_crop_and_resize"> (x, r, "", s)',
        r=[0.0, 0.2, 0.0, 1.0, 0.9, 1.0],
        s=[2, 6, 8],
        laws=(),
    ),
    case("Upsample", "x[2,6,3]", "y = Upsample(x, s)", s=[1.0, 1.0, 2.0], opset=9),
    *(
        case(f"{op} input", "x[3,6,4]", f"y = {op}(x, a)", a=[1], finite=op not in ("ReduceLogSum",))
        for op in _REDUCE
    ),
    *(
        case(
            f"{op} drops",
            "x[3,6,4]",
            f"y = {op} <keepdims=0> (x, a)",
            a=[-1, 0],
            finite=op not in ("ReduceLogSum",),
        )
        for op in _REDUCE
    ),
    case("ReduceMean attribute", "x[3,6,4]", "y = ReduceMean <axes=[1,2], keepdims=0> (x)", opset=13),
    case("ReduceSum attribute", "x[3,6,4]", "y = ReduceSum <axes=[-2]> (x)", opset=11),
    case("ReduceMean all", "x[3,6]", "y = ReduceMean(x)", laws=("zero",)),
    case("ReduceSum all dropped", "x[3,6]", "y = ReduceSum <keepdims=0> (x)"),
    case("ReduceSum nothing", "x[3,6]", "y = ReduceSum <noop_with_empty_axes=1> (x)"),
    case("ReduceSum of exponentials", "x[3,6,4]", "e = Exp(x); y = ReduceSum(e, a)", a=[1]),
    case(
        "ReduceSum before and after sigmoid",
        "x[3,6,4]",
        "e = Sigmoid(x); p = Mul(e, x); y = ReduceSum(p, a)",
        a=[1],
    ),
    case("ReduceSum runtime axes", "x[3,6] !a:int64[1]<2", "y = ReduceSum(x, a)", laws=()),
    case("ReduceMax opset 12", "x[3,6,4]", "y = ReduceMax <axes=[1]> (x)", opset=12),
    case("ArgMin", "x[3,6,4]", "y = ArgMin(x)"),
    case("CumSum", "x[3,6,4]", "y = CumSum(x, a)", a=1),
    case("CumSum negative reversed", "x[3,6,4]", "y = CumSum <reverse=1> (x, a)", a=-1),
    case("Trilu", "x[3,6,4]", "y = Trilu(x)"),
    case("Trilu lower", "x[3,6,4]", "y = Trilu <upper=0> (x, k)", k=1),
    case("Unique", "x[6]", "y = Unique(x)", laws=()),
    # Decomposed norms.
    case(
        "ReduceMean layer norm",
        "x[2,4,6] *s[6] *b[6]",
        "m = ReduceMean(x, a); c = Sub(x, m); q = Mul(c, c); v = ReduceMean(q, a);"
        "e = Add(v, eps); r = Sqrt(e);"
        "n = Div(c, r); k = Mul(n, s); y = Add(k, b)",
        a=[-1],
        eps=1e-5,
        laws=("zero",),
    ),
    case(
        "ReduceMean group norm",
        "x[2,6,5] *s[6,1] *b[6,1]",
        "g = Reshape(x, t); m = ReduceMean(g, a); c = Sub(g, m); u = Reshape(c, f);"
        "k = Mul(u, s); y = Add(k, b)",
        a=[2, 3],
        t=[2, 3, 2, 5],
        f=[2, 6, 5],
    ),
]
