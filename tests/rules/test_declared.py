"""Declarations obey the law of coupling rules: known operators, described by text instead of their rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rule_law import LawBroken, OpenAnalysis, build, case, check_removal, removals

from graphprune.declarations import read_declarations
from graphprune.model import load
from graphprune.shapes.fold_shapes import prepare

CASES = [
    (case("MatMul", "x[5,4] *w[4,6]", "y = MatMul (x, w)"), {"axes": "m k, k n -> m n", "zero": "any"}),
    (case("Add bias", "x[3,5] *b[5]", "y = Add (x, b)"), {"axes": "b c, c -> b c", "zero": True}),
    (case("Sigmoid", "x[3,5]", "y = Sigmoid (x)"), {"axes": "... -> ..."}),
    (case("Softmax", "x[3,5]", "y = Softmax (x)"), {"axes": "b c -> b c", "statistic": ["c"]}),
    (case("Transpose", "x[2,3,4]", "y = Transpose (x)"), {"axes": "a b c -> c b a", "zero": True}),
    (
        case("Clip constants", "x[3,5]", "y = Clip (x, low, high)", low=-1.0, high=1.0),
        {"axes": "... c, _, _ -> ... c", "zero": True},
    ),
    (
        case("LayerNormalization", "x[2,3,5] *s[5] *b[5]", "y = LayerNormalization (x, s, b)"),
        {"axes": "... c, c, [c] -> ... c", "statistic": ["c"]},
    ),
    (
        case("LayerNormalization without bias", "x[2,3,5] *s[5]", "y = LayerNormalization (x, s)"),
        {"axes": "... c, c, [c] -> ... c", "statistic": ["c"]},
    ),
    (
        case("Conv groups", "x[2,6,5,5] *w[9,2,3,3]", "y = Conv <group = 3> (x, w)"),
        {
            "axes": "b (g c) h! w!, (g o) c r! s! -> b (g o) y x",
            "zero": "any",
            "attributes": {"group": "g"},
        },
    ),
    (
        case("GroupNormalization", "x[2,6,4] *s[6] *b[6]", "y = GroupNormalization <num_groups=3> (x, s, b)"),
        {
            "axes": "b (g c) h, (g c), (g c) -> b (g c) h",
            "statistic": ["c", "h"],
            "attributes": {"num_groups": "g"},
        },
    ),
    (
        case("ReduceSum", "x[3,4]", "y = ReduceSum <keepdims = 1> (x, axes)", axes=[1]),
        {"axes": "a b, _ -> a 1", "zero": True},
    ),
]  # fmt: skip

WRONG = [
    ("softmax without its statistic", 3, {"axes": "b c -> b c"}),
    ("axes in the wrong order", 4, {"axes": "a b c -> a b c"}),
    ("an addend that is not coupled", 1, {"axes": "b c, d! -> b c", "zero": True}),
    ("a convolution whose group does not follow", 8,
     {"axes": "b (g c) h! w!, (g o) c r! s! -> b (g o) y x", "zero": "any"}),
    ("a sigmoid said to keep zeros", 2, {"axes": "... -> ...", "zero": True}),
]  # fmt: skip


def analysed(law_case: Any, keys: dict[str, Any], *, zero: bool) -> tuple[OpenAnalysis, Any]:
    proto, feeds = build(law_case)
    op_type = proto.graph.node[0].op_type
    declarations = read_declarations({op_type: {**keys, "override": True}})
    model, trace = prepare(load(proto))
    return OpenAnalysis(model, trace, declarations=declarations, zero=zero).run(), feeds


def check(law_case: Any, keys: dict[str, Any]) -> int:
    tried = 0
    for zero in (True, False):
        analysis, feeds = analysed(law_case, keys, zero=zero)
        for removed in removals(analysis, np.random.default_rng(0)):
            check_removal(analysis, feeds, removed)
            tried += 1
    return tried


@pytest.mark.parametrize(("law_case", "keys"), CASES, ids=[c.name for c, _ in CASES])
def test_law(law_case: Any, keys: dict[str, Any]) -> None:
    assert check(law_case, keys) > 4


@pytest.mark.parametrize(("why", "index", "keys"), WRONG, ids=[why for why, _, _ in WRONG])
def test_wrong_declarations_break_it(why: str, index: int, keys: dict[str, Any]) -> None:
    law_case, _ = CASES[index]
    try:
        tried = check(law_case, keys)
    except LawBroken:
        return
    assert not tried, f"nobody noticed {why}"
