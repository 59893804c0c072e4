"""Blocks: one that adds nothing goes first, and widths and blocks share one scale."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from graphprune.passes.allocators import ALLOCATORS, Allocation, Limits
from graphprune.passes.criteria.blocks import Angular, BlockEffect, WithBlocks, blocks_of
from graphprune.passes.criteria.contiguous import Contiguous, angles_of_runs, longest_chain, run_order
from graphprune.passes.criteria.obs import OptimalBrainSurgeon
from networks import build

import graphprune as gp
from graphprune.calibration.evidence import Evidence
from graphprune.rewrite import cut

BLOCKS, WIDTH, INNER = 4, 8, 12
NOTHING = 2
CRITERIA = [Angular, BlockEffect, lambda: WithBlocks(OptimalBrainSurgeon())]


def residual(strength: tuple[float, ...]) -> onnx.ModelProto:
    """A stem, branches that add this much to the stream, and a head."""
    rng = np.random.default_rng(0)
    weights: dict[str, object] = {
        "stem": rng.standard_normal((6, WIDTH)).astype(np.float32),
        "head": rng.standard_normal((WIDTH, 3)).astype(np.float32),
    }
    body = "s0 = MatMul(x, stem) "
    for b, factor in enumerate(strength):
        weights[f"up{b}"] = rng.standard_normal((WIDTH, INNER)).astype(np.float32)
        weights[f"down{b}"] = (factor * rng.standard_normal((INNER, WIDTH))).astype(np.float32)
        body += f"h{b} = MatMul(s{b}, up{b}) r{b} = Relu(h{b}) d{b} = MatMul(r{b}, down{b}) "
        body += f"s{b + 1} = Add(s{b}, d{b}) "
    return build("(float[n, 6] x) => (float[n, 3] y)", body + f"y = MatMul(s{len(strength)}, head)", weights)


def evidence(*strength: float) -> Evidence:
    x = np.random.default_rng(1).standard_normal((256, 6)).astype(np.float32)
    return Evidence(gp.analyze(residual(strength)), {"x": x})


def scores_of(found: Evidence, criterion: Angular) -> npt.NDArray[np.float64]:
    scores = criterion(found)
    return np.array([scores[g.units[0]] for g in blocks_of(found)])


@pytest.mark.parametrize("make", CRITERIA)
def test_a_block_that_adds_zero_scores_least_and_goes_without_a_change(make: type[Angular]) -> None:
    found = evidence(0.2, 0.1, 0.0, 0.3)
    scores = scores_of(found, make())
    assert len(scores) == BLOCKS
    assert np.argmin(scores) == NOTHING
    assert scores[NOTHING] < 1e-3 * np.sort(scores)[1]
    removed = np.zeros(len(found.graph.analysis.algebra), bool)
    removed[blocks_of(found)[NOTHING].units] = True
    models = (found.graph.model, cut(found.graph.analysis, removed))
    feeds = {"x": found.samples.feeds["x"]}
    dense, pruned = (
        ort.InferenceSession(m.to_proto().SerializeToString()).run(None, feeds)[0] for m in models
    )
    np.testing.assert_allclose(pruned, dense, atol=1e-5)


@pytest.mark.parametrize("make", [*CRITERIA, Contiguous])
def test_other_units_keep_the_scores_of_the_base(make: type[Angular]) -> None:
    found = evidence(0.2, 0.1, 0.05, 0.3)
    criterion = make()
    blocks = np.concatenate([g.units for g in blocks_of(found)])
    rest = np.setdiff1d(np.arange(len(found.graph.analysis.algebra)), blocks)
    np.testing.assert_array_equal(criterion(found)[rest], criterion.base(found)[rest])


def test_a_weak_block_goes_before_widths_and_a_strong_one_after() -> None:
    found = evidence(0.3, 0.3, 1e-3, 0.3)
    criterion = WithBlocks(OptimalBrainSurgeon())
    allocation = Allocation(
        groups=[g for g in found.graph.groups if g.prunable and g.exact],
        scores=criterion(found),
        limits=Limits(0.1, 1),
        graph=found.graph,
        targets={"macs": 0.7},
        additive=criterion.additive,
    )
    removed = ALLOCATORS["rate-distortion"](allocation)
    gone = [bool(removed[g.units[0]]) for g in blocks_of(found)]
    assert gone == [False, False, True, False]
    inner = [g for g in allocation.groups if g.size == INNER]
    assert sum(int(removed[g.units].sum()) for g in inner) > 0


@pytest.mark.usefixtures("all_fitted")
def test_a_chain_of_blocks_and_the_angles_between_its_places() -> None:
    found = evidence(0.2, 0.1, 0.05, 0.3)
    chain = longest_chain(found.graph.analysis.blocks)
    assert [block.value.name for block in chain] == [f"d{b}" for b in range(BLOCKS)]
    angles = angles_of_runs(found, chain)
    single = scores_of(found, Angular())
    near = Angular()(Evidence(found.graph, {"x": found.samples.feeds["x"][:32]}))
    expected = [near[g.units[0]] for g in blocks_of(found)]
    np.testing.assert_allclose(np.diag(angles, 1), expected, rtol=1e-6)
    assert single.shape == (BLOCKS,)
    assert (angles[0, 2:] <= np.cumsum(np.diag(angles, 1))[1:] + 1e-9).all()  # angles are distances


def test_the_run_grows_to_its_nearer_side() -> None:
    """Places on a line: a run's ends are as far apart as the places."""
    place = np.array([0.0, 5.0, 6.0, 6.5, 8.5, 20.0])
    angles = np.abs(place[:, None] - place[None])
    assert run_order(angles) == [2, 1, 3, 0, 4]
    ranks = Contiguous()(evidence(0.3, 0.02, 0.002, 0.5))
    assert ranks.max() >= BLOCKS


def test_contiguous_blocks_are_neighbours_at_every_length() -> None:
    found = evidence(0.3, 0.02, 0.002, 0.5)
    ranks = scores_of(found, Contiguous())
    order = np.argsort(ranks)
    assert order[0] == NOTHING
    for length in range(1, BLOCKS + 1):
        run = np.sort(order[:length])
        assert run[-1] - run[0] == length - 1
