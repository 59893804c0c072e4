"""BatchNormalization that knows made-up samples, while these are looked at."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from graphprune.passes.effect import Effect
from networks import build, initializer, replace, run

import graphprune as gp
from graphprune.axes_kept import Keeps
from graphprune.calibration.batch_norms import norms_of
from graphprune.calibration.evidence import Evidence
from graphprune.calibration.pieces import exposing
from graphprune.calibration.substitutes import Substitutes
from graphprune.planner import removed_units
from graphprune.rewrite import cut

Array = npt.NDArray[Any]
#: Mean and standard deviation of the training data.
MEAN, SPREAD = 1.5, 0.3


def trained(samples: int, seed: int) -> Array:
    """Inputs as in training: 6 channels, so that nobody takes them for pictures."""
    drawn = np.random.default_rng(seed).standard_normal((samples, 6, 4, 4))
    return (MEAN + SPREAD * drawn).astype(np.float32)


def network() -> onnx.ModelProto:
    """Three convolutions with BatchNormalization that holds the statistics of Gaussian inputs."""
    body = """
        a = Conv (x, a.w) an = BatchNormalization (a, a.s, a.b, a.mean, a.var) ar = Relu (an)
        b = Conv (ar, b.w) bn = BatchNormalization (b, b.s, b.b, b.mean, b.var) br = Relu (bn)
        y = Conv (br, c.w, c.b)"""
    weights: dict[str, Any] = {"a.w": (10, 6, 1, 1), "b.w": (12, 10, 1, 1), "c.w": (5, 12, 1, 1), "c.b": (5,)}
    for name, width in (("a", 10), ("b", 12)):
        weights[f"{name}.s"] = np.linspace(0.5, 1.5, width, dtype=np.float32)
        weights[f"{name}.b"] = np.linspace(-0.4, 0.6, width, dtype=np.float32)
        weights |= {f"{name}.{part}": (width,) for part in ("mean", "var")}
    model = build("(float[batch, 6, 4, 4] x) => (float[batch, 5, 4, 4] y)", body, weights)
    for name in ("a", "b"):
        found = exposed(model, name, trained(8192, seed=7))
        replace(model, f"{name}.mean", found.mean(axis=(0, 2, 3)).astype(np.float32))
        replace(model, f"{name}.var", found.var(axis=(0, 2, 3)).astype(np.float32))
    return model


def exposed(model: onnx.ModelProto, name: str, x: Array) -> Array:
    """A tensor of a run."""
    loaded = gp.load(model)
    value = next(v for n in loaded.ir.graph for v in n.outputs if v.name == name)
    (found,) = exposing(loaded, [value]).run([name], {"x": x})
    return np.asarray(found, np.float64)


def constants(model: gp.Model) -> dict[str, bytes]:
    return {n: v.const_value.numpy().tobytes() for n, v in model.ir.graph.initializers.items()}  # type: ignore[union-attr]


def distance(calibrated: gp.PruneResult, free: gp.PruneResult) -> float:
    """Between two pruned models, relative, on inputs as in training."""
    inputs = {"x": trained(256, seed=99)}
    (a,), (b,) = (run(r.model.to_proto(), inputs) for r in (calibrated, free))
    return float(np.linalg.norm(a - b) / np.linalg.norm(a - a.mean(axis=(0, 2, 3), keepdims=True)))


def both(samples: int) -> tuple[gp.PruneResult, gp.PruneResult]:
    """Pruned with inputs as in training, and with none."""
    options: dict[str, Any] = {"target": {"macs": 0.6}, "criterion": "obs", "allocator": "uniform"}
    options |= {"compensator": "sequential", "samples": samples}
    model = network()
    return (
        gp.prune(model, calibration={"x": trained(samples, seed=1)}, **options),
        gp.prune(model, calibration=None, **options),
    )


@pytest.mark.usefixtures("all_fitted")
def test_no_data_equals_calibration_in_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphprune.passes.compensators.sequential.ROWS_PER_FEATURE", 1 << 20)  # all of them
    distances = [distance(*both(samples)) for samples in (32, 2048)]
    assert distances[1] < 0.01
    assert distances[1] < 0.3 * distances[0]
    calibrated, free = both(2048)
    assert [p.keep for p in calibrated.plan.parameters] == [p.keep for p in free.plan.parameters]
    for name in ("b.w", "c.w", "c.b"):
        wanted, found = (initializer(r.model.to_proto(), name) for r in (calibrated, free))
        np.testing.assert_allclose(found, wanted, atol=0.04)
    monkeypatch.setattr(Substitutes, "fit", lambda self, batches: None)
    assert distance(*both(2048)) > 0.3  # the samples themselves are not like those of training


def test_what_leaves_a_norm_has_the_moments_of_training() -> None:
    evidence = Evidence(gp.analyze(gp.load(network())), limit=256)
    model = evidence.graph.model
    true = {norm.name: evidence.substitutes.stored(norm).variance for norm in norms_of(model)}
    with evidence.substitutes.applied():
        batches = evidence.batches
        for norm in norms_of(model):
            value = norm.node.outputs[0]
            found = [exposing(model, [value]).run(None, b)[0] for b in batches]
            made = np.concatenate(found).astype(np.float64)
            scale, shift = (norm.constant(i).const_value.numpy() for i in (1, 2))  # type: ignore[union-attr]
            left = np.sqrt(true[norm.name] / (true[norm.name] + norm.epsilon))
            np.testing.assert_allclose(made.mean(axis=(0, 2, 3)), shift, atol=1e-4)
            np.testing.assert_allclose(made.std(axis=(0, 2, 3)), scale * left, rtol=1e-4)


def interrupted(evidence: Evidence, error: type[BaseException], before: dict[str, bytes]) -> None:
    with evidence.substitutes.applied():
        assert evidence.batches
        assert constants(evidence.graph.model) != before
        raise error


def test_true_constants_are_back_whatever_happens() -> None:
    evidence = Evidence(gp.analyze(gp.load(network())), limit=64)
    before = constants(evidence.graph.model)
    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error):
            interrupted(evidence, error, before)
        assert constants(evidence.graph.model) == before


def test_samples_of_the_user_change_nothing() -> None:
    evidence = Evidence(gp.analyze(gp.load(network())), {"x": trained(16, seed=0)})
    before = constants(evidence.graph.model)
    with evidence.substitutes.applied():
        assert evidence.batches
        assert constants(evidence.graph.model) == before


def test_nothing_is_made_up_before_somebody_asks() -> None:
    evidence = Evidence(gp.analyze(gp.load(network())))
    with evidence.substitutes.applied():
        pass
    assert "samples" not in evidence.__dict__


def test_whoever_measures_first_sees_the_same() -> None:
    """The first cut that is measured is made before anybody has looked at a sample."""
    evidence = [Evidence(gp.analyze(gp.load(network())), limit=64) for _ in range(2)]
    removed = np.zeros(len(evidence[0].graph.analysis.algebra), bool)
    removed[evidence[0].groups[0].units[:3]] = True
    found = []
    for each, is_early in zip(evidence, (True, False), strict=True):
        with each.substitutes.applied():
            if not is_early:
                assert each.batches
            found.append(Effect(each)(removed))
    assert found[0] == pytest.approx(found[1], rel=1e-6)


@pytest.mark.parametrize("compensator", ["none", "obs", "sequential"])
def test_the_written_file_holds_the_true_statistics(compensator: str) -> None:
    model = network()
    graph = gp.analyze(gp.load(model))
    before = constants(graph.model)
    plan = gp.plan(graph, target={"macs": 0.6}, samples=64)
    result = gp.prune(model, target={"macs": 0.6}, use_plan=plan, compensator=compensator, samples=64)
    applied = gp.apply(graph, plan, compensator=compensator, samples=64)
    assert constants(graph.model) == before
    for entry in plan.parameters:
        if entry.name.endswith((".mean", ".var")):
            wanted = initializer(model, entry.name)[list(entry.keep)]
            for pruned in (result.model, applied):
                np.testing.assert_array_equal(initializer(pruned.to_proto(), entry.name), wanted)


def test_changes_of_a_pruned_norm_are_made_to_its_true_statistics() -> None:
    evidence = Evidence(gp.analyze(gp.load(network())), limit=64)
    plan = gp.plan(evidence.graph, target={"macs": 0.6}, criterion="l2")
    removed = removed_units(evidence.graph, plan)
    pruned = cut(evidence.graph.analysis, removed)
    true = {n.name: [n.constant(i).const_value.numpy() for i in (3, 4)] for n in norms_of(pruned)}  # type: ignore[union-attr]
    keeps = Keeps(evidence.graph.analysis, removed)
    with evidence.substitutes.applied(pruned, keeps):
        assert evidence.batches
        for norm in norms_of(pruned):
            for i, value in ((3, norm.constant(3)), (4, norm.constant(4))):
                tensor = value.const_value
                assert tensor is not None
                assert not np.allclose(tensor.numpy(), true[norm.name][i - 3], rtol=0.01)
                value.const_value = gp_tensor(tensor.numpy() * 4 if i == 4 else tensor.numpy() + 1)
            moved = norm.constant(3).const_value.numpy() - 1  # type: ignore[union-attr]
            true[norm.name].append(moved)
    for norm in norms_of(pruned):
        mean, variance, substitute = true[norm.name]
        found = [norm.constant(i).const_value.numpy() for i in (3, 4)]  # type: ignore[union-attr]
        np.testing.assert_allclose(found[1], variance * 4, rtol=5e-3)  # but for epsilon
        np.testing.assert_allclose(found[0], substitute + 1 + 2 * (mean - substitute), rtol=5e-3)


def gp_tensor(array: Array) -> Any:
    return ir.tensor(array.astype(np.float32))


def test_shared_statistics_and_those_made_on_the_way_are_left_alone() -> None:
    body = """
        a = BatchNormalization (x, s, b, mean, var)
        c = BatchNormalization (a, s, b, mean, var)
        y, m, v = BatchNormalization <training_mode = 1> (c, s, b, n, w)"""
    weights: dict[str, Any] = dict.fromkeys(("s", "b", "mean", "var", "n", "w"), (6,))
    model = build("(float[batch, 6, 4, 4] x) => (float[batch, 6, 4, 4] y)", body, weights)
    evidence = Evidence(gp.analyze(gp.load(model)), limit=16)
    before = constants(evidence.graph.model)
    with evidence.substitutes.applied():
        assert evidence.batches
        assert constants(evidence.graph.model) == before


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_dead_channels_stay_dead_and_finite(dtype: type) -> None:
    kind = "float" if dtype is np.float32 else "float16"
    weights: dict[str, Any] = {"w": np.ones((4, 6, 1, 1), np.float32)}
    weights["w"][0] = 0
    weights |= {"s": np.ones(4, np.float32), "b": np.ones(4, np.float32), "mean": np.zeros(4, np.float32)}
    weights["var"] = np.array([1.0, 0.0, 1e-30, 2.0], np.float32)
    weights = {name: array.astype(dtype) for name, array in weights.items()}
    body = "h = Conv (x, w) y = BatchNormalization (h, s, b, mean, var)"
    model = build(f"({kind}[batch, 6, 4, 4] x) => ({kind}[batch, 4, 4, 4] y)", body, weights)
    evidence = Evidence(gp.analyze(gp.load(model)), limit=64)
    with evidence.substitutes.applied():
        batches = evidence.batches
        value = evidence.graph.model.ir.graph.outputs[0]
        found = np.concatenate([exposing(evidence.graph.model, [value]).run(None, b)[0] for b in batches])
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[:, 0], 1.0, atol=1e-2)
    assert found[:, 3].astype(np.float64).std() == pytest.approx(1.0, rel=0.02)
