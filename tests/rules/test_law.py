"""Cut then operate = operate then cut, for every rule; and what each rule does with each axis."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import cases_attention
import cases_contraction
import cases_contrib
import cases_contrib_attention
import cases_einsum
import cases_elementwise
import cases_indexing
import cases_movement
import cases_norm
import cases_quantized
import cases_recurrent
import cases_space
import pytest
from axis_fates import describe
from rule_law import Case, check_case

from graphprune.rules import RULES

ALL: list[Case] = [
    *cases_elementwise.CASES,
    *cases_contraction.CASES,
    *cases_norm.CASES,
    *cases_movement.CASES,
    *cases_indexing.CASES,
    *cases_quantized.CASES,
    *cases_recurrent.CASES,
    *cases_einsum.CASES,
    *cases_space.CASES,
    *cases_attention.CASES,
    *cases_contrib_attention.CASES,
    *cases_contrib.CASES,
]
GOLDEN = Path(__file__).with_name("golden_axes.txt")


def golden() -> dict[str, str]:
    lines = [line for line in GOLDEN.read_text().splitlines() if not line.startswith("#")]
    return {line.split(" | ")[0]: line for line in lines}


def test_names_are_unique() -> None:
    doubles = [name for name, n in Counter(c.name for c in ALL).items() if n > 1]
    assert not doubles


def test_every_rule_has_a_case() -> None:
    covered = {node.split("(")[0].split("=")[1].split("<")[0].strip()
               for c in ALL for node in c.nodes.split(";") if "=" in node}  # fmt: skip
    missing = {f"{domain}.{op}".lstrip(".") for domain, op, _ in RULES.ops()} - covered
    bodies = {"If", "Loop", "Scan", "Constant"}  # in test_control_flow
    assert missing == {"RandomNormal", "RandomUniform", "ReverseSequence", "Scatter"} | bodies


@pytest.mark.parametrize("case", ALL, ids=lambda c: c.name)
def test_law(case: Case) -> None:
    tried = check_case(case)
    removable = any(word in golden()[case.name] for word in ("carried", "contracted", "statistic"))
    assert bool(tried) == (removable and bool(case.laws)), "the law must not hold in vain"


def test_golden_axes() -> None:
    """What each rule does with each axis: a rule that becomes too shy, or too bold, is noticed."""
    lines = [describe(case) for case in ALL]
    if os.environ.get("GRAPHPRUNE_UPDATE_GOLDEN"):
        head = "# case | input[fate of each axis] (GRAPHPRUNE_UPDATE_GOLDEN=1 rewrites this file)"
        GOLDEN.write_text("\n".join([head, *lines]) + "\n")
    assert lines == list(golden().values())
