"""Moments are those of all rows, or of many of them; padding and overflow leave no trace."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from networks import build, feeds, initializer
from onnx import helper

from graphprune import analyze, load, prune
from graphprune.calibration import evidence as evidence_module
from graphprune.calibration.evidence import Evidence
from graphprune.calibration.linear import linear_of
from graphprune.calibration.moments import Moments
from graphprune.calibration.padding import padding_mask
from graphprune.errors import CalibrationError

pytestmark = pytest.mark.usefixtures("all_fitted")
Array = npt.NDArray[np.floating[Any]]
TOKENS = "(float[batch, time, 6] x) => (float[batch, time, 3] y)"
MLP = "h = MatMul (x, u) r = Relu (h) y = MatMul (r, v)"
WEIGHTS = {"u": (6, 8), "v": (8, 3)}


def moments_of(evidence: Evidence, source: str, per_feature: int = 1 << 20) -> Moments:
    """Of the layer that reads this tensor; on all rows, unless so many per feature are enough."""
    evidence.sampler.per_feature = per_feature
    (layer,) = (layer for layer in evidence.moments if layer.source.name == source)
    return evidence.moments[layer]


def require_equal(found: Moments, rows: Array) -> None:
    """The moments are those of ``[groups, n, d]``."""
    exact = rows.astype(np.float64)
    np.testing.assert_allclose(found.mean, exact.mean(axis=1), rtol=1e-5, atol=1e-6)
    second = np.einsum("gna,gnb->gab", exact, exact) / exact.shape[1]
    np.testing.assert_allclose(found.second, second, rtol=1e-4, atol=1e-6)
    centred = exact - exact.mean(axis=1, keepdims=True)
    covariance = np.einsum("gna,gnb->gab", centred, centred) / exact.shape[1]
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-4, atol=1e-5)
    assert found.count == exact.shape[1]


def test_all_rows_of_tokens() -> None:
    model = build(TOKENS, MLP, WEIGHTS)
    data = feeds(model, batch=70)
    found = moments_of(Evidence(analyze(load(model)), data), "r")
    rows = np.maximum(data["x"] @ initializer(model, "u"), 0)
    require_equal(found, rows.reshape(1, -1, 8))
    outputs = (rows @ initializer(model, "v")).reshape(-1, 3)
    assert found.energy == pytest.approx(outputs.var(axis=0).sum(), rel=1e-4)


@pytest.mark.parametrize("groups", [1, 2])
def test_all_windows_of_pictures(groups: int) -> None:
    attributes = f"pads = [1, 0, 0, 1], strides = [2, 1], group = {groups}"
    model = build(
        "(float[batch, 3, 4, 5] x) => (float[batch, 6, 2, 4] y)",
        f"h = Conv (x, u) r = Relu (h) y = Conv <{attributes}> (r, v)",
        {"u": (4, 3, 1, 1), "v": (6, 4 // groups, 2, 2)},
    )
    data = feeds(model, batch=9)
    found = moments_of(Evidence(analyze(load(model)), data), "r")
    hidden = np.maximum(np.einsum("nchw,oc->nohw", data["x"], initializer(model, "u")[:, :, 0, 0]), 0)
    padded = np.pad(hidden, [(0, 0), (0, 0), (1, 0), (0, 1)])
    windows = [
        padded[:, :, i : i + 2, j : j + 2].reshape(9, groups, -1) for i in range(0, 4, 2) for j in range(5)
    ]
    require_equal(found, np.concatenate(windows).transpose(1, 0, 2))


def test_sums_of_a_residual_network_are_its_energy() -> None:
    model = build(
        "(float[batch, 6] x) => (float[batch, 6] y)", "h = MatMul (x, u) s = MatMul (h, v) y = Add (x, s)",
        {"u": (6, 8), "v": (8, 6)},
    )  # fmt: skip
    data = feeds(model, batch=40)
    found = moments_of(Evidence(analyze(load(model)), data), "h")
    y = data["x"] + data["x"] @ initializer(model, "u") @ initializer(model, "v")
    assert found.energy == pytest.approx(y.var(axis=0).sum(), rel=1e-4)


def with_mask() -> onnx.ModelProto:
    """Tokens, and a mask that says which are padding."""
    model = build(
        "(int64[batch, time] ids, int64[batch, time] mask) => (float[batch, time, 3] y)",
        "e = Gather (table, ids) h = MatMul (e, u) r = Relu (h) y = MatMul (r, v)",
        {"table": (10, 6), **WEIGHTS},
    )
    model.graph.output.append(helper.make_tensor_value_info("kept", onnx.TensorProto.INT64, None))
    model.graph.node.append(helper.make_node("Identity", ["mask"], ["kept"], name="kept"))
    return model


def test_padding_is_left_out() -> None:
    model, rng = with_mask(), np.random.default_rng(0)
    ids = rng.integers(0, 10, (20, 5))
    mask = (np.arange(5) < rng.integers(1, 6, (20, 1))).astype(np.int64)
    mask[0] = [1, 1, 0, 0, 0]
    ids[mask == 0] = 4  # the padding token
    found = moments_of(Evidence(analyze(load(model)), {"ids": ids, "mask": mask}), "r")
    rows = np.maximum(initializer(model, "table")[ids] @ initializer(model, "u"), 0)
    require_equal(found, rows[mask.astype(bool)][None])
    whole = moments_of(Evidence(analyze(load(model)), {"ids": ids, "mask": np.ones_like(mask)}), "r")
    require_equal(whole, rows.reshape(1, -1, 8))


def test_what_is_a_mask() -> None:
    ids, mask = np.array([[1, 2, 0], [3, 0, 0]]), np.array([[1, 1, 0], [1, 0, 0]])
    found = padding_mask({"ids": ids, "mask": mask})
    assert found is not None
    assert np.array_equal(found, mask.astype(bool))
    assert padding_mask({"mask": mask}) is None  # of what?
    assert padding_mask({"ids": np.arange(6).reshape(2, 3), "mask": mask}) is None  # segments, perhaps
    assert padding_mask({"ids": ids, "mask": mask[:, :2]}) is None
    assert padding_mask({"ids": ids, "mask": np.ones_like(mask)}) is None  # nothing is padding
    assert padding_mask({"ids": ids, "mask": mask * 0}) is None  # a sample without any token
    assert padding_mask({"ids": ids, "mask": mask.astype(np.float32)}) is None


def pictures() -> onnx.ModelProto:
    """Many positions, few channels."""
    return build(
        "(float[batch, 3, 24, 24] x) => (float[batch, 3, 24, 24] y)",
        "h = Conv (x, u) r = Relu (h) y = Conv (r, v)",
        {"u": (4, 3, 1, 1), "v": (3, 4, 1, 1)},
    )


def test_some_rows_say_much_the_same() -> None:
    model = pictures()
    graph, data = analyze(load(model)), feeds(model, batch=32)
    hidden = np.einsum("nchw,oc->nohw", data["x"], initializer(model, "u")[:, :, 0, 0])
    rows = np.maximum(hidden, 0).transpose(0, 2, 3, 1).reshape(-1, 4).astype(np.float64)
    exact = rows.T @ rows / len(rows)
    gaps = []
    for per_feature in (16, 4096):
        found = moments_of(Evidence(graph, data), "r", per_feature)
        gaps.append(float(np.abs(found.second[0] - exact).max() / exact.max()))
        assert found.count == 32 * (16 * 4 // 32 if per_feature == 16 else 512)
    assert gaps[1] < 0.05 < 5 * gaps[0]
    assert gaps[1] < gaps[0]


def test_seed_decides_which_rows() -> None:
    model = pictures()
    graph, data = analyze(load(model)), feeds(model, batch=16)
    a, b, c = (moments_of(Evidence(graph, data, seed=seed), "r", 16).second for seed in (0, 0, 1))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_batches_fit_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(TOKENS, MLP, WEIGHTS)
    graph, data = analyze(load(model)), feeds(model, batch=70)
    assert [len(b["x"]) for b in Evidence(graph, data).batches] == [9] * 7 + [7]  # enough to hold some out
    exact = moments_of(Evidence(graph, data), "r")
    monkeypatch.setattr(evidence_module, "BATCH_BYTES", 1 << 14)
    small = Evidence(graph, data)
    sizes = [len(b["x"]) for b in small.batches]
    assert max(sizes) < 32
    assert sum(sizes) == 70
    found = moments_of(small, "r")
    np.testing.assert_allclose(found.second, exact.second, rtol=1e-5)
    monkeypatch.setattr(evidence_module, "BATCH_BYTES", 1)
    assert [len(b["x"]) for b in Evidence(graph, data).batches] == [1] * 70


def test_a_sample_that_overflows_says_nothing() -> None:
    model = build("(float[batch, 6] x) => (float[batch, 3] y)", MLP, WEIGHTS)
    data = feeds(model, batch=64)
    data["x"][60] = 1e30  # in the last batch
    evidence = Evidence(analyze(load(model)), data)
    require_equal(moments_of(evidence, "r"), np.maximum(data["x"][:56] @ initializer(model, "u"), 0)[None])
    data["x"][:] = 1e30
    nothing = moments_of(Evidence(analyze(load(model)), data), "r")
    assert nothing.count == 0
    assert np.array_equal(nothing.second, np.zeros((1, 8, 8)))


def test_progress_is_told() -> None:
    model = build(TOKENS, MLP, WEIGHTS)
    told: list[tuple[str, int, int]] = []
    evidence = Evidence(
        analyze(load(model)), feeds(model, batch=130), progress=lambda *stage: told.append(stage)
    )
    assert evidence.moments
    assert told == [("calibrating", i, 8) for i in range(9)]


def test_a_weight_on_the_left_needs_no_written_shape() -> None:
    """``W @ x`` is followed where the file says nothing about the shape of ``x``."""
    model = build(
        "(float[batch, 6, 4] x) => (float[batch, 3, 4] y)",
        "h = MatMul (u, x) r = Relu (h) y = MatMul (v, r)",
        {"u": (8, 6), "v": (3, 8)},
    )  # fmt: skip
    assert not model.graph.value_info
    data = feeds(model, batch=30)
    evidence = Evidence(analyze(load(model)), data)
    assert linear_of(evidence.consumers[1].layer.node) is None  # nobody says which shapes there are
    assert [c.layer.output.name for c in evidence.consumers] == ["h", "y"]
    hidden = np.maximum(initializer(model, "u") @ data["x"], 0).astype(np.float64)
    expected = np.einsum("bit,bjt->ij", hidden, hidden) / (30 * 4)
    np.testing.assert_allclose(moments_of(evidence, "r").second[0], expected, rtol=1e-5)


def two_hidden_layers() -> onnx.ModelProto:
    body = """
        h = MatMul (x, u) r = Relu (h) i = MatMul (r, v) s = Relu (i) j = MatMul (s, w) t = Relu (j)
        y = MatMul (t, z)"""
    weights = {"u": (6, 24), "v": (24, 20), "w": (20, 24), "z": (24, 3)}
    return build("(float[batch, 6] x) => (float[batch, 3] y)", body, weights)


def test_many_moments_are_gathered_in_several_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, and no more in memory than is allowed."""
    model = two_hidden_layers()
    data = feeds(model, batch=150)
    whole = Evidence(analyze(load(model)), data)
    assert whole.moments.passes == 1
    assert "calibration_passes" not in whole.notes()
    monkeypatch.setattr(evidence_module, "MOMENTS_BYTES", 8 * 24**2 + 1)
    told: list[str] = []
    evidence = Evidence(analyze(load(model)), data, progress=lambda stage, done, total: told.append(stage))
    known = evidence.moments
    assert known.passes == 3
    assert evidence.notes()["calibration_passes"] == 3
    assert [stage.split(" (")[0] for stage in dict.fromkeys(told)] == [
        f"calibrating, pass {i} of 3" for i in (1, 2, 3)
    ]
    assert len(known) == len(whole.moments) == 3
    for mine, other in zip(known, whole.moments, strict=True):
        a, b = known[mine], whole.moments[other]
        assert (a.count, a.energy) == (b.count, b.energy)
        np.testing.assert_array_equal(a.mean, b.mean)
        scale = float(b.second.max())
        np.testing.assert_allclose(a.second / scale, b.second / scale, atol=1e-6)
        np.testing.assert_array_equal(a.second, a.second.transpose(0, 2, 1))


def test_a_cut_is_the_same_in_several_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = two_hidden_layers()
    data = feeds(model, batch=150)
    first = prune(model, target={"macs": 0.6}, calibration=data)
    monkeypatch.setattr(evidence_module, "MOMENTS_BYTES", 1)  # one layer each
    again = prune(model, target={"macs": 0.6}, calibration=data)
    assert again.plan.options["calibration_passes"] == 3
    assert again.plan.groups == first.plan.groups
    assert again.output_errors == pytest.approx(first.output_errors, rel=1e-3)


def test_layers_of_too_many_features_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    model = two_hidden_layers()
    monkeypatch.setattr(evidence_module, "MAX_FEATURES", 20)
    evidence = Evidence(analyze(load(model)), feeds(model, batch=150))
    assert [layer.constant.name for layer in evidence.moments] == ["w"]
    assert evidence.notes()["layers_too_large"] == 2


def test_a_full_disk_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    model = two_hidden_layers()
    monkeypatch.setattr(evidence_module, "MOMENTS_BYTES", 1)
    monkeypatch.setattr(np, "save", full)
    with pytest.raises(CalibrationError, match="No space left"):
        _ = Evidence(analyze(load(model)), feeds(model, batch=150)).moments
