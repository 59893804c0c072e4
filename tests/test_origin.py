"""A pruned file says where it comes from, in as many bytes whatever it says."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import onnx
import pytest
from networks import NETWORKS

import graphprune as gp
from graphprune.origin import NOTE_BYTES, Origin


def written(folder: Path, name: str = "cnn", **options: Any) -> gp.PruneResult:
    onnx.save(NETWORKS[name](), folder / "m.onnx")
    return gp.prune(
        folder / "m.onnx", folder / "o.onnx", target={"macs": 0.7}, criterion="l2", floor=0.0,
        plan_out=folder / "p.json", **options,
    )  # fmt: skip


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["cnn", "attention"])
def test_the_note_says_what_was_done(name: str, tmp_path: Path) -> None:
    result = written(tmp_path, name)
    found = gp.info(tmp_path / "o.onnx").pruned
    assert found == Origin(
        sha256(tmp_path / "p.json"), sha256(tmp_path / "m.onnx"), gp.__version__, dict(result.plan.reached)
    )
    props = {p.key: p.value for p in onnx.load(tmp_path / "o.onnx").metadata_props}
    assert props["graphprune.plan_sha256"] == result.plan.sha256
    assert gp.info(tmp_path / "m.onnx").pruned is None


def test_the_size_is_known_before_the_note_is_written(tmp_path: Path) -> None:
    result = written(tmp_path)
    assert result.after.bytes == (tmp_path / "o.onnx").stat().st_size
    bare = onnx.load(tmp_path / "o.onnx")
    del bare.metadata_props[:]
    assert result.after.bytes - bare.ByteSize() == NOTE_BYTES


def test_a_followed_plan_is_the_one_that_is_noted(tmp_path: Path) -> None:
    written(tmp_path)
    plan = gp.Plan.load(tmp_path / "p.json")
    onnx.save(NETWORKS["cnn"](), tmp_path / "again.onnx")
    gp.prune(tmp_path / "again.onnx", tmp_path / "b.onnx", use_plan=plan, seed=5)
    found = gp.info(tmp_path / "b.onnx").pruned
    assert found is not None
    assert found.plan_sha256 == sha256(tmp_path / "p.json")
    assert gp.info(gp.apply(tmp_path / "m.onnx", plan)).pruned == found


def test_pruned_twice_says_what_was_last(tmp_path: Path) -> None:
    written(tmp_path)
    gp.prune(tmp_path / "o.onnx", tmp_path / "q.onnx", target={"macs": 0.8}, criterion="l2", floor=0.0)
    found = gp.info(tmp_path / "q.onnx").pruned
    assert found is not None
    assert found.source_sha256 == sha256(tmp_path / "o.onnx")
    keys = [p.key for p in onnx.load(tmp_path / "q.onnx").metadata_props]
    assert len(keys) == len(set(keys)) == 4


def test_other_metadata_stays(tmp_path: Path) -> None:
    model = NETWORKS["cnn"]()
    model.metadata_props.add(key="author", value="someone")
    result = gp.prune(model, target={"macs": 0.7}, criterion="l2", floor=0.0)
    assert gp.info(result.model).metadata == {"author": "someone"}


@pytest.mark.parametrize("change", [{"plan_sha256": None}, {"reached": "macs"}, {"reached": "macs=x"}])
def test_a_note_that_can_not_be_read_is_none(change: dict[str, str | None], tmp_path: Path) -> None:
    written(tmp_path)
    model = gp.load(tmp_path / "o.onnx")
    for key, text in change.items():
        model.ir.metadata_props.pop(f"graphprune.{key}")
        if text is not None:
            model.ir.metadata_props[f"graphprune.{key}"] = text
    assert Origin.read(model.ir) is None


def test_bytes_target_counts_the_note(tmp_path: Path) -> None:
    big = NETWORKS["tied_embedding"]()
    onnx.save(big, tmp_path / "big.onnx")
    gp.prune(tmp_path / "big.onnx", tmp_path / "b.onnx", target={"bytes": 0.97}, criterion="l2", floor=0.0)
    assert (tmp_path / "b.onnx").stat().st_size <= 0.97 * (tmp_path / "big.onnx").stat().st_size
