"""A sweep makes what single runs make, measures all of it, and says which models are worth having."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import NETWORKS, feeds, run

import graphprune as gp
from graphprune.calibration import moments
from graphprune.errors import CalibrationError, DeviceError, TargetError, UsageError
from graphprune.family import Point, best
from graphprune.quality import Judge, Quality


@pytest.mark.parametrize(
    ("name", "given", "options"),
    [
        ("cnn", True, {}),
        ("cnn", False, {}),
        ("attention", True, {}),
        ("cnn", True, {"recipe": "obspa"}),
        ("cnn", False, {"criterion": "l2"}),
    ],
)
def test_same_bytes_as_single_runs(name: str, given: bool, options: dict[str, Any], tmp_path: Path) -> None:
    model = NETWORKS[name]()
    onnx.save(model, tmp_path / "m.onnx")
    options = {**options, "seed": 3, "samples": 48, "calibration": feeds(model, batch=48) if given else None}
    targets = ["70%", "90%"]
    gp.sweep(tmp_path / "m.onnx", tmp_path / "all", targets=targets, measure=False, **options)
    for target in targets:
        single = tmp_path / f"{target}.onnx"
        gp.prune(tmp_path / "m.onnx", single, target={"macs": target}, **options)
        assert (tmp_path / "all" / f"m-macs-{target[:-1]}.onnx").read_bytes() == single.read_bytes(), target


def test_statistics_are_gathered_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = NETWORKS["cnn"]()
    data = feeds(model, batch=48)
    from graphprune.calibration import evidence

    gathered = []

    def counting(*arguments: Any) -> Any:
        gathered.append(arguments[1])
        return moments.gather(*arguments)

    monkeypatch.setattr(evidence, "gather", counting)
    gp.prune(model, target={"macs": 0.7}, criterion="obs", compensator="none", calibration=data)
    alone = len(gathered)
    gathered.clear()
    options: dict[str, Any] = {"criterion": "obs", "compensator": "none", "calibration": data}
    gp.sweep(model, tmp_path, targets=[0.9, 0.8, 0.7], measure=False, **options)
    assert alone > 0
    assert len(gathered) == alone


def test_accuracy_agreement_and_error(tmp_path: Path) -> None:
    model = NETWORKS["cnn"]()
    data = feeds(model, batch=64, seed=9)
    (dense,) = run(model, data)
    labels = dense.argmax(axis=1)
    labels[:16] = (labels[:16] + 1) % dense.shape[1]
    result = gp.sweep(
        model,
        tmp_path,
        targets=["70%"],
        criterion="l2",
        floor=0.0,
        data={**data, "labels": labels},
        measure=False,
    )
    original, pruned = result.points
    assert original.quality == Quality(64, 0.75, 1.0, 0.0)
    (small,) = run(onnx.load(tmp_path / "model-macs-70.onnx"), data)
    assert pruned.quality.accuracy == np.mean(small.argmax(axis=1) == labels)
    assert pruned.quality.agreement == np.mean(small.argmax(axis=1) == dense.argmax(axis=1))
    spread = ((dense - dense.mean(axis=0)) ** 2).sum()
    assert pruned.quality.error == pytest.approx(((small - dense) ** 2).sum() / spread, rel=1e-3)
    assert result.judged_on == "the data"


def test_labels_that_no_output_chooses(tmp_path: Path) -> None:
    model = NETWORKS["cnn"]()
    wrong = {**feeds(model, batch=4), "labels": np.zeros((4, 9))}
    with pytest.raises(CalibrationError, match="which no output chooses"):
        Judge(gp.load(model), wrong)


def test_latency_is_measured_for_all(tmp_path: Path) -> None:
    result = gp.sweep(
        NETWORKS["cnn"](), tmp_path, targets=["80%", "60%"], criterion="l2", floor=0.0, threads=1
    )
    assert all(point.latency_ms is not None and point.latency_ms > 0 for point in result.points)
    assert result.points[0].latency_ratio == 1.0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "model-original.onnx", "model-macs-80.onnx", "model-macs-80.plan.json", "model-macs-60.onnx",
        "model-macs-60.plan.json", "sweep.json",
    }  # fmt: skip
    assert json.loads((tmp_path / "sweep.json").read_text(encoding="utf-8")) == json.loads(
        json.dumps(result.to_json())
    )


def test_a_device_that_is_gone_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*given: object, **options: object) -> None:
        message = "the link was lost"
        raise DeviceError(message, hint="nothing was written")

    monkeypatch.setattr(sys.modules["graphprune.sweep"], "profile", lost)
    with pytest.raises(DeviceError, match=r"the link was lost(.|\n)*all models are written") as caught:
        gp.sweep(NETWORKS["cnn"](), tmp_path, targets=["80%"], criterion="l2", floor=0.0)
    assert "nothing was written" not in str(caught.value)
    assert (tmp_path / "model-macs-80.onnx").is_file()
    assert (tmp_path / "sweep.json").is_file()


def test_what_can_not_be_reached_is_said_and_the_rest_is_there(tmp_path: Path) -> None:
    result = gp.sweep(
        NETWORKS["cnn"](), tmp_path, targets=["80%", "0.1%"], criterion="l2", floor=0.0, measure=False
    )
    assert list(result.unreached) == ["0.1%"]
    assert "cannot reach macs=0.1%" in result.unreached["0.1%"]
    assert [point.name for point in result.points] == ["original", "80%"]
    with pytest.raises(TargetError):
        gp.sweep(NETWORKS["cnn"](), tmp_path, targets=["0.1%"], criterion="l2", measure=False)


@pytest.mark.parametrize(
    ("targets", "metric", "text"),
    [
        ([], "macs", "no targets given"),
        ([" "], "macs", "no targets given"),
        (["80%", "80%"], "macs", "two targets of 80%"),
        (["80%"], "joy", "unknown target 'joy'"),
        (["8x%"], "macs", "cannot read the target 'macs=8x%'"),
        (["80%", "80"], "macs", "which is taken"),
    ],
)
def test_wrong_targets(targets: list[str], metric: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=text):
        gp.sweep(NETWORKS["cnn"](), tmp_path, targets=targets, metric=metric, criterion="l2", measure=False)
    assert list(tmp_path.iterdir()) == []


def test_the_original_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "model-macs-80.onnx"
    onnx.save(NETWORKS["cnn"](), path)
    (tmp_path / "model-macs-80").mkdir()
    gp.sweep(path, tmp_path, targets=["80%"], criterion="l2", floor=0.0, measure=False)
    link = tmp_path / "model-macs-80-macs-70.onnx"
    link.symlink_to(path)
    with pytest.raises(UsageError, match="which is taken"):
        gp.sweep(path, tmp_path, targets=["70%"], criterion="l2", floor=0.0, measure=False)


def point(name: str, macs: int, accuracy: float | None) -> Point:
    return Point(name, "", macs, 0, macs, {}, None, None, Quality(1, accuracy, None, None), None)


def test_the_front_is_what_no_other_beats() -> None:
    family = [
        point("original", 100, 0.9), point("a", 80, 0.85), point("worse", 85, 0.8), point("b", 50, 0.7),
        point("unknown", 10, None), point("same", 50, 0.7),
    ]  # fmt: skip
    found = {p.name: p.best_for for p in best(family)}
    both = ("macs", "bytes")
    assert found == {"original": both, "a": both, "worse": (), "b": both, "unknown": (), "same": both}
