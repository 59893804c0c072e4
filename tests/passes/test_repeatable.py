"""The same samples and the same seed give the same file; nothing that is passed in changes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import NETWORKS, feeds

import graphprune as gp

RECIPES = ["graphprune", "obspa", "flap"]
SCRIPT = """
import hashlib, sys
import graphprune as gp
result = gp.prune(
    sys.argv[1], target={"params": 0.7}, recipe=sys.argv[2], calibration=sys.argv[3] or None, samples=64,
    verify_result=False, seed=3,
)
print(hashlib.sha256(result.model.to_proto().SerializeToString(deterministic=True)).hexdigest())
"""


def digest(model: Any, **options: Any) -> str:
    """Of the pruned model."""
    result = gp.prune(model, target={"params": 0.7}, verify_result=False, **options)
    return hashlib.sha256(result.model.to_proto().SerializeToString(deterministic=True)).hexdigest()


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", ["cnn", "attention"])
def test_same_seed_same_bytes(name: str, recipe: str, tmp_path: Path) -> None:
    model = NETWORKS[name]()
    data = feeds(model, batch=80)
    outputs = []
    for i in range(2):
        out = tmp_path / f"{i}.onnx"
        gp.prune(model, out, target={"params": 0.7}, recipe=recipe, calibration=data, seed=3)
        outputs.append(out.read_bytes())
    assert outputs[0] == outputs[1]


def test_made_up_samples_follow_the_seed() -> None:
    model = NETWORKS["cnn"]()
    same = [digest(model, samples=64, seed=seed) for seed in (3, 3, 4)]
    assert same[0] == same[1]
    assert same[0] != same[2]


@pytest.mark.parametrize("given", [True, False])
def test_another_process_makes_the_same(given: bool, tmp_path: Path) -> None:
    model = NETWORKS["cnn"]()
    data = feeds(model, batch=80)
    path, archive = tmp_path / "in.onnx", tmp_path / "calib.npz"
    onnx.save(model, path)
    np.savez(archive, **data)
    here = digest(path, recipe="graphprune", calibration=archive if given else None, samples=64, seed=3)
    environment = {**os.environ, "PYTHONHASHSEED": "123"}
    source = [sys.executable, "-c", SCRIPT, str(path), "graphprune", str(archive) if given else ""]
    done = subprocess.run(source, capture_output=True, text=True, env=environment, check=True, cwd=tmp_path)
    assert done.stdout.strip() == here


@pytest.mark.parametrize("recipe", RECIPES)
def test_labels_play_no_part(recipe: str, tmp_path: Path) -> None:
    model = NETWORKS["cnn"]()
    data = feeds(model, batch=40)
    found = set()
    for labels in (None, np.arange(40) % 5, np.zeros(40, np.int64)):
        archive = tmp_path / "calib.npz"
        np.savez(archive, **data, **({} if labels is None else {"labels": labels}))
        found.add(digest(model, recipe=recipe, calibration=archive))
    assert len(found) == 1


@pytest.mark.parametrize("recipe", RECIPES)
def test_nothing_that_is_passed_in_changes(recipe: str) -> None:
    for name in ("tied_embedding", "cnn", "conditional"):
        proto = NETWORKS[name]()
        data = feeds(proto, batch=20)
        copies = {key: array.copy() for key, array in data.items()}
        if name == "conditional":
            data["flag"] = data["flag"][:1]
            copies["flag"] = data["flag"].copy()
        before = proto.SerializeToString(deterministic=True)
        loaded = gp.load(proto)
        inside = loaded.to_proto().SerializeToString(deterministic=True)
        for source in (proto, loaded):
            gp.prune(source, recipe=recipe, target={"params": 0.8}, calibration=data, verify_result=False)
        assert proto.SerializeToString(deterministic=True) == before
        assert loaded.to_proto().SerializeToString(deterministic=True) == inside
        for key, array in copies.items():
            assert np.array_equal(data[key], array)


def test_the_same_object_can_be_pruned_again() -> None:
    """Nothing of the first run is left in the graph."""
    proto = NETWORKS["cnn"]()
    data = feeds(proto, batch=60)
    loaded = gp.load(proto)
    graph = gp.analyze(proto)
    plan = gp.plan(graph, target={"params": 0.7}, calibration=data)
    assert len({digest(loaded, calibration=data) for _ in range(2)} | {digest(proto, calibration=data)}) == 1
    results = [gp.apply(graph, plan, compensator="sequential", calibration=data).to_proto() for _ in range(2)]
    assert results[0].SerializeToString() == results[1].SerializeToString()
