"""Every operator of ai.onnx has a rule, or is known to have none and then blocks what touches it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_models import CASES
from rule_law import OpenAnalysis, free_units

from graphprune.errors import GraphPruneError
from graphprune.model import load
from graphprune.rules import RULES
from graphprune.shapes.fold_shapes import prepare

NEWEST = onnx.defs.onnx_opset_version()

# Operators without a rule. An entry leaves this list when its rule arrives.
WITHOUT_RULE = {
    "AffineGrid", "Attention", "Bernoulli", "BitCast", "BlackmanWindow", "CausalConvWithState",
    "CenterCropPad", "Col2Im", "ConcatFromSequence", "Constant", "ConvInteger", "CumProd", "DFT",
    "DeformConv", "DepthToSpace", "DequantizeLinear", "Det", "DynamicQuantizeLinear", "Einsum",
    "GRU", "GridSample", "HammingWindow", "HannWindow", "If", "ImageDecoder", "LSTM",
    "LinearAttention", "Loop", "MatMulInteger", "MaxRoiPool", "MaxUnpool", "MelWeightMatrix",
    "Multinomial", "NegativeLogLikelihoodLoss", "NonMaxSuppression", "OneHot", "Optional",
    "OptionalGetElement", "OptionalHasElement", "QLinearConv", "QLinearMatMul", "QuantizeLinear",
    "RNN", "RandomNormalLike", "RandomUniformLike", "RegexFullMatch", "RoiAlign", "RotaryEmbedding",
    "STFT", "Scan", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase",
    "SequenceInsert", "SequenceLength", "SequenceMap", "SoftmaxCrossEntropyLoss", "SpaceToDepth",
    "SplitToSequence", "StringConcat", "StringNormalizer", "StringSplit", "SwiGLU", "TensorScatter",
    "TfIdfVectorizer",
}  # fmt: skip

# Of these, the ones for which ONNX has no node test whose first input is a tensor that could shrink.
NOT_SHOWN = {
    "BlackmanWindow", "ConcatFromSequence", "Constant", "HammingWindow", "HannWindow", "If", "Loop",
    "MaxRoiPool", "MelWeightMatrix", "Multinomial", "Optional", "RandomNormalLike",
    "RandomUniformLike", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase",
    "SequenceLength",
}  # fmt: skip


def test_every_operator_is_accounted_for() -> None:
    operators = {s.name for s in onnx.defs.get_all_schemas() if s.domain == ""}
    without = {name for name in operators if RULES.find("", name, NEWEST) is None}
    assert without == WITHOUT_RULE


def test_no_rule_is_for_an_operator_that_does_not_exist() -> None:
    known = {s.name for s in onnx.defs.get_all_schemas_with_history() if s.domain == ""}
    assert {op for domain, op, _ in RULES.ops() if domain == ""} <= known


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
        assert any(text == f"no coupling rule for ai.onnx::{op_type}" for text in texts)
        for value in analysis.model.ir.graph.inputs:
            for axis in analysis.axes.get(value.name or "", []):
                if not axis.is_plain and np.any(analysis.algebra.resolve(axis)):
                    reasons = analysis.algebra.reasons(axis)
                    assert op_type in {analysis.facts.reasons[r].op_type for r in reasons}
