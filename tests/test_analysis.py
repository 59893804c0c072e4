"""The driver of the rules."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from graphprune import analysis as driver
from graphprune.graph import analyze
from graphprune.model import load


def test_a_rule_that_covers_too_few_outputs_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[batch, 4] x) => (float[batch, 3] y) {
            a = MatMul(x, w1)
            b, c = Split <axis = 1> (a)
            d = Add(b, c)
            y = MatMul(d, w2)
        }"""
    )
    rng = np.random.default_rng(0)
    for name, shape in (("w1", (4, 16)), ("w2", (8, 3))):
        array = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    assert any(g.prunable for g in analyze(load(model)).groups)

    find = driver.RULES.find

    def first_output_only(domain: str, op_type: str, opset: int) -> object:
        rule = find(domain, op_type, opset)
        return (lambda ctx: rule(ctx)[:1]) if op_type == "Split" and rule is not None else rule

    monkeypatch.setattr(driver.RULES, "find", first_output_only)
    groups = analyze(load(model)).groups
    assert not any(g.prunable for g in groups)
    assert any("does not cover all of its outputs" in (g.reason or "") for g in groups)
