"""LSTM, GRU, RNN and other operators with a state along time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from rule_law import Case, case

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_LENGTHS = np.array([3, 1], np.int32)


def _weights(op: str, dirs: int = 1, hidden: int = 4, width: int = 5, *, bias: bool = True) -> str:
    gates = _GATES[op] * hidden
    text = f"*w[{dirs},{gates},{width}] *r[{dirs},{gates},{hidden}]"
    return text + (f" *b[{dirs},{2 * gates}]" if bias else "")


def _outputs(op: str) -> str:
    return "y, h, c" if op == "LSTM" else "y, h"


def _cases() -> Iterator[Case]:
    for op in _GATES:
        out = _outputs(op)
        for direction in ("forward", "reverse", "bidirectional"):
            dirs = 2 if direction == "bidirectional" else 1
            attrs = f'direction="{direction}", hidden_size=4'
            yield case(
                f"{op} {direction}",
                f"x[3,2,5] {_weights(op, dirs)}",
                f"{out} = {op} <{attrs}> (x, w, r, b)",
                outputs=tuple(out.split(", ")),
            )
            yield case(
                f"{op} {direction} batch first with state",
                f"x[2,3,5] {_weights(op, dirs)} g[2,{dirs},4]" + (f" k[2,{dirs},4]" if op == "LSTM" else ""),
                f"{out} = {op} <{attrs}, layout=1> (x, w, r, b, , g{', k' if op == 'LSTM' else ''})",
                outputs=tuple(out.split(", ")),
            )
            yield case(
                f"{op} {direction} merged directions",
                f"x[3,2,5] {_weights(op, dirs)} *v[{4 * dirs},3]",
                f"a = {op} <{attrs}> (x, w, r, b); t = Transpose <perm=[0,2,1,3]> (a);"
                "m = Reshape(t, s); y = MatMul(m, v)",
                s=[0, 0, -1],
            )
        yield case(
            f"{op} no bias", f"x[3,2,5] {_weights(op, bias=False)}", f"y = {op} <hidden_size=4> (x, w, r)"
        )
        yield case(
            f"{op} constant initial state",
            f"x[3,2,5] {_weights(op)} *g[1,2,4]" + (" *k[1,2,4]" if op == "LSTM" else ""),
            f"{out} = {op} <hidden_size=4> (x, w, r, b, , g{', k' if op == 'LSTM' else ''})",
            outputs=tuple(out.split(", ")),
        )
        yield case(
            f"{op} lengths",
            f"x[3,2,5] {_weights(op)}",
            f"{out} = {op} <hidden_size=4> (x, w, r, b, n)",
            outputs=tuple(out.split(", ")),
            n=_LENGTHS,
        )
        yield case(
            f"{op} last state only",
            f"x[3,2,5] {_weights(op)}",
            f", h = {op} <hidden_size=4> (x, w, r, b)",
            outputs=("h",),
        )
        yield case(
            f"{op} weights at run time",
            f"x[3,2,5] {_weights(op).replace('*', '')}",
            f"y = {op} <hidden_size=4> (x, w, r, b)",
        )
        yield case(
            f"{op} two layers",
            f"x[3,2,5] {_weights(op)} *w2[1,{_GATES[op] * 3},4] *r2[1,{_GATES[op] * 3},3]",
            f"a = {op} <hidden_size=4> (x, w, r, b); q = Squeeze(a, s); y = {op} <hidden_size=3> (q, w2, r2)",
            s=[1],
        )


CASES: list[Case] = [
    *_cases(),
    case(
        "LSTM peepholes",
        f"x[3,2,5] {_weights('LSTM')} *p[1,12]",
        "y = LSTM <hidden_size=4> (x, w, r, b, , , , p)",
    ),
    case(
        "LSTM everything",
        f"x[3,2,5] {_weights('LSTM', 2)} g[2,2,4] k[2,2,4] *p[2,12]",
        'y, h, c = LSTM <hidden_size=4, direction="bidirectional", clip=0.4> (x, w, r, b, n, g, k, p)',
        outputs=("y", "h", "c"),
        n=_LENGTHS,
    ),
    case(
        "LSTM input and forget gates coupled",
        f"x[3,2,5] {_weights('LSTM')}",
        "y = LSTM <hidden_size=4, input_forget=1> (x, w, r, b)",
    ),
    case(
        "LSTM cell state to hidden",
        f"x[3,2,5] {_weights('LSTM')} *k[1,2,4]",
        "y = LSTM <hidden_size=4> (x, w, r, b, , , k)",
    ),
    case(
        "LSTM other activations",
        f"x[3,2,5] {_weights('LSTM')}",
        'y = LSTM <hidden_size=4, activations=["HardSigmoid","Softsign","Relu"]> (x, w, r, b)',
    ),
    case(
        "LSTM activation not zero",
        f"x[3,2,5] {_weights('LSTM')} *v[4,3]",
        'a, h, c = LSTM <hidden_size=4, activations=["Sigmoid","Sigmoid","Tanh"]> (x, w, r, b);'
        "y = MatMul(a, v)",
        outputs=("y", "h", "c"),
    ),
    case(
        "LSTM activations of two directions",
        f"x[3,2,5] {_weights('LSTM', 2)}",
        'y, h, c = LSTM <hidden_size=4, direction="bidirectional",'
        ' activations=["Sigmoid","Tanh","Tanh","Sigmoid","Tanh","Sigmoid"]> (x, w, r, b)',
        outputs=("y", "h", "c"),
    ),
    case(
        "LSTM sum of hidden units",
        f"x[3,2,5] {_weights('LSTM')}",
        "a = LSTM <hidden_size=4> (x, w, r, b); y = ReduceSum(a, s)",
        s=[-1],
    ),
    case(
        "LSTM exponential of weights",
        "x[3,2,5] *w[1,16,5] r[1,16,4]",
        "e = Exp(r); a = LSTM <hidden_size=4> (x, w, e); y = ReduceSum(a, s)",
        s=[-1],
    ),
    case(
        "LSTM opset 7",
        f"x[3,2,5] {_weights('LSTM')}",
        "y, h = LSTM <hidden_size=4> (x, w, r, b)",
        opset=9,
    ),
    case("LSTM one hidden unit", "x[3,2,5] *w[1,4,5] *r[1,4,1]", "y = LSTM <hidden_size=1> (x, w, r)"),
    case(
        "GRU linear before reset",
        f"x[3,2,5] {_weights('GRU', 2)} g[2,2,4]",
        'y, h = GRU <hidden_size=4, direction="bidirectional", linear_before_reset=1> (x, w, r, b, , g)',
        outputs=("y", "h"),
    ),
    case(
        "GRU activation not zero",
        f"x[3,2,5] {_weights('GRU')}",
        'y, h = GRU <hidden_size=4, activations=["Sigmoid","Sigmoid"]> (x, w, r, b)',
        outputs=("y", "h"),
    ),
    case(
        "RNN relu",
        f"x[3,2,5] {_weights('RNN')}",
        'y = RNN <hidden_size=4, activations=["Relu"]> (x, w, r, b)',
    ),
    case(
        "RNN affine",
        f"x[3,2,5] {_weights('RNN')}",
        'y = RNN <hidden_size=4, activations=["Affine"], activation_alpha=[0.5], activation_beta=[0.2]>'
        " (x, w, r, b)",
    ),
    case(
        "RNN tied layers",
        "x[3,2,4] *w[1,4,4] *r[1,4,4]",
        "a = RNN <hidden_size=4> (x, w, r); q = Squeeze(a, s); y = RNN <hidden_size=4> (q, w, r)",
        s=[1],
    ),
    case(
        "CausalConvWithState",
        "x[2,6,5] *w[6,1,3] *b[6] p[2,6,2]",
        'y, s = CausalConvWithState <activation="silu"> (x, w, b, p)',
        opset=27,
        outputs=("y", "s"),
    ),
    case(
        "CausalConvWithState no state",
        "x[2,6,5] *w[6,1,3]",
        "y, s = CausalConvWithState (x, w)",
        opset=27,
        outputs=("y", "s"),
    ),
    case(
        "CausalConvWithState state only",
        "x[2,6,5] *w[6,1,3] p[2,6,2]",
        "y, s = CausalConvWithState (x, w, , p)",
        opset=27,
        outputs=("y", "s"),
    ),
    case(
        "LinearAttention linear",
        "q[2,3,8] k[2,3,8] v[2,3,6]",
        'y, s = LinearAttention <q_num_heads=2, kv_num_heads=2, update_rule="linear"> (q, k, v)',
        opset=27,
        outputs=("y", "s"),
    ),
    case(
        "LinearAttention shared heads",
        "q[2,3,24] k[2,3,8] v[2,3,6] p[2,2,4,3]",
        "y, s = LinearAttention"
        ' <q_num_heads=6, kv_num_heads=2, update_rule="linear", scale=0.3> (q, k, v, p)',
        opset=27,
        outputs=("y", "s"),
    ),
    case(
        "LinearAttention gated",
        "q[2,3,8] k[2,3,8] v[2,3,6] p[2,2,4,3] d[2,3,8]",
        'y, s = LinearAttention <q_num_heads=2, kv_num_heads=2, update_rule="gated"> (q, k, v, p, d)',
        opset=27,
        outputs=("y", "s"),
    ),
    case(
        "LinearAttention gated per head",
        "q[2,3,8] k[2,3,8] v[2,3,6] d[2,3,2]",
        'y, s = LinearAttention <q_num_heads=2, kv_num_heads=2, update_rule="gated"> (q, k, v, , d)',
        opset=27,
        outputs=("y", "s"),
    ),
    case(
        "LinearAttention delta",
        "q[2,3,8] k[2,3,8] v[2,3,6] p[2,2,4,3] b[2,3,2]",
        'y, s = LinearAttention <q_num_heads=2, kv_num_heads=2, update_rule="delta"> (q, k, v, p, , b)',
        opset=27,
        outputs=("y", "s"),
    ),
    case(
        "LinearAttention gated delta",
        "q[2,3,16] k[2,3,8] v[2,3,6] d[2,3,2] b[2,3,1]",
        "y, s = LinearAttention <q_num_heads=4, kv_num_heads=2> (q, k, v, , d, b)",
        opset=27,
        outputs=("y", "s"),
    ),
    case(
        "LinearAttention keys not zero",
        "q[2,3,8] k[2,3,8] v[2,3,6]",
        'e = Exp(k); y, s = LinearAttention <q_num_heads=2, kv_num_heads=2, update_rule="linear"> (q, e, v)',
        opset=27,
        outputs=("y", "s"),
    ),
    case(
        "LinearAttention heads between projections",
        "x[2,3,5] *wq[5,8] *wk[5,8] *wv[5,6] *wo[6,4]",
        "q = MatMul(x, wq); k = MatMul(x, wk); v = MatMul(x, wv);"
        'a, s = LinearAttention <q_num_heads=2, kv_num_heads=2, update_rule="linear"> (q, k, v);'
        "y = MatMul(a, wo)",
        opset=27,
        outputs=("y",),
    ),
    case(
        "TensorScatter",
        "c[2,3,6,4] u[2,3,2,4]",
        "y = TensorScatter(c, u, i)",
        opset=24,
        i=[1, 3],
    ),
    case("TensorScatter axis", "c[2,6,4] u[2,2,4]", "y = TensorScatter <axis=1> (c, u)", opset=24),
    case(
        "TensorScatter circular",
        "c[2,6,4] u[2,2,4]",
        'e = Exp(u); y = TensorScatter <axis=1, mode="circular"> (c, e, i)',
        opset=24,
        i=[5, 3],
    ),
]
