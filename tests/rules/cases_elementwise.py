"""Elementwise operators, with numpy broadcasting in both directions."""

from __future__ import annotations

from rule_law import Case, case

_UNARY = (
    "Abs", "Asinh", "Atan", "Celu", "Ceil", "Elu", "Erf", "Floor", "Gelu", "HardSwish", "Identity",
    "LeakyRelu", "Mish", "Neg", "Relu", "Round", "Selu", "Shrink", "Sign", "Sin", "Sinh", "Softsign",
    "Tan", "Tanh", "ThresholdedRelu", "Cos", "Cosh", "Exp", "HardSigmoid", "IsInf", "IsNaN",
    "Reciprocal", "Sigmoid", "Softplus",
)  # fmt: skip
_BINARY = ("Add", "Sub", "Mul", "Max", "Min", "Mean", "Sum")

CASES: list[Case] = [
    *(
        # A node in front keeps Identity in the graph.
        case(
            f"{op}",
            "x[2,6,5]",
            f"h = Neg(x); y = {op}(h); z = Relu(y)" if op not in ("IsInf", "IsNaN") else f"y = {op}(x)",
            finite=op != "Reciprocal",
        )
        for op in _UNARY
    ),
    *(
        case(f"{op} domain", "x[2,6,5]", f"p = Mul(x, x); s = Tanh(p); y = {op}(s)", finite=op != "Log")
        for op in ("Sqrt", "Log", "Acos", "Asin", "Atanh")
    ),
    case("Acosh domain", "x[2,6,5]", "c = Cosh(x); y = Acosh(c)"),
    *(case(f"{op} same shapes", "x[2,6,5] z[2,6,5]", f"y = {op}(x, z)") for op in _BINARY),
    *(case(f"{op} parameter right", "x[2,6,5] *w[6,1]", f"y = {op}(x, w)") for op in _BINARY),
    *(case(f"{op} parameter left", "x[5] *w[2,6,1]", f"y = {op}(w, x)") for op in _BINARY),
    *(case(f"{op} scalar", "x[2,6]", f"y = {op}(x, c)", c=0.5) for op in _BINARY),
    case("Add itself", "x[2,6]", "y = Add(x, x)"),
    case("Add transposed itself", "x[6,6]", "t = Transpose <perm=[1,0]> (x); y = Add(x, t)"),
    case("Add both broadcast", "x[6,1] z[1,5]", "y = Add(x, z)"),
    case("Sum of three", "x[2,6] *w[6] z[1,6]", "y = Sum(x, w, z)"),
    case("Sum of one", "x[2,6]", "y = Sum(x)"),
    case("Max of three", "x[2,6] *w[6] z[2,1]", "y = Max(x, w, z)"),
    case("Mean of three", "x[2,6] *w[6] z[2,1]", "y = Mean(x, w, z)"),
    case("Div by parameter", "x[2,6] *w[6]", "y = Div(x, w)"),
    case("Div by activation", "x[2,6] z[2,6]", "y = Div(x, z)", finite=False),
    case("Div parameter by activation", "x[2,6] *w[6]", "y = Div(w, x)", finite=False),
    case("Div scalar", "x[2,6]", "y = Div(c, x)", finite=False, c=2.0),
    case("Mod", "x[2,6] *w[6]", "y = Mod <fmod=1> (x, w)"),
    case("Pow square", "x[2,6]", "y = Pow(x, c)", c=2.0),
    case("Pow to zero", "x[2,6]", "y = Pow(x, c)", c=0.0),
    case("Pow negative exponent", "x[2,6]", "y = Pow(x, c)", c=-2.0, finite=False),
    case("Pow parameter exponent", "x[2,6] *w[6]", "a = Abs(x); y = Pow(a, w)", finite=False),
    case("Pow parameter base", "x[2,6] *w[6]", "a = Abs(w); y = Pow(a, x)"),
    case("PRelu channels", "x[2,6,5] *w[6,1]", "y = PRelu(x, w)"),
    case("PRelu one slope", "x[2,6,5] *w[1]", "y = PRelu(x, w)"),
    case("PRelu runtime slope", "x[2,6,5] z[6,1]", "y = PRelu(x, z)"),
    case("Clip inputs", "x[2,6]", "y = Clip(x, l, h)", l=-0.5, h=0.5),
    case("Clip above zero", "x[2,6]", "y = Clip(x, l, h)", l=0.25, h=0.5),
    case("Clip below zero", "x[2,6]", "y = Clip(x, l, h)", l=-0.5, h=-0.25),
    case("Clip only maximum", "x[2,6]", 'y = Clip(x, "", h)', h=0.5),
    case("Clip runtime bound", "x[2,6] !b[]", "y = Clip(x, b)"),
    case("Clip attributes", "x[2,6]", "y = Clip <min=-0.5, max=0.25> (x)", opset=10),
    case("Clip attribute above zero", "x[2,6]", "y = Clip <min=0.25> (x)", opset=10),
    case("Cast to int", "x[2,6]", "y = Cast <to=7> (x)"),
    case("Cast to bool", "x[2,6]", "y = Cast <to=9> (x)"),
    case("CastLike", "x[2,6] !t:int64[3]", "y = CastLike(x, t)"),
    case("Where", "m:bool[2,6] x[2,6] z[2,6]", "y = Where(m, x, z)"),
    case("Where one branch scalar", "m:bool[2,6] x[2,6]", "y = Where(m, x, c)", c=0.5),
    case("Where condition parameter", "*m:bool[6] x[2,6] z[2,6]", "y = Where(m, x, z)"),
    case("Where condition scalar", "!m:bool[1] x[2,6] z[2,6]", "y = Where(m, x, z)"),
    case("Where branch rows", "m:bool[6] x[2,6] z[2,1]", "y = Where(m, x, z)"),
    case("Where condition columns", "m:bool[2,1] x[2,6] *w[6]", "y = Where(m, x, w)"),
    case("Where wide condition", "m:bool[4,2,6] x[6] z[2,1]", "y = Where(m, x, z)"),
    # Both axes of the Gram matrix are one set of units, but only one of them is zero in both branches.
    case(
        "Where twice the same axis",
        "!m:bool[1] x[3,6] z[1,6]",
        "t = Transpose <perm=[1,0]> (x); g = MatMul(t, x); y = Where(m, g, z)",
    ),
    case("Not", "m:bool[2,6]", "y = Not(m)"),
    case("And", "m:bool[2,6] k:bool[6]", "y = And(m, k)"),
    case("Or", "m:bool[2,6] k:bool[6]", "y = Or(m, k)"),
    case("Xor", "m:bool[2,6] k:bool[6]", "y = Xor(m, k)"),
    *(
        case(f"{op}", "x[2,6] *w[6]", f"y = {op}(x, w)")
        for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
    ),
    case("BitwiseAnd", "i:int32[2,6] *w:int32[6]", "y = BitwiseAnd(i, w)"),
    case("BitwiseAnd activations", "i:int32[2,6] k:int32[2,6]", "y = BitwiseAnd(i, k)"),
    case("BitwiseOr", "i:int32[2,6] *w:int32[6]", "y = BitwiseOr(i, w)"),
    case("BitwiseXor", "i:int32[2,6] *w:int32[6]", "y = BitwiseXor(i, w)"),
    case("BitwiseNot", "i:int32[2,6]", "y = BitwiseNot(i)"),
    case("BitShift", "i:uint32[2,6] *w:uint32[6]", 'y = BitShift <direction="LEFT"> (i, w)'),
    case("Mod integers", "i:int64[2,6]", "y = Mod(i, c)", c=3),
    case("Dropout", "x[2,6]", "d, m = Dropout(x); y = Relu(d)", outputs=("y", "m")),
    case("Dropout mask", "x[2,6]", "d, m = Dropout(x); y = Relu(d)", outputs=("y", "m"), opset=12),
    case("Gelu tanh", "x[2,6]", 'y = Gelu <approximate="tanh"> (x)'),
    case("Swish", "x[2,6]", "y = Swish(x)", opset=24),
    case("Add before opset 7", "x[2,6] *w[6]", "y = Add <broadcast=1, axis=1> (x, w)", opset=6, laws=()),
    # A product behind which a sum must stay exact: the zero of either operand is enough.
    case("Mul gate", "x[2,6] g[2,6]", "s = Sigmoid(g); y = Mul(x, s)"),
    case("Mul scalar inside", "x[2,6] *w[1]", "y = Mul(x, w)"),
    case("Mul int parameter", "i:int64[2,6] *w:int64[6]", "y = Mul(i, w)"),
]
