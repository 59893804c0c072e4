"""Every operator of ai.onnx and com.microsoft has a rule, or is declared to have none, with a reason."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime.capi.onnxruntime_pybind11_state as runtime
import pytest
from onnx_models import CASES
from rule_law import OpenAnalysis, free_units

from graphprune.errors import GraphPruneError
from graphprune.model import load
from graphprune.rules import RULES
from graphprune.rules.blocked import DECLARED, why_blocked
from graphprune.shapes.fold_shapes import prepare

WITH_RULE = {(domain, op) for domain, op, _ in RULES.ops()}
WITHOUT_RULE = {op for domain, op in DECLARED if domain == ""}

# Of these, the ones for which ONNX has no node test whose first input is a tensor that could shrink.
NOT_SHOWN = {
    "BlackmanWindow", "ConcatFromSequence", "HammingWindow", "HannWindow",
    "MelWeightMatrix", "Multinomial", "Optional", "RandomNormalLike",
    "RandomUniformLike", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase",
    "SequenceLength",
}  # fmt: skip


def operators() -> set[tuple[str, str]]:
    """All that the installed onnx and onnxruntime know in the two domains."""
    onnx_ops = {("", s.name) for s in onnx.defs.get_all_schemas_with_history() if s.domain == ""}
    schemas = runtime.get_all_operator_schema()
    return onnx_ops | {(s.domain, s.name) for s in schemas if s.domain == "com.microsoft"}


def test_every_operator_has_a_rule_or_a_reason() -> None:
    assert not operators() - WITH_RULE - DECLARED.keys()


def test_no_operator_has_both() -> None:
    assert not WITH_RULE & DECLARED.keys()


def test_none_is_named_that_does_not_exist() -> None:
    # onnxruntime keeps this one in the default domain.
    known = operators() | {("", "SimplifiedLayerNormalization")}
    assert {key for key in WITH_RULE | DECLARED.keys() if key[0] == ""} <= known


def test_every_old_form_has_a_rule_or_a_reason() -> None:
    for schema in onnx.defs.get_all_schemas_with_history():
        key = (schema.domain, schema.name)
        if schema.domain == "" and key in WITH_RULE and RULES.find(*key, schema.since_version) is None:
            assert "convert the model to a newer opset" in why_blocked(*key)


def test_reasons_are_told() -> None:
    assert (
        why_blocked("ai.onnx", "StringSplit")
        == "no coupling rule for ai.onnx::StringSplit: it computes with text"
    )
    assert why_blocked("custom", "Op") == "no coupling rule for custom::Op"


def shown(op_type: str) -> list[OpenAnalysis]:
    """Analyses of ONNX's test models of an operator, all inputs open."""
    found: list[OpenAnalysis] = []
    for case in CASES:
        node = case.model.graph.node[0]
        if node.op_type != op_type or node.domain or len(found) == 2:
            continue
        try:
            ready, trace = prepare(load(case.model))
        except GraphPruneError:
            continue
        if ready.ir.graph.num_nodes():
            analysis = OpenAnalysis(ready, trace).run()
            inputs = [v.name for v in ready.ir.graph.inputs]
            if any(a.size > 1 for name in inputs for a in analysis.axes.get(name, [])):
                found.append(analysis)
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("op_type", sorted(WITHOUT_RULE))
def test_an_operator_without_rule_blocks(op_type: str) -> None:
    analyses = shown(op_type)
    assert bool(analyses) == (op_type not in NOT_SHOWN)
    for analysis in analyses:
        assert analysis.without_rule["", op_type] == 1
        assert not free_units(analysis)
        texts = {r.text for r in analysis.facts.reasons[2:]}
        assert why_blocked("", op_type) in texts
        for value in analysis.model.ir.graph.inputs:
            for axis in analysis.axes.get(value.name or "", []):
                if not axis.is_plain and np.any(analysis.algebra.resolve(axis)):
                    reasons = analysis.algebra.reasons(axis)
                    assert op_type in {analysis.facts.reasons[r].op_type for r in reasons}
