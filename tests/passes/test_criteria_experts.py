"""Experts: planted ones that must go first, and layers whose rows depend on a router."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from graphprune.passes.compensators.parallel import Parallel
from graphprune.passes.compensators.sequential import Sequential
from graphprune.passes.criteria.expert_subsets import MaskedLayer, best_subset
from graphprune.passes.criteria.experts import expert_subset, reap_criterion, routing_frequency
from graphprune.passes.criteria.obs import OptimalBrainSurgeon
from graphprune.passes.criteria.routers import router_of
from graphprune.passes.criteria.structures import with_experts
from networks import build

import graphprune as gp
from graphprune.calibration.evidence import Evidence
from graphprune.calibration.gathered import Gathered
from graphprune.groups import Group
from graphprune.model import Model
from graphprune.rewrite import cut

EXPERTS, WIDTH, INNER = 5, 8, 6
ROWS = 400
Arrays = dict[str, npt.NDArray[np.float32]]
RNG = np.random.default_rng(0)


def weights() -> Arrays:
    """Router and experts, stacked."""
    rng = np.random.default_rng(3)

    def draw(*shape: int) -> npt.NDArray[np.float32]:
        return (0.4 * rng.standard_normal(shape)).astype(np.float32)

    return {
        "router": draw(WIDTH, EXPERTS),
        "up": draw(EXPERTS, WIDTH, INNER),
        "down": draw(EXPERTS, INNER, WIDTH),
    }


def unrolled(w: Arrays, k: int = 2, act: str = "Relu", *, gate_first: bool = False) -> onnx.ModelProto:
    """All experts run on all rows; most are multiplied by zero."""
    parts, constants = [], {"router": w["router"], "zero": np.zeros(1, np.float32), "k": [k], "last": [-1]}
    for e in range(EXPERTS):
        constants |= {f"up{e}": w["up"][e], f"down{e}": w["down"][e]}
        gate = f"w{e} = Slice(gates, s{e}, s{e + 1}, last)"
        if gate_first:
            parts.append(f"""{gate} x{e} = Mul(x, w{e}) h{e} = MatMul(x{e}, up{e}) r{e} = {act}(h{e})
                p{e} = MatMul(r{e}, down{e})""")
        else:
            parts.append(f"""h{e} = MatMul(x, up{e}) r{e} = {act}(h{e}) d{e} = MatMul(r{e}, down{e})
                {gate} p{e} = Mul(d{e}, w{e})""")
    constants |= {f"s{e}": [e] for e in range(EXPERTS + 1)}
    sums = " ".join(f"t{e} = Add({'p0' if e == 1 else f't{e - 1}'}, p{e})" for e in range(1, EXPERTS))
    body = f"""logits = MatMul(x, router) v, i = TopK(logits, k) g = Softmax <axis=-1> (v)
        size = Shape(logits) none = Expand(zero, size) gates = ScatterElements <axis=-1> (none, i, g)
        {" ".join(parts)} {sums} y = Add(x, t{EXPERTS - 1})"""
    return build(f"(float[n, {WIDTH}] x) => (float[n, {WIDTH}] y)", body, constants, opset=18)


def stacked(w: Arrays, k: int = 2, act: str = "Relu", *, left: bool = False) -> onnx.ModelProto:
    """Matrices are looked up for each row; ``left``: they stand on the left of the product."""
    body = f"""logits = MatMul(x, router) v, i = TopK(logits, k) g = Softmax <axis=-1> (v)
        a = Gather(up, i) b = Gather(down, i) {"u = Unsqueeze(x, sides)" if left else "u = Unsqueeze(x, mid)"}
        h = MatMul({"a, u" if left else "u, a"}) r = {act}(h) d = MatMul({"b, r" if left else "r, b"})
        q = Unsqueeze(g, ends) m = Mul(d, q) s = ReduceSum <keepdims=0> (m, both) y = Add(x, s)"""
    constants: dict[str, object] = {"router": w["router"], "k": [k]}
    constants |= {"sides": [1, 3]} if left else {"mid": [1, 2]}
    constants |= {"ends": [2, 3], "both": [1, 3] if left else [1, 2]}
    constants |= {n: np.ascontiguousarray(w[n].transpose(0, 2, 1) if left else w[n]) for n in ("up", "down")}
    return build(f"(float[n, {WIDTH}] x) => (float[n, {WIDTH}] y)", body, constants, opset=18)


FORMS = {
    "unrolled": unrolled,
    "stacked": stacked,
    "stacked-left": lambda w, k=2, act="Relu": stacked(w, k, act, left=True),
}


def evidence(model: onnx.ModelProto) -> Evidence:
    x = np.random.default_rng(1).standard_normal((ROWS, WIDTH)).astype(np.float32)
    return Evidence(gp.analyze(model), {"x": x})


def run(model: Model | onnx.ModelProto) -> npt.NDArray[np.float32]:
    proto = model.to_proto() if isinstance(model, Model) else model
    x = np.random.default_rng(2).standard_normal((64, WIDTH)).astype(np.float32)
    return np.asarray(ort.InferenceSession(proto.SerializeToString()).run(None, {"x": x})[0])


def experts(found: Evidence) -> Group:
    (group,) = (g for g in found.graph.groups if g.kind == "experts")
    return group


@pytest.mark.usefixtures("all_fitted")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("criterion", [reap_criterion, routing_frequency, expert_subset])
def test_an_expert_that_is_never_chosen_goes_first(form: str, criterion: type) -> None:
    w = weights()
    found = evidence(FORMS[form](w))
    logits = found.samples.feeds["x"] @ w["router"]
    # Rows have a mean of zero, so no weights keep an expert away from all of them; half of the rows do.
    lucky = np.argsort(-logits, axis=1)[:, :2]
    rows = found.samples.feeds["x"][(lucky != 3).all(axis=1)]
    found = Evidence(found.graph, {"x": rows})
    judge = criterion()
    scores = judge(found)[experts(found).units]
    assert not judge.refused
    assert np.argmin(scores) == 3
    assert scores[3] == pytest.approx(0.0, abs=1e-7)
    assert (np.delete(scores, 3) > 1e-5).all()


@pytest.mark.usefixtures("all_fitted")
@pytest.mark.parametrize("form", FORMS)
def test_frequency_and_reap_are_what_their_formulas_say(form: str) -> None:
    w = weights()
    found = evidence(FORMS[form](w))
    x = np.asarray(found.samples.feeds["x"], np.float64)
    logits = x @ w["router"]
    chosen = np.argsort(-logits, axis=1)[:, :2]
    values = np.exp(np.take_along_axis(logits, chosen, axis=1))
    gates = values / values.sum(axis=1, keepdims=True)
    often, said = np.zeros(EXPERTS), np.zeros(EXPERTS)
    for e in range(EXPERTS):
        rows, slots = np.nonzero(chosen == e)
        often[e] = len(rows) / len(x)
        outputs = np.maximum(x[rows] @ w["up"][e], 0) @ w["down"][e]
        said[e] = (gates[rows, slots] * np.linalg.norm(outputs, axis=1)).mean()
    units = experts(found).units
    np.testing.assert_allclose(routing_frequency()(found)[units], often, rtol=1e-6)
    np.testing.assert_allclose(reap_criterion()(found)[units], said, rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_one_of_two_equal_experts_is_found_by_subsets(form: str) -> None:
    """Its tokens go to the other one, so nothing changes."""
    w = weights()
    for array in (w["up"], w["down"]):
        array[4] = array[1]
    w["router"][:, 4] = w["router"][:, 1]
    found = evidence(FORMS[form](w, 1))
    scores = expert_subset()(found)[experts(found).units]
    assert min(scores[1], scores[4]) == pytest.approx(0.0, abs=1e-9)
    assert max(scores[1], scores[4]) > 1e-3
    assert np.argmin(scores) in (1, 4)
    router = router_of(found, experts(found))
    assert not isinstance(router, str)
    kept = best_subset(MaskedLayer(found, router), 4)
    assert len({1, 4} & set(kept)) == 1


def test_the_error_of_a_subset_is_that_of_the_cut_model() -> None:
    found = evidence(stacked(weights()))
    group = experts(found)
    router = router_of(found, group)
    assert not isinstance(router, str)
    layer = MaskedLayer(found, router, ROWS)
    keep = [0, 2, 3]
    removed = np.zeros(len(found.graph.analysis.algebra), bool)
    removed[np.delete(router.units, keep)] = True
    x = found.samples.feeds["x"]
    runs = [
        ort.InferenceSession(m.to_proto().SerializeToString()).run(None, {"x": x})[0]
        for m in (found.graph.model, cut(found.graph.analysis, removed))
    ]
    expected = np.square(runs[0] - runs[1]).sum(axis=1).mean() / runs[0].var(axis=0).sum()
    assert layer.error(keep) == pytest.approx(float(expected), rel=1e-4)


def mixed(w: Arrays) -> Arrays:
    """In each expert the last inner channel is a mix of the others, another one in each."""
    mix = 0.4 * np.random.default_rng(5).standard_normal((EXPERTS, INNER - 1, 1)).astype(np.float32)
    w["up"][:, :, -1:] = w["up"][:, :, :-1] @ mix
    return w


@pytest.mark.parametrize("compensator", [Parallel(damping=1e-9, shrink=False), Sequential()])
@pytest.mark.parametrize("form", ["stacked", "stacked-left"])
def test_a_mixed_inner_channel_of_stacked_experts_goes_for_free(form: str, compensator: Parallel) -> None:
    model = FORMS[form](mixed(weights()), 2, "Identity")
    found = evidence(model)
    assert sum(isinstance(c.layer, Gathered) for c in found.consumers) == 2 * EXPERTS
    (inner,) = (g for g in found.graph.groups if g.size == INNER and g.prunable)
    scores = OptimalBrainSurgeon(damping=1e-9, shrink=False)(found)[inner.units]
    assert np.argmin(scores) < INNER
    assert scores.min() < 1e-6 * np.median(scores)
    removed = np.zeros(len(found.graph.analysis.algebra), bool)
    removed[inner.units[-1]] = True
    plain, dense = run(cut(found.graph.analysis, removed)), run(model)
    assert np.abs(plain - dense).max() > 0.01
    fitted = compensator(found, removed, cut(found.graph.analysis, removed))
    np.testing.assert_allclose(run(fitted), dense, atol=1e-4)


def test_experts_and_inner_channels_go_together() -> None:
    """The matrices that stay are those of the experts that stay."""
    model = stacked(mixed(weights()), 2, "Identity")
    found = evidence(model)
    (inner,) = (g for g in found.graph.groups if g.size == INNER and g.prunable)
    removed = np.zeros(len(found.graph.analysis.algebra), bool)
    removed[experts(found).units[1]] = True
    without_expert = cut(found.graph.analysis, removed)
    removed[inner.units[-1]] = True
    fitted = Parallel(damping=1e-9, shrink=False)(found, removed, cut(found.graph.analysis, removed))
    np.testing.assert_allclose(run(fitted), run(without_expert), atol=1e-4)
    again = Sequential()(found, removed, cut(found.graph.analysis, removed))
    assert np.isfinite(run(again)).all()


@pytest.mark.usefixtures("all_fitted")
def test_rows_that_a_gate_cancels_say_nothing() -> None:
    """Inner channels of an expert are judged on its own tokens."""
    w = weights()
    found = evidence(unrolled(w))
    moments = {
        c.layer.constant.name: found.moments[c.layer] for c in found.consumers if c.layer in found.moments
    }
    x = np.asarray(found.samples.feeds["x"], np.float64)
    logits = x @ w["router"]
    chosen = np.argsort(-logits, axis=1)[:, :2]
    values = np.exp(np.take_along_axis(logits, chosen, axis=1))
    gates = (values / values.sum(axis=1, keepdims=True) * (chosen == 2)).sum(axis=1, keepdims=True)
    hidden = np.maximum(x @ w["up"][2], 0) * gates
    np.testing.assert_allclose(moments["down2"].second[0], hidden.T @ hidden / len(x), rtol=1e-4, atol=1e-6)


def test_experts_without_a_gate_at_their_end_keep_the_scores_of_the_base() -> None:
    judge = reap_criterion()
    found = evidence(unrolled(weights(), gate_first=True))
    scores = judge(found)
    assert list(judge.refused.values()) == ["not every expert has a last layer whose rows a gate multiplies"]
    assert (scores[experts(found).units] > 0).all()


@pytest.mark.parametrize("form", FORMS)
def test_experts_compete_with_widths(form: str) -> None:
    found = evidence(FORMS[form](weights()))
    scores = with_experts(OptimalBrainSurgeon())(found)
    base = OptimalBrainSurgeon()(found)
    units = experts(found).units
    rest = np.setdiff1d(np.arange(len(scores)), units)
    np.testing.assert_array_equal(scores[rest], base[rest])
    assert (scores[units] > 0).all()
    assert scores[units].min() < 1.0
