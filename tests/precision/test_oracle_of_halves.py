"""Cuts of models in 16 bits are compared as sharply as those of any other."""

from __future__ import annotations

import few_digits
import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

import graphprune as gp
from graphprune.errors import ValidationError
from graphprune.oracle import verify
from graphprune.planner import removed_units
from graphprune.rewrite import cut
from graphprune.tolerance import between, computed, rounding


@pytest.mark.parametrize("way", ["float16", "bfloat16", "mixed float16", "stored in float16"])
def test_a_cut_that_is_off_by_half_a_percent_is_noticed(way: str) -> None:
    graph = gp.analyze(gp.load(few_digits.WAYS[way](few_digits.mlp())))
    removed = removed_units(graph, gp.plan(graph, target={"macs": 0.6}, criterion="l2"))
    proto = cut(graph.analysis, removed).to_proto()
    verdict = verify(graph.analysis, removed, gp.load(proto))
    assert verdict.max_error <= 1e-4 * verdict.scale
    weight = next(t for t in proto.graph.initializer if t.name.startswith("head.w"))
    array = numpy_helper.to_array(weight)
    off = (array.astype(np.float32) * 1.005).astype(array.dtype)
    weight.CopyFrom(numpy_helper.from_array(off, weight.name))
    with pytest.raises(ValidationError, match="differs from the masked original"):
        verify(graph.analysis, removed, gp.load(proto))


def test_tolerances_follow_the_types() -> None:
    plain = gp.load(few_digits.mlp())
    half = gp.load(few_digits.in_type(few_digits.mlp(), TensorProto.FLOAT16))
    brain = gp.load(few_digits.in_type(few_digits.mlp(), TensorProto.BFLOAT16))
    assert [rounding(m) for m in (plain, half, brain)] == [1e-4, 1e-4, 1e-4]
    assert [computed(m) for m in (plain, half, brain)] == [1e-4, 2e-2, 1e-4]
    assert between(plain, half) == 2e-2
    assert between(brain, brain) == 1e-4
    assert between(plain, brain) == 5e-2


@pytest.mark.parametrize("dtype", few_digits.TYPES)
def test_a_model_is_checked_against_itself_in_another_type(dtype: int) -> None:
    plain, half = few_digits.mlp(), few_digits.in_type(few_digits.mlp(), dtype)
    tolerance = between(gp.load(plain), gp.load(half))
    for data in (None, few_digits.samples(2)):
        for pair in ((plain, half), (half, plain)):
            (found,) = gp.check(*pair, data=data)
            assert 1e-5 < found.passing_tolerance < tolerance
