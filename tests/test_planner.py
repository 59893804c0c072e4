"""Targets are met by what is measured afterwards, limits hold, and what can't be met says why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from networks import NETWORKS, graph_of

from graphprune import api
from graphprune.cost import measure
from graphprune.errors import TargetError, UsageError
from graphprune.graph import DependencyGraph, analyze
from graphprune.model import load
from graphprune.plan import Plan
from graphprune.planner import make_plan, removed_units
from graphprune.rewrite import cut


def kept(plan: Plan) -> dict[str, int]:
    return {g.id: len(g.keep) for g in plan.groups}


@pytest.mark.parametrize("allocator", ["uniform", "global"])
@pytest.mark.parametrize("name", NETWORKS)
def test_macs_and_params_targets_are_met_by_the_measured_file(name: str, allocator: str) -> None:
    graph = graph_of(name)
    dense = graph.cost.evaluate()
    for metric in ("macs", "params"):
        plan = api.plan(graph, target={metric: 0.7}, criterion="l2", allocator=allocator, floor=0.0)
        pruned = measure(cut(graph.analysis, removed_units(graph, plan)))
        assert pruned.ratio(dense)[metric] <= 0.7
        assert plan.reached[metric] == pytest.approx(pruned.ratio(dense)[metric], abs=1e-6)


@pytest.mark.parametrize("allocator", ["uniform", "global"])
@pytest.mark.parametrize("name", ["option_a", "cnn", "dense", "merged_constants", "gated_mlp"])
def test_bytes_target_is_met_by_the_file_itself(name: str, allocator: str) -> None:
    graph = graph_of(name)
    before = graph.cost.evaluate().bytes
    target = 0.9 if name == "merged_constants" else 0.7
    plan = api.plan(graph, target={"bytes": target}, criterion="l2", allocator=allocator, floor=0.0)
    assert api.apply(graph, plan).file_bytes <= target * before


def test_bytes_target_below_what_the_structure_needs_is_refused() -> None:
    with pytest.raises(TargetError, match=r"cannot reach bytes=70\.0%"):
        api.plan(graph_of("group_norm"), target={"bytes": 0.7}, criterion="l2", floor=0.0)


def test_several_targets_are_all_met() -> None:
    graph = graph_of("cnn")
    plan = api.plan(graph, target={"macs": 0.9, "params": 0.5}, criterion="l2")
    assert plan.reached["macs"] <= 0.9
    assert plan.reached["params"] <= 0.5


def test_no_more_goes_than_is_needed() -> None:
    """Giving back any one unit of a group would miss the target."""
    graph = graph_of("cnn")
    plan = api.plan(graph, target={"macs": 0.5}, criterion="l2")
    removed = removed_units(graph, plan)
    dense = graph.cost.evaluate()
    for group in graph.groups:
        for unit in group.units[removed[group.units]]:
            fewer = removed.copy()
            fewer[unit] = False
            assert graph.cost.evaluate(fewer).ratio(dense)["macs"] > 0.5


@pytest.mark.parametrize("floor", [0.0, 0.3, 0.5])
def test_floor_holds_in_every_group(floor: float) -> None:
    graph = graph_of("cnn")
    plan = api.plan(graph, target={"macs": 0.7}, criterion="l2", floor=floor, allocator="global")
    for group in plan.groups:
        assert len(group.keep) >= max(1, np.ceil(floor * group.size))


def test_one_unit_always_stays() -> None:
    graph = graph_of("mlp")
    plan = api.plan(graph, target={"macs": 0.08}, criterion="l2", floor=0.0)
    assert all(g.keep for g in plan.groups)


@pytest.mark.parametrize("allocator", ["uniform", "global"])
def test_align_keeps_multiples_of_widths_and_leaves_heads_alone(allocator: str) -> None:
    plan = api.plan(graph_of("attention"), target={"macs": 0.8}, criterion="l2", align=2, allocator=allocator)
    for group in plan.groups:
        assert group.kind == "heads" or len(group.keep) % 2 == 0
    plan = api.plan(graph_of("cnn"), target={"macs": 0.7}, criterion="l2", align=4, allocator=allocator)
    assert kept(plan)["stem.w:0"] == 4
    assert kept(plan).get("a.w:0", 6) in (4, 6)


def test_align_larger_than_every_width_leaves_nothing_to_cut() -> None:
    with pytest.raises(TargetError):
        api.plan(graph_of("cnn"), target={"macs": 0.9}, criterion="l2", align=64)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"include": ["a.w*"]}, {"a.w:0"}),  # stem's group holds a.w:1, but is not made by it
        ({"include": ["Conv_a"]}, {"a.w:0"}),
        ({"include": ["stem.w"]}, {"stem.w:0"}),
        ({"include": ["a.w:0"]}, {"a.w:0"}),
        ({"include": ["Conv_s", "Conv_a"], "exclude": ["fc.w"]}, {"a.w:0"}),  # any member
        ({"include": ["Conv_s", "Conv_a"], "exclude": ["b.w:1"]}, {"stem.w:0"}),
        ({"exclude": ["stem.*"]}, {"a.w:0"}),
        ({"exclude": ["a.bn.mean"]}, {"stem.w:0"}),
        ({"include": ["*"]}, {"a.w:0", "stem.w:0"}),
    ],
)
def test_include_and_exclude(options: dict[str, Any], expected: set[str]) -> None:
    plan = api.plan(graph_of("cnn"), target={"macs": 0.85}, criterion="l2", **options)
    assert set(kept(plan)) == expected


def test_include_of_a_layer_leaves_the_groups_it_merely_reads_alone() -> None:
    """By the module path that exporters note; layer b reads both groups and makes neither."""
    model = NETWORKS["cnn"]()
    for node in model.graph.node:
        entry = node.metadata_props.add()
        scopes = ["", f"layers.{node.output[0]}", node.name]
        entry.key, entry.value = "pkg.torch.onnx.name_scopes", str(scopes)
    graph = analyze(load(model))
    assert set(kept(api.plan(graph, target={"macs": 0.85}, criterion="l2", include=["layers.a"]))) == {
        "a.w:0"
    }
    assert set(kept(api.plan(graph, target={"macs": 0.85}, criterion="l2", include=["layers.s"]))) == {
        "stem.w:0"
    }
    assert set(kept(api.plan(graph, target={"macs": 0.85}, criterion="l2", exclude=["layers.y"]))) == {
        "a.w:0"
    }
    with pytest.raises(TargetError, match="cannot reach") as caught:
        api.plan(graph, target={"macs": 0.85}, criterion="l2", include=["layers.b"])
    assert "0 groups allow" in (caught.value.where or "")
    hint = caught.value.hint or ""
    assert "to admit the 2 groups that --kinds, --exact-only, --include or --exclude leave out" in hint


def test_include_of_what_no_group_is_made_by_is_refused() -> None:
    """The BatchNorm's parameters go with the stem; to exclude the stem by them is fine."""
    with pytest.raises(UsageError, match=r"'stem\.bn\.\*' matches no group"):
        api.plan(graph_of("cnn"), target={"macs": 0.85}, criterion="l2", include=["stem.bn.*"])
    assert set(
        kept(api.plan(graph_of("cnn"), target={"macs": 0.85}, criterion="l2", exclude=["stem.bn.*"]))
    ) == {"a.w:0"}


@pytest.mark.parametrize("which", ["include", "exclude"])
def test_globs_that_match_nothing_are_refused(which: str) -> None:
    options: dict[str, Any] = {which: ["nothing*"]}
    with pytest.raises(UsageError, match="matches no group"):
        api.plan(graph_of("cnn"), target={"macs": 0.8}, criterion="l2", **options)


def test_kinds() -> None:
    plan = api.plan(graph_of("attention"), target={"macs": 0.8}, criterion="l2", kinds=["heads"])
    assert {g.kind for g in plan.groups} == {"heads"}
    plan = api.plan(graph_of("attention"), target={"macs": 0.8}, criterion="l2", kinds=["head_dim"])
    assert {g.kind for g in plan.groups} == {"head_dim"}
    with pytest.raises(UsageError, match="unknown kind 'head'"):
        api.plan(graph_of("attention"), target={"macs": 0.8}, criterion="l2", kinds=["head"])


def test_exact_only_leaves_statistics_alone() -> None:
    plan = api.plan(graph_of("tied_embedding"), target={"macs": 0.8}, criterion="l2", exact_only=True)
    assert set(kept(plan)) == {"up.w:1"}
    assert all(g.exact for g in plan.groups)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"criterion": "best"}, "unknown criterion 'best'"),
        ({"allocator": "fair"}, "unknown allocator 'fair'"),
        ({"align": 0}, "multiples of 0"),
        ({"align": -8}, "multiples of -8"),
        ({"floor": 1.5}, "floor of 1.5"),
        ({"floor": -0.1}, "floor of -0.1"),
        ({"floor": float("nan")}, "floor of nan"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        api.plan(graph_of("cnn"), target={"macs": 0.5}, **{"criterion": "l2", **options})


def test_unreachable_says_how_far_it_goes_and_what_blocks_the_rest() -> None:
    graph = graph_of("other_domain")
    with pytest.raises(TargetError, match=r"cannot reach macs=10\.0%") as caught:
        api.plan(graph, target={"macs": 0.1}, criterion="l2")
    error = caught.value
    assert error.exit_code == 4
    assert "2 groups allow keeps macs" in (error.where or "")
    assert "no coupling rule for com.microsoft::Trilu" in (error.because or "")
    # What it says it can reach, it can.
    reach = float((error.where or "").split("macs ")[1].rstrip("%")) / 100
    assert api.plan(graph, target={"macs": reach + 0.0006}, criterion="l2").reached["macs"] <= reach + 0.0006


def test_nothing_to_prune_is_unreachable_and_no_crash() -> None:
    with pytest.raises(TargetError, match="cannot reach") as caught:
        api.plan(graph_of("cnn"), target={"macs": 0.9}, criterion="l2", exclude=["*"])
    assert "0 groups allow keeps macs 100.0%" in (caught.value.where or "")
    hint = caught.value.hint or ""
    assert "to admit the 2 groups that --kinds, --exact-only, --include or --exclude leave out" in hint


@pytest.mark.parametrize(
    ("options", "because", "hint"),
    [
        (
            {},
            "each group keeps 10%; blocked: ",
            "a larger target, a --floor below 0.1, --kinds with 'blocks' among them",
        ),
        (
            {"floor": 0.0},
            "each group keeps 0%; blocked: ",
            "a larger target, --kinds with 'blocks' among them",
        ),
        (
            {"floor": 0.5, "align": 2},
            "each group keeps 50% and a multiple of 2; blocked: ",
            "a larger target, a smaller --align, a --floor below 0.5, --kinds with 'blocks' among them",
        ),
    ],
)
def test_unreachable_suggests_only_what_would_help(options: dict[str, Any], because: str, hint: str) -> None:
    with pytest.raises(TargetError) as caught:
        api.plan(graph_of("cnn"), target={"macs": 0.01}, criterion="l2", **options)
    # The classifier's rows, of 9 parameters each, before the stem's input and kernels.
    assert caught.value.because == f"{because}model output 'y'; model input 'x'"
    assert caught.value.hint == hint


@pytest.mark.parametrize("allocator", ["uniform", "global"])
@pytest.mark.parametrize("name", NETWORKS)
def test_plan_gives_back_the_units_it_was_made_from(name: str, allocator: str) -> None:
    graph = graph_of(name)
    rng = np.random.default_rng(7)
    removed = np.zeros(len(graph.analysis.algebra), bool)
    for group in graph.groups:
        if group.prunable:
            gone = rng.permutation(group.size)[: rng.integers(0, group.size)]
            removed[group.units[gone]] = True
    plan = make_plan(graph, removed, {"macs": 0.5})
    again = removed_units(graph, Plan.from_json(plan.to_json()))
    assert np.array_equal(again, removed)


def test_same_seed_same_plan() -> None:
    def make(seed: int) -> Plan:
        graph: DependencyGraph = analyze(load(NETWORKS["cnn"]()))
        return api.plan(graph, target={"macs": 0.6}, criterion="random", seed=seed)

    assert make(3) == make(3)
    assert make(3).parameters != make(4).parameters
