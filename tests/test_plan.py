"""The plan file: written whole, read with care, and enough to repeat the cut."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import NETWORKS, graph_of

from graphprune import api
from graphprune.errors import ModelError, PlanError
from graphprune.plan import Plan

Edit = Callable[[dict[str, Any]], Any]


def document(name: str = "mlp", target: float = 0.6) -> dict[str, Any]:
    return copy.deepcopy(api.plan(graph_of(name), target={"macs": target}, criterion="l2").to_json())


def test_round_trip_keeps_everything(tmp_path: Path) -> None:
    plan = api.plan(graph_of("attention"), target={"macs": 0.6}, criterion="l2")
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    assert [f.name for f in tmp_path.iterdir()] == ["plan.json"]


def test_document_is_what_the_interface_says() -> None:
    found = document()
    assert found["schema_version"] == 1
    assert len(found["model_sha256"]) == 64
    assert found["target"] == {"macs": 0.6}
    assert set(found["reached"]) == {"macs", "params", "bytes"}
    for group in found["groups"]:
        assert set(group) == {"id", "kind", "exact", "size", "keep"}
        assert group["keep"] == sorted(set(group["keep"]))
    for entry in found["parameters"]:
        assert set(entry) == {"name", "axis", "size", "keep", "uses", "groups"}
        assert entry["keep"] == sorted(set(entry["keep"]))
        assert len(entry["keep"]) < entry["size"]
        assert entry["uses"] is None
        assert set(entry["groups"]) <= {g["id"] for g in found["groups"]}


def test_uses_and_groups_tell_merged_constants_apart() -> None:
    """Each copy of a shared vector is listed with its own consumer and its own group."""
    plan = api.plan(graph_of("merged_constants"), target={"macs": 0.6}, criterion="l2")
    entries = [p for p in plan.parameters if p.name == "ones"]
    assert sorted((p.uses, p.groups) for p in entries) == [
        (["as:1"], ["a.w:1"]),
        (["bs:1"], ["b.w:1"]),
    ]
    keeps = {g.id: g.keep for g in plan.groups}
    assert all(p.keep == keeps[p.groups[0]] for p in entries)


def test_group_keeps_are_positions_within_the_group() -> None:
    plan = api.plan(graph_of("option_a"), target={"macs": 0.6}, criterion="l2")
    sizes = {g.id: g for g in plan.groups}
    for group in sizes.values():
        assert all(0 <= i < group.size for i in group.keep)


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_alone_are_enough(name: str) -> None:
    """Without the groups the plan means the same cut."""
    plan = api.plan(graph_of(name), target={"macs": 0.7}, criterion="l2", floor=0.0)
    found = plan.to_json()
    found["groups"] = []
    bare = Plan.from_json(found)
    first, second = (api.apply(graph_of(name), p) for p in (plan, bare))
    assert first.to_proto().graph == second.to_proto().graph


def entry(**changes: Any) -> Edit:
    return lambda d: d["parameters"][0].update(changes)


def group(**changes: Any) -> Edit:
    return lambda d: d["groups"][0].update(changes)


MALFORMED: dict[str, Edit] = {
    "no version": lambda d: d.pop("schema_version"),
    "another version": lambda d: d.update(schema_version=2),
    "version as text": lambda d: d.update(schema_version="1"),
    "no parameters": lambda d: d.pop("parameters"),
    "parameters null": lambda d: d.update(parameters=None),
    "parameters of numbers": lambda d: d.update(parameters=[1]),
    "target a list": lambda d: d.update(target=[1]),
    "target a text": lambda d: d.update(target={"macs": "half"}),
    "options a number": lambda d: d.update(options=3),
    "unknown field": entry(foo=1),
    "missing field": lambda d: d["parameters"][0].pop("keep"),
    "axis a text": entry(axis="1"),
    "axis null": entry(axis=None),
    "axis a fraction": entry(axis=1.0),
    "axis true": entry(axis=True),
    "size a fraction": entry(size=10.0),
    "size a text": entry(size="10"),
    "name a list": entry(name=["a.w"]),
    "name null": entry(name=None),
    "uses a text": entry(uses="a:1"),
    "uses a number": entry(uses=5),
    "uses of numbers": entry(uses=[1]),
    "groups null": entry(groups=None),
    "keep null": entry(keep=None),
    "keep of truths": entry(keep=[False, True]),
    "keep of fractions": entry(keep=[0.0, 1.0]),
    "keep unsorted": entry(keep=[3, 1]),
    "keep twice": entry(keep=[1, 1]),
    "keep negative": entry(keep=[-1, 1]),
    "keep beyond": entry(keep=[1, 10]),
    "keep nested": entry(keep=[[1], [1, 2]]),
    "keep enormous": entry(keep=[0, 2**80]),
    "group keep a text": group(keep="abc"),
    "group size null": group(size=None),
    "group exact a text": group(exact="yes"),
    "group unknown field": group(colour="red"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_documents_are_refused(what: str) -> None:
    found = document()
    MALFORMED[what](found)
    with pytest.raises(PlanError) as caught:
        Plan.from_json(found, where="plan.json")
    assert caught.value.where == "plan.json"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"null", b"3", b"\xff\xfe\x00", b"[" * 100_000, b"NaN"]
)
def test_files_that_are_no_plan_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(PlanError):
        Plan.load(path)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="cannot read the plan"):
        Plan.load(tmp_path / "none.json")
    with pytest.raises(PlanError, match="cannot read the plan"):
        Plan.load(tmp_path)


def test_path_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    plan = Plan.from_json(document())
    (tmp_path / "file").write_text("here before")
    with pytest.raises(ModelError, match="cannot write the plan"):
        plan.save(tmp_path / "file" / "plan.json")
    with pytest.raises(ModelError, match="cannot write the plan"):
        plan.save(tmp_path / "none" / "plan.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ModelError, match="cannot write the plan"):
        plan.save(tmp_path / "folder")
    assert sorted(f.name for f in tmp_path.rglob("*")) == ["file", "folder"]


# ---- plans that don't fit -----------------------------------------------------------------------

MISFITS: dict[str, tuple[Edit, str]] = {
    "one entry forgotten": (lambda d: d["parameters"].pop(0), "does not fit"),
    "one index fewer": (
        lambda d: d["parameters"][0].update(keep=d["parameters"][0]["keep"][:-1]),
        "does not fit",
    ),
    "another index": (
        lambda d: d["parameters"][0].update(
            keep=sorted(set(range(10)) - set(d["parameters"][0]["keep"][:-1]))[:-1]
            + d["parameters"][0]["keep"][-1:]
        ),
        "does not fit",
    ),
    "frozen axis": (
        lambda d: d["parameters"].append(
            {"name": "a.w", "axis": 0, "size": 6, "keep": [0, 1], "uses": None, "groups": []}
        ),
        "does not fit axis 0 of 'a.w'",
    ),
    "unknown name": (lambda d: d["parameters"][0].update(name="zzz"), "cuts 'zzz'"),
    "unknown use": (lambda d: d["parameters"][0].update(uses=["zzz:1"]), "cuts 'a.w'"),
    "no uses": (lambda d: d["parameters"][0].update(uses=[]), "cuts 'a.w'"),
    "use of another": (lambda d: d["parameters"][0].update(uses=["b:1"]), "cuts 'a.w'"),
    "axis beyond": (lambda d: d["parameters"][0].update(axis=7), "axis 7"),
    "negative axis": (lambda d: d["parameters"][0].update(axis=-1), "axis -1"),
    "wrong size": (lambda d: d["parameters"][0].update(size=11), "11 positions"),
}


@pytest.mark.parametrize("what", MISFITS)
def test_plans_that_do_not_fit_are_refused(what: str) -> None:
    found = document()
    assert (found["parameters"][0]["name"], found["parameters"][0]["axis"]) == ("a.w", 1)
    edit, text = MISFITS[what]
    edit(found)
    with pytest.raises(PlanError, match=text):
        api.apply(graph_of("mlp"), Plan.from_json(found))


def test_plan_of_another_model_is_refused() -> None:
    plan = api.plan(graph_of("mlp"), target={"macs": 0.6}, criterion="l2")
    with pytest.raises(PlanError):
        api.apply(graph_of("cnn"), plan)


def test_plan_that_cuts_nothing_gives_the_same_model() -> None:
    found = document()
    found["parameters"] = []
    model = api.apply(graph_of("mlp"), Plan.from_json(found))
    weights = {n: v.const_value.numpy() for n, v in model.ir.graph.initializers.items() if v.const_value}
    original = graph_of("mlp").model.ir.graph.initializers
    assert all(np.array_equal(weights[n], original[n].const_value.numpy()) for n in weights)


def test_plan_file_is_strict_json() -> None:
    text = json.dumps(document(), allow_nan=False)
    assert json.loads(text)["schema_version"] == 1
