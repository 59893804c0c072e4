"""The Python interface: sources of every kind, plans as round trips, the same bytes each time."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from networks import NETWORKS, feeds, graph_of, run

import graphprune as gp
from graphprune.cost import measure
from graphprune.errors import ModelError, PlanError, TargetError, UsageError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(NETWORKS["cnn"](), path)
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_steps_of_the_interface_page(source: Path, tmp_path: Path) -> None:
    model = gp.load(source)
    graph = gp.analyze(model)
    assert graph.groups
    assert len(graph.nx) > 0
    assert graph.explain("stem.w", 0).members
    plan = gp.plan(model, target={"macs": 0.5}, criterion="l1", allocator="global")
    pruned = gp.apply(model, plan)
    (found,) = gp.check(model, pruned)
    assert found.max_error > 0
    pruned.save(tmp_path / "pruned.onnx")
    assert measure(gp.load(tmp_path / "pruned.onnx")).macs <= 0.5 * graph.cost.evaluate().macs


@pytest.mark.parametrize("kind", ["path", "text", "proto", "graphsurgeon", "model"])
def test_every_kind_of_source_gives_the_same_model(kind: str, source: Path) -> None:
    proto = onnx.load(source)
    given = {
        "path": source,
        "text": str(source),
        "proto": proto,
        "graphsurgeon": gs.import_onnx(proto),
        "model": gp.load(source),
    }[kind]
    result = gp.prune(given, target={"macs": 0.6}, criterion="l2")
    reference = gp.prune(source, target={"macs": 0.6}, criterion="l2")
    inputs = feeds(proto)
    assert np.array_equal(run(result.model.to_proto(), inputs)[0], run(reference.model.to_proto(), inputs)[0])


def test_result_tells_everything(source: Path, tmp_path: Path) -> None:
    before = source.read_bytes()
    result = gp.prune(
        source, tmp_path / "out.onnx", target={"macs": "50%"}, criterion="l2", plan_out=tmp_path / "p.json"
    )
    assert result.output == tmp_path / "out.onnx"
    assert result.after.macs <= 0.5 * result.before.macs
    assert result.verdict is not None
    assert result.verdict.max_error <= 1e-4 * result.verdict.scale
    assert result.source_sha256 == hashlib.sha256(before).hexdigest() == result.plan.model_sha256
    assert set(result.seconds) == {"load", "analyze", "plan", "rewrite", "verify", "write"}
    assert source.read_bytes() == before
    assert sorted(f.name for f in tmp_path.iterdir()) == ["model.onnx", "out.onnx", "p.json"]
    assert measure(gp.load(tmp_path / "out.onnx")).macs == result.after.macs


def test_without_output_nothing_is_written(source: Path, tmp_path: Path) -> None:
    result = gp.prune(source, target={"macs": 0.5}, criterion="l2")
    assert result.output is None
    assert [f.name for f in tmp_path.iterdir()] == ["model.onnx"]


def test_without_verification_there_is_no_verdict(source: Path) -> None:
    assert gp.prune(source, target={"macs": 0.5}, criterion="l2", verify_result=False).verdict is None


@pytest.mark.parametrize("name", NETWORKS)
def test_saved_plan_repeats_the_cut_byte_for_byte(name: str, tmp_path: Path) -> None:
    onnx.save(NETWORKS[name](), tmp_path / "m.onnx")
    first = gp.prune(
        tmp_path / "m.onnx", tmp_path / "a.onnx", target={"macs": 0.7}, criterion="l2", floor=0.0,
        plan_out=tmp_path / "plan.json",
    )  # fmt: skip
    plan = gp.Plan.load(tmp_path / "plan.json")
    assert plan == first.plan
    gp.prune(tmp_path / "m.onnx", tmp_path / "b.onnx", use_plan=plan)
    gp.apply(tmp_path / "m.onnx", plan).save(tmp_path / "c.onnx")
    assert digest(tmp_path / "a.onnx") == digest(tmp_path / "b.onnx") == digest(tmp_path / "c.onnx")


SCRIPT = """
import sys, graphprune as gp
gp.prune(sys.argv[1], sys.argv[2], target={"macs": 0.6}, allocator="global", plan_out=sys.argv[2] + ".json")
gp.graph_files = __import__("graphprune.graph_files").graph_files
gp.graph_files.write_graph(gp.analyze(gp.load(sys.argv[1])), sys.argv[2] + ".dot")
"""


def test_same_bytes_whatever_the_hash_seed(tmp_path: Path) -> None:
    onnx.save(NETWORKS["attention"](), tmp_path / "m.onnx")
    for seed in ("1", "2"):
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / "m.onnx"), str(tmp_path / f"{seed}.onnx")]
        subprocess.run(command, check=True, env={"PYTHONHASHSEED": seed, "PATH": ""}, timeout=60)
    for ending in ("onnx", "onnx.json", "onnx.dot"):
        assert digest(tmp_path / f"1.{ending}") == digest(tmp_path / f"2.{ending}")


def test_objects_passed_in_are_not_changed() -> None:
    proto = NETWORKS["cnn"]()
    before = proto.SerializeToString(deterministic=True)
    model = gp.load(proto)
    kept = model.to_proto().SerializeToString(deterministic=True)
    graph = gp.analyze(model)
    groups = [(g.id, g.units.tolist()) for g in graph.groups]
    plan = gp.plan(graph, target={"macs": 0.5}, criterion="l2")
    document = plan.to_json()
    gp.prune(model, use_plan=plan)
    gp.apply(graph, plan)
    assert proto.SerializeToString(deterministic=True) == before
    assert model.to_proto().SerializeToString(deterministic=True) == kept
    assert [(g.id, g.units.tolist()) for g in graph.groups] == groups
    assert plan.to_json() == document


def test_pruning_twice_is_pruning_the_pruned(source: Path) -> None:
    once = gp.prune(source, target={"macs": 0.7}, criterion="l2")
    twice = gp.prune(once.model, target={"macs": 0.7}, criterion="l2")
    assert twice.after.macs <= 0.49 * once.before.macs + 1
    assert twice.verdict is not None


def test_external_data_stay_external_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(NETWORKS["cnn"](), path, save_as_external_data=True, location="m.bin", size_threshold=0)
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    gp.prune(path, tmp_path / "out.onnx", target={"macs": 0.6}, criterion="l2")
    gp.prune(NETWORKS["cnn"](), tmp_path / "embedded.onnx", target={"macs": 0.6}, criterion="l2")
    after = {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    assert {n: after[n] for n in before} == before
    assert set(after) == {*before, "out.onnx", "out.onnx.data", "embedded.onnx"}
    inputs = feeds(NETWORKS["cnn"]())
    (a,), (b,) = (run(gp.load(tmp_path / n).to_proto(), inputs) for n in ("out.onnx", "embedded.onnx"))
    assert np.array_equal(a, b)


def test_nothing_is_written_when_something_fails(source: Path, tmp_path: Path) -> None:
    out, plan_out = tmp_path / "out.onnx", tmp_path / "none" / "p.json"
    with pytest.raises(ModelError):
        gp.prune(source, out, target={"macs": 0.5}, criterion="l2", plan_out=plan_out)
    with pytest.raises(ModelError):
        gp.prune(source, tmp_path, target={"macs": 0.5}, criterion="l2", plan_out=tmp_path / "p.json")
    with pytest.raises(ModelError):
        gp.prune(
            source, source / "out.onnx", target={"macs": 0.5}, criterion="l2", plan_out=tmp_path / "p.json"
        )
    with pytest.raises(TargetError):
        gp.prune(source, out, target={"macs": 0.001}, criterion="l2", plan_out=tmp_path / "p.json")
    with pytest.raises(UsageError):
        gp.prune(source, out)
    with pytest.raises(PlanError):
        gp.prune(source, out, use_plan=gp.plan(graph_of("mlp"), target={"macs": 0.6}, criterion="l2"))
    assert [f.name for f in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize(
    "names", [("model.onnx", None), ("o", "model.onnx"), ("o", "o"), ("./model.onnx", None)]
)
def test_no_file_is_written_over_another(source: Path, tmp_path: Path, names: tuple[str, str | None]) -> None:
    before = source.read_bytes()
    out, plan_out = (tmp_path / n if n else None for n in names)
    with pytest.raises(UsageError, match="two of the files are the same"):
        gp.prune(source, out, target={"macs": 0.6}, criterion="l2", plan_out=plan_out)
    assert source.read_bytes() == before
    assert [f.name for f in tmp_path.iterdir()] == ["model.onnx"]


def test_failed_run_leaves_the_earlier_output(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out.onnx").write_bytes(b"earlier")
    with pytest.raises(TargetError):
        gp.prune(source, tmp_path / "out.onnx", target={"macs": 0.001}, criterion="l2")
    assert (tmp_path / "out.onnx").read_bytes() == b"earlier"


def test_dims_are_those_asked_for(source: Path) -> None:
    small, large = (gp.prune(source, target={"macs": 0.6}, criterion="l2", dims={"batch": n}) for n in (1, 4))
    assert large.before.macs == 4 * small.before.macs
    assert large.after.macs == 4 * small.after.macs
    with pytest.raises(UsageError, match="'rows' is not a symbolic dim"):
        gp.prune(source, target={"macs": 0.6}, criterion="l2", dims={"rows": 2})
