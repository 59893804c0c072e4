"""Einsum: ties, contractions, batches, diagonals, ellipses."""

from __future__ import annotations

from rule_law import Case, case


def _einsum(name: str, inputs: str, equation: str, **options: object) -> Case:
    names = [text.lstrip("*!").partition("[")[0] for text in inputs.split()]
    return case(
        f"Einsum {name}", inputs, f'y = Einsum <equation="{equation}"> ({", ".join(names)})', **options
    )


CASES: list[Case] = [
    _einsum("matrix product", "x[3,4] *w[4,5]", "ij,jk->ik"),
    _einsum("implicit result", "x[3,4] *w[4,5]", "ij,jk"),
    _einsum("implicit order", "x[3,4] *w[4,5]", "bz,za"),
    _einsum("spaces and upper case", "x[3,4] *w[4,5]", " Ij , jK -> K I "),
    _einsum("upper case comes first", "x[3,4] *w[4,5]", "ij,jK"),
    _einsum("transpose", "x[3,4]", "ij->ji"),
    _einsum("implicit transpose", "x[3,4]", "ba"),
    _einsum("sum", "x[3,4]", "ij->i"),
    _einsum("sum of all", "x[3,4]", "ij->"),
    _einsum("diagonal", "x[4,4]", "ii->i"),
    _einsum("trace", "x[4,4]", "ii"),
    _einsum("batch diagonal", "x[3,4,4]", "bii->bi"),
    _einsum("diagonal times matrix", "x[4,4] *w[4,5]", "ii,ij->ij"),
    _einsum("outer product", "x[3] z[4]", "i,j->ij"),
    _einsum("elementwise", "x[3,4] *w[4]", "ij,j->ij"),
    _einsum("batch", "x[2,3,4] z[2,4,5]", "bij,bjk->bik"),
    _einsum("attention scores", "q[2,5,3,4] k[2,6,3,4]", "bqhd,bkhd->bhqk"),
    _einsum("attention values", "p[2,3,5,6] v[2,6,3,4]", "bhqk,bkhd->bqhd"),
    _einsum("ellipsis", "x[2,3,4] *w[4,5]", "...j,jk->...k"),
    _einsum("ellipsis implicit", "x[2,3,4] *w[4,5]", "...j,jk"),
    _einsum("ellipsis in both", "x[2,3,4] z[2,4,5]", "...ij,...jk->...ik"),
    _einsum("ellipsis broadcasts", "x[6,2,3,4] z[2,4,5]", "...ij,...jk->...ik"),
    _einsum("ellipsis of size one", "x[6,2,3] z[6,1,3]", "...j,...j->..."),
    _einsum("ellipsis in the middle", "x[2,6,3,4] *w[4,2]", "i...j,jk->k...i"),
    _einsum("empty ellipsis", "x[3,4] *w[4,5]", "...ij,...jk->...ik"),
    _einsum("ellipsis summed", "x[2,3,4] *w[4,3]", "...ij,ji->i", laws=("zero",)),
    _einsum("three operands", "x[2,3,4] *w[4,5] *v[5,6]", "bij,jk,kl->bil"),
    _einsum("four operands", "x[3,4] *w[4] z[3] *v[4,5]", "ij,j,i,jk->ik"),
    _einsum("label in three operands", "x[3,4] z[3,4] *w[4,5]", "ij,ij,jk->ik"),
    _einsum("of itself", "x[3,4]", "ij->ij"),
    _einsum("summed in one operand only", "x[3,4] *w[5,6]", "ij,kl->il"),
    case(
        "Einsum of exponentials",
        "x[3,4] z[4,5]",
        'a = Exp(x); b = Exp(z); y = Einsum <equation="ij,jk->ik"> (a, b)',
    ),
    case(
        "Einsum of one exponential",
        "x[3,4] z[4,5]",
        'a = Exp(x); y = Einsum <equation="ij,jk->ik"> (a, z)',
    ),
    case(
        "Einsum diagonal of exponential",
        "x[4,4]",
        'a = Exp(x); y = Einsum <equation="ii"> (a)',
    ),
    case("Einsum same operand twice", "x[3,4]", 'y = Einsum <equation="ij,kj->ik"> (x, x)'),
    case("Einsum tied", "x[3,4] *w[4,4]", 'h = Einsum <equation="ij,jk"> (x, w); y = MatMul(h, w)'),
]
