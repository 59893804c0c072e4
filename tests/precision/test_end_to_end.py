"""Models of few digits through the whole pipeline: judged in real numbers, written in their own types."""

from __future__ import annotations

from functools import cache

import few_digits
import numpy as np
import onnx
import pytest

import graphprune as gp
from graphprune.pruning import PruneResult

EVERY = pytest.mark.parametrize("way", few_digits.WAYS)
#: Of these whole blocks go, so that the cut is another one than float32's.
BLOCKED = {name for name in few_digits.WAYS if "NBits" in name or "int4" in name}
#: Error that is left next to float32's, where a type rounds more than a cut changes.
TIMES = {"float8 weights": 1.5}


@cache
def model(way: str = "") -> onnx.ModelProto:
    plain = few_digits.mlp()
    return few_digits.WAYS[way](plain) if way else plain


@cache
def pruned(way: str, recipe: str | None = "obspa") -> PruneResult:
    return gp.prune(model(way), target={"macs": 0.7}, recipe=recipe, calibration=few_digits.samples())


@EVERY
def test_new_weights_make_up_for_what_is_gone(way: str) -> None:
    result = pruned(way)
    assert result.output_errors is not None
    before, after = result.output_errors
    plain = pruned("").output_errors
    assert plain is not None
    assert after < 0.6 * before
    if way not in BLOCKED:
        assert after < TIMES.get(way, 1.1) * plain[1]
    assert "rejected" not in result.plan.options
    assert result.verdict is not None
    assert result.verdict.max_error <= 1e-4 * result.verdict.scale


@EVERY
def test_every_constant_keeps_its_type(way: str) -> None:
    before, after = few_digits.types_of(model(way)), few_digits.types_of(pruned(way).model.to_proto())
    assert after == before


@pytest.mark.parametrize("way", ["float16", "bfloat16", "mixed float16", "stored in float16", "int8 weights"])
def test_the_plan_is_that_of_the_original(way: str) -> None:
    wanted = {tuple(g.keep) for g in pruned("").plan.groups}
    assert {tuple(g.keep) for g in pruned(way).plan.groups} == wanted


@pytest.mark.parametrize("way", ["float16", "bfloat16", "mixed float16", "stored in float16", "int8 weights"])
def test_the_default_recipe_does_as_well_as_on_the_original(way: str) -> None:
    wanted, found = pruned("", None).output_errors, pruned(way, None).output_errors
    assert wanted is not None
    assert found is not None
    assert found[1] < 2 * wanted[1] + 1e-3


def test_what_is_larger_than_float16_holds_is_scored_all_the_same() -> None:
    plain = few_digits.mlp()
    for tensor in plain.graph.initializer:
        if tensor.name in ("a.up.w", "a.up.b", "a.down.w"):  # relu(300 x) / 300: its square overflows
            array = onnx.numpy_helper.to_array(tensor) * np.float32(300 if "up" in tensor.name else 1 / 300)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    wanted = gp.prune(plain, target={"macs": 0.7}, recipe="obspa", calibration=few_digits.samples())
    half = few_digits.in_type(plain, onnx.TensorProto.FLOAT16)
    found = gp.prune(half, target={"macs": 0.7}, recipe="obspa", calibration=few_digits.samples())
    assert found.output_errors is not None
    assert wanted.output_errors is not None
    assert found.output_errors[1] < 2 * wanted.output_errors[1] + 1e-3


def test_a_model_without_samples_is_pruned_too() -> None:
    found = gp.prune(model("bfloat16"), target={"macs": 0.7}, samples=32)
    assert "fallback" not in found.plan.options
    assert found.output_errors is not None
    assert found.output_errors[1] < 0.5 * found.output_errors[0]


@EVERY
def test_a_residual_branch_goes_as_a_whole(way: str) -> None:
    found = gp.prune(
        model(way), target={"macs": 0.7}, kinds=["blocks"], calibration=few_digits.samples(16), samples=16
    )
    assert [group.kind for group in found.plan.groups] == ["blocks"]
    assert found.plan.groups[0].id.startswith(pruned_branch())
    assert "fallback" not in found.plan.options


@cache
def pruned_branch() -> str:
    found = gp.prune(
        model(), target={"macs": 0.7}, kinds=["blocks"], calibration=few_digits.samples(16), samples=16
    )
    return found.plan.groups[0].id[:2]
