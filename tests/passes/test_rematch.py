"""Channels get their mean and variance back behind a cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from graphprune.passes.compensators.rematch import Rematch
from networks import bn, bn_call, build, initializer, replace, run
from small_evidence import group_of

import graphprune as gp
from graphprune.calibration.evidence import Evidence
from graphprune.calibration.pieces import exposing
from graphprune.rewrite import cut

Array = npt.NDArray[Any]
SIGNATURE = "(float[batch, 3, 6, 6] x) => (float[batch, 4] y)"
WEIGHTS: dict[str, Any] = {"a.w": (8, 3, 3, 3), "b.w": (10, 8, 3, 3), "c.w": (6, 10, 1, 1), "d.w": (6, 4)}


def samples(seed: int = 0, count: int = 200) -> dict[str, Array]:
    return {"x": np.random.default_rng(seed).standard_normal((count, 3, 6, 6)).astype(np.float32)}


def with_norms() -> onnx.ModelProto:
    """Three convolutions with BatchNormalization that holds the statistics of other samples."""
    body = f"""
        a = Conv <pads = [1, 1, 1, 1]> (x, a.w) an = {bn_call("an", "a")} ar = Relu (an)
        b = Conv <pads = [1, 1, 1, 1]> (ar, b.w) bnorm = {bn_call("bnorm", "b")} br = Relu (bnorm)
        c = Conv (br, c.w) cn = {bn_call("cn", "c")} cr = Relu (cn)
        p = GlobalAveragePool (cr) f = Flatten (p) y = MatMul (f, d.w)"""
    return build(SIGNATURE, body, {**WEIGHTS, **bn("an", 8), **bn("bnorm", 10), **bn("cn", 6)})


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same with each BatchNormalization in the weights before it."""
    weights: dict[str, Any] = {"d.w": initializer(model, "d.w")}
    for conv, norm in (("a", "an"), ("b", "bnorm"), ("c", "cn")):
        scale, shift, mean, variance = (initializer(model, name) for name in bn(norm, 1))
        factor = scale / np.sqrt(variance + 1e-5)
        weights[f"{conv}.w"] = initializer(model, f"{conv}.w") * factor[:, None, None, None]
        weights[f"{conv}.b"] = shift - mean * factor
    body = """
        a = Conv <pads = [1, 1, 1, 1]> (x, a.w, a.b) ar = Relu (a)
        b = Conv <pads = [1, 1, 1, 1]> (ar, b.w, b.b) br = Relu (b)
        c = Conv (br, c.w, c.b) cr = Relu (c)
        p = GlobalAveragePool (cr) f = Flatten (p) y = MatMul (f, d.w)"""
    return build(SIGNATURE, body, weights)


def pruned(model: onnx.ModelProto, compensator: str, **options: Any) -> gp.PruneResult:
    options = {"target": {"macs": 0.5}, "criterion": "l2", "allocator": "uniform", **options}
    return gp.prune(model, compensator=compensator, calibration=samples(), **options)


def statistics(model: Any, name: str) -> tuple[Array, Array]:
    """Of the channels of a tensor on the samples."""
    loaded = gp.load(model)
    value = next(v for n in loaded.ir.graph for v in n.outputs if v.name == name)
    found = np.asarray(exposing(loaded, [value]).run([name], samples())[0], np.float64)
    axes = (0, *range(2, found.ndim))
    return found.mean(axis=axes), found.std(axis=axes)


def kept(result: gp.PruneResult, name: str, axis: int, size: int) -> list[int]:
    found = [p.keep for p in result.plan.parameters if p.name == name and p.axis == axis]
    return list(found[0]) if found else list(range(size))


@pytest.mark.usefixtures("all_fitted")
@pytest.mark.parametrize(
    ("make", "names"),
    [(with_norms, ("an", "bnorm", "cn")), (lambda: folded(with_norms()), ("a", "b", "c"))],
    ids=["norms", "folded"],
)
def test_channels_have_the_statistics_that_they_had(make: Any, names: tuple[str, ...]) -> None:
    model = make()
    plain, matched = pruned(model, "none"), pruned(model, "rematch")
    assert matched.plan.options["compensator"] == "rematch"
    far = 0.0
    for conv, name, size in zip("abc", names, (8, 10, 6), strict=True):
        at = kept(matched, f"{conv}.w", 0, size)
        wanted = [part[at] for part in statistics(model, name)]
        for part, found in zip(wanted, statistics(matched.model.to_proto(), name), strict=True):
            np.testing.assert_allclose(found, part, rtol=1e-3, atol=1e-3)
        far += float(np.abs(statistics(plain.model.to_proto(), name)[0] - wanted[0]).max())
    assert far > 0.05  # there was something to do


def matched_without(model: onnx.ModelProto, goes: dict[str, list[int]]) -> onnx.ModelProto:
    """Cut by hand."""
    evidence = Evidence(gp.analyze(gp.load(model)), samples())
    removed = np.zeros(len(evidence.graph.analysis.algebra), bool)
    for name, units in goes.items():
        removed[group_of(evidence, name).units[units]] = True
    return Rematch()(evidence, removed, cut(evidence.graph.analysis, removed)).to_proto()


def test_folded_and_unfolded_become_the_same_function() -> None:
    model, goes = with_norms(), {"a.w:0": [1, 2, 5], "b.w:0": [0, 3, 4, 9], "c.w:0": [2]}
    inputs = samples(5)
    (a,), (b,) = (run(matched_without(m, goes), inputs) for m in (model, folded(model)))
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * float(np.abs(a).max()))


def test_what_no_cut_reaches_keeps_its_constants() -> None:
    model = with_norms()
    result = pruned(model, "rematch", include=["b.w*"], target={"macs": 0.8})
    names = {t.name for t in result.model.to_proto().graph.initializer}
    for name in ("a.w", *bn("an", 1)):
        assert name in names
        np.testing.assert_array_equal(initializer(result.model.to_proto(), name), initializer(model, name))
    changed = initializer(result.model.to_proto(), "cn.mean")
    assert np.abs(changed - initializer(model, "cn.mean")).max() > 1e-3


@pytest.mark.usefixtures("all_fitted")
def test_what_a_norm_knew_of_its_training_data_stays() -> None:
    """Its input's mean and variance change as they do on the samples, from where they were."""
    model = with_norms()
    result = pruned(model, "rematch")
    keep = kept(result, "c.w", 0, 6)
    before, after = statistics(model, "c"), statistics(result.model.to_proto(), "c")
    ratio = after[1] / before[1][keep]
    mean, variance = (initializer(model, f"cn.{part}")[keep] for part in ("mean", "var"))
    found = [initializer(result.model.to_proto(), f"cn.{part}") for part in ("mean", "var")]
    np.testing.assert_allclose(found[1], variance * ratio**2, rtol=1e-3)
    np.testing.assert_allclose(found[0], after[0] + (mean - before[0][keep]) * ratio, rtol=1e-3, atol=1e-4)


def test_a_channel_that_never_varies_is_not_blown_up() -> None:
    model = with_norms()
    weight = initializer(model, "c.w").copy()
    weight[2] = 0
    replace(model, "c.w", weight)
    result = pruned(model, "rematch")
    for array in map(onnx.numpy_helper.to_array, result.model.to_proto().graph.initializer):
        assert array.dtype.kind != "f" or (np.isfinite(array).all() and np.abs(array).max() < 1e3)


def test_statistics_are_those_of_samples_that_are_not_held_out() -> None:
    model = with_norms()
    found = []
    for factor in (1.0, 100.0):
        evidence = Evidence(gp.analyze(gp.load(model)), samples())
        for batch, is_held in zip(evidence.batches, evidence.held_out, strict=True):
            batch["x"] = batch["x"] * np.float32(factor) if is_held else batch["x"]
        removed = np.zeros(len(evidence.graph.analysis.algebra), bool)
        removed[group_of(evidence, "a.w:0").units[[1, 2, 5]]] = True
        matched = Rematch()(evidence, removed, cut(evidence.graph.analysis, removed)).to_proto()
        found.append([onnx.numpy_helper.to_array(t) for t in matched.graph.initializer])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_norms_that_share_statistics_get_no_copies_beyond_the_target() -> None:
    weights: dict[str, Any] = {"e": (8, 3, 1, 1), "t": (5, 8, 1, 1), **bn("n", 8)}
    body = "x0 = Conv (x, e) "
    for i in range(6):
        weights[f"u{i}"] = (8, 8, 1, 1)
        body += f"n{i} = {bn_call('n', f'x{i}')} r{i} = Relu (n{i}) h{i} = Conv (r{i}, u{i}) "
        body += f"x{i + 1} = Add (x{i}, h{i}) "
    model = build(SIGNATURE.replace("4] y", "5, 6, 6] y"), body + "y = Conv (x6, t)", weights)
    dense = gp.analyze(model).cost.evaluate()
    for target in (0.8, 0.6):
        plan = pruned(model, "rematch", target={"params": target}).plan
        applied = gp.apply(model, plan, compensator="rematch", calibration=samples())
        sizes = (v.const_value.size for v in applied.ir.graph.initializers.values() if v.const_value)
        assert sum(sizes) <= target * dense.params


@pytest.mark.parametrize("metric", ["macs", "params"])
def test_layers_that_share_a_bias_get_their_own_where_there_is_room(metric: str) -> None:
    body = "a = Gemm (x, a.w, s) r = Relu (a) b = Gemm (r, b.w, s) q = Relu (b) y = MatMul (q, c.w)"
    weights: dict[str, Any] = {"a.w": (5, 8), "b.w": (8, 8), "s": (8,), "c.w": (8, 3)}
    model = build("(float[batch, 5] x) => (float[batch, 3] y)", body, weights)
    x = {"x": np.random.default_rng(0).standard_normal((300, 5)).astype(np.float32)}
    options: dict[str, Any] = {"criterion": "l2", "allocator": "uniform", "calibration": x}
    result = gp.prune(model, target={metric: 0.6}, compensator="rematch", **options)
    assert result.plan.reached[metric] <= 0.6
    assert result.output_errors is not None
    assert result.output_errors[1] <= result.output_errors[0]
