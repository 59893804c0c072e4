"""What of a recovery needs no torch: options, samples, augmentations, kinds of outputs, schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphprune.converters import recovery
from graphprune.converters.recovery.augment import augmentation
from graphprune.converters.recovery.batches import Order, cut, parts
from graphprune.converters.recovery.labels import labelled_output
from graphprune.converters.recovery.options import Options
from graphprune.converters.recovery.outputs import LOGITS, PROBABILITIES, VALUES, Kind, Tally, kind_of
from graphprune.converters.recovery.schedule import Schedule, rate_at
from graphprune.converters.recovery.tensors import learned, require_alike
from teachers import images, mlp, nudged, pictures, rows, tokens

import graphprune as gp
from graphprune.calibration.samples import load_samples
from graphprune.errors import CalibrationError, ModelError, UsageError


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0}, {"minutes": -1}, {"lr": 0}, {"batch_size": 0}, {"mix": 1.5}, {"held_out": 1},
        {"loss": "mse"}, {"precision": "int8"}, {"augment": ("turn",)}, {"temperature": float("inf")},
        {"seed": -1}, {"patience": 0}, {"label_weight": -0.1},
    ],
)  # fmt: skip
def test_options_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Options(**wrong)


def test_some_minutes_unless_something_is_said() -> None:
    assert Options().minutes == 20
    assert Options(epochs=2).minutes is None


def test_torch_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"graphprune\[torch\]"):
        gp.recover(mlp(), tmp_path / "out.onnx", reference=mlp(), data=rows())


def test_resume_needs_a_checkpoint() -> None:
    with pytest.raises(UsageError, match="--checkpoint"):
        gp.recover(mlp(), reference=mlp(), data=rows(), resume=True)


def test_held_out_samples_are_others_and_are_few() -> None:
    samples = load_samples({**rows(100), "labels": np.arange(100)}, gp.load(mlp()))
    fitted, held_out = parts(samples, 0.1, seed=0)
    assert (len(fitted), len(held_out)) == (90, 10)
    assert fitted.labels is not None
    assert held_out.labels is not None
    assert set(fitted.labels) | set(held_out.labels) == set(range(100))
    assert len(parts(load_samples(rows(8000), gp.load(mlp())), 0.5, 0)[1]) == 512


def test_every_epoch_sees_each_sample_once_in_an_order_of_its_own() -> None:
    order = Order(load_samples(rows(96), gp.load(mlp())), 32, seed=5)
    epochs = [np.concatenate([order.rows(3 * e + i) for i in range(3)]) for e in range(2)]
    assert all(sorted(rows) == list(range(96)) for rows in epochs)
    assert list(epochs[0]) != list(epochs[1])
    again = Order(load_samples(rows(96), gp.load(mlp())), 32, seed=5)
    assert list(again.rows(4)) == list(epochs[1][32:64])  # without having seen the steps before


def test_a_model_that_takes_few_samples_runs_several_times_for_a_step() -> None:
    model = mlp()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 4
    samples = load_samples(rows(40), gp.load(model))
    batches = Order(samples, 18, seed=0).at(0)
    assert [len(b.feeds["x"]) for b in batches] == [4, 4, 4, 4]


def test_labels_go_with_their_samples() -> None:
    data = rows(10)
    samples = load_samples({**data, "labels": np.arange(10)}, gp.load(mlp()))
    for batch in cut(samples.shuffled(3), 4):
        assert batch.labels is not None
        assert np.array_equal(batch.feeds["x"], data["x"][batch.labels])


def test_pictures_are_flipped_and_shifted_whole() -> None:
    x = np.arange(2 * 3 * 8 * 8, dtype=np.float32).reshape(2, 3, 8, 8)
    flip = augmentation({"x": x}, ["flip"], 0)
    found = [flip({"x": x}, 0, 0, i)[0]["x"] for i in range(12)]
    assert all(
        np.array_equal(a, b) or np.array_equal(a, b[:, :, ::-1])
        for y in found
        for a, b in zip(y, x, strict=True)
    )
    assert any((y[0] != x[0]).any() for y in found)
    assert any((y[0] == x[0]).all() for y in found)
    shift = augmentation({"x": x}, ["shift"], 0)
    moved = [shift({"x": x}, 0, 0, i)[0]["x"] for i in range(12)]
    # The middle is there, up to a pixel to one side.
    for y in moved:
        shifts = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        assert any(
            np.array_equal(y[0, :, 2:6, 2:6], x[0, :, 2 + dy : 6 + dy, 2 + dx : 6 + dx]) for dy, dx in shifts
        )


def test_channels_may_come_last() -> None:
    x = pictures(4)["x"]
    first, last = (
        augmentation({"x": x}, ["flip", "shift"], 0),
        augmentation({"x": x.transpose(0, 2, 3, 1)}, ["flip", "shift"], 0),
    )
    a = first({"x": x}, 1, 2, 3)[0]["x"]
    b = last({"x": x.transpose(0, 2, 3, 1)}, 1, 2, 3)[0]["x"]
    assert np.array_equal(a, b.transpose(0, 3, 1, 2))


def test_mixed_samples_have_no_labels_and_text_is_not_mixed() -> None:
    x = rows(8)
    feeds, is_labelled = augmentation(x, (), 1.0)(x, 0, 0, 0)
    assert not is_labelled
    assert not np.array_equal(feeds["x"], x["x"])
    assert augmentation(x, (), 0.0)(x, 0, 0, 0)[1]
    ids = {"ids": np.zeros((8, 4), np.int64)}
    assert not augmentation(ids, (), 1.0).changes
    with pytest.raises(UsageError, match="pictures"):
        augmentation(ids, ["flip"], 0)


def test_what_an_output_holds_is_told_from_its_numbers() -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((64, 10)).astype(np.float32) * 6
    embedding = rng.standard_normal((64, 384)).astype(np.float32)
    boxes = np.abs(rng.standard_normal((64, 4)).astype(np.float32)) * 300
    odds = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = [kind_of(a, "auto").name for a in (logits, embedding, boxes, odds, logits[:, :1], logits[:, 0])]
    assert found == [LOGITS, VALUES, VALUES, PROBABILITIES, VALUES, VALUES]
    assert kind_of(embedding, "kl").name == LOGITS
    assert kind_of(logits, "error") == Kind(VALUES, 1, pytest.approx(logits.var(0).mean(), rel=1e-3))
    assert kind_of(np.moveaxis(logits.reshape(4, 4, 4, 10), -1, 1), "auto").axis == 1


def test_padding_does_not_count() -> None:
    kinds = {"y": Kind(LOGITS, 2, 1.0)}
    tally = Tally(kinds, ("y", 2))
    a = np.zeros((1, 3, 4))
    a[..., 1] = 1
    b = a.copy()
    b[0, 2] = [9, 0, 0, 0]
    tally.add({"y": a}, {"y": b}, np.array([[True, True, False]]), np.array([[1, -1, -1]]))
    standing = tally.standing()
    assert (standing.error, standing.agreement, standing.accuracy) == ({"y": 0.0}, {"y": 1.0}, 1.0)
    tally.add({"y": a}, {"y": b}, None, np.array([[1, 1, 1]]))
    assert tally.standing().agreement["y"] == pytest.approx(4 / 5)
    assert tally.standing().accuracy == pytest.approx(3 / 4)


def test_labels_find_their_output() -> None:
    answers = {"v": np.zeros((4, 9)), "y": np.zeros((4, 5, 7)), "z": np.zeros((4, 7, 5))}
    kinds = {name: Kind(LOGITS, 1, 1.0) for name in answers}
    assert labelled_output(None, answers, kinds) is None
    assert labelled_output(np.zeros(4, np.int64), answers, kinds) == ("v", 1)
    assert labelled_output(np.full((4, 5), 6), answers, {n: kinds[n] for n in ("v", "y")}) == ("y", 2)
    assert labelled_output(np.full((4, 5), 3), {"z": answers["z"]}, {"z": kinds["z"]}) == ("z", 1)
    for wrong in (np.zeros(4), np.full(4, 9), np.zeros((4, 6), np.int64)):
        with pytest.raises(CalibrationError, match="classes"):
            labelled_output(wrong, answers, kinds)


def test_labels_go_to_logits_and_to_one_output_alone() -> None:
    answers = {"features": np.zeros((8, 16)), "logits": np.zeros((8, 10)), "more": np.zeros((8, 10))}
    labels = np.arange(8)
    kinds = {"features": Kind(VALUES, 1, 1.0), "logits": Kind(LOGITS, 1, 1.0)}
    assert labelled_output(labels, answers, kinds) == ("logits", 1)
    with pytest.raises(CalibrationError, match="classes of several outputs"):
        labelled_output(labels, answers, {**kinds, "more": Kind(LOGITS, 1, 1.0)})
    with pytest.raises(CalibrationError, match="no classes of any output") as caught:
        labelled_output(labels, answers, {"features": kinds["features"]})
    assert "--loss kl" in str(caught.value.hint)


def test_the_rate_rises_and_falls() -> None:
    rates = [rate_at(p) for p in np.linspace(0, 1, 101)]
    top = int(np.argmax(rates))
    assert rates[0] == 0
    assert max(rates) == 1
    assert 0 < top < 10
    assert (np.diff(rates[:top]) > 0).all()
    assert (np.diff(rates[top:]) < 0).all()
    assert rates[-1] == pytest.approx(0)


def test_a_run_ends_in_time_however_slow_its_steps_are() -> None:
    now = [10.0]
    schedule = Schedule(None, 60.0, spent=30.0, clock=lambda: now[0])
    assert schedule.progress(1000) == 0.5
    now[0] += 15
    assert schedule.progress(0) == 0.75
    now[0] += 100
    assert schedule.progress(0) == 1
    assert Schedule(10, 60.0, clock=lambda: now[0]).progress(5) == 0.5


def test_models_must_be_alike() -> None:
    other = mlp()
    other.graph.output[0].name = other.graph.node[-1].output[0] = "z"
    with pytest.raises(ModelError, match="other outputs"):
        require_alike(gp.load(mlp()), gp.load(other))
    with pytest.raises(ModelError, match="other inputs"):
        require_alike(gp.load(mlp()), gp.load(tokens()))
    with pytest.raises(ModelError, match="shape"):
        learned(gp.load(mlp()), gp.load(mlp(classes=4)), rows(2), ())


def test_tensors_in_between() -> None:
    model, wider = gp.load(mlp()), gp.load(mlp(width=9))
    assert learned(model, model, rows(2), ["h"]).hidden == ("h",)
    assert set(learned(model, gp.load(nudged(mlp())), rows(2), ["auto"]).hidden) == {"h", "r"}
    assert learned(model, model, rows(2), ["auto"]).hidden == ()  # they are equal already
    assert learned(model, wider, rows(2), ["auto"]).hidden == ()
    with pytest.raises(UsageError, match="'h' can't be learned"):
        learned(model, wider, rows(2), ["h"])
    with pytest.raises(UsageError, match="no tensor 'hh'"):
        learned(model, model, rows(2), ["hh"])
    several = learned(gp.load(images()), gp.load(nudged(images())), pictures(2), ["auto"]).hidden
    assert {"p", "f"} <= set(several)


@pytest.mark.parametrize("wrong", ["reference", "model", "data", "checkpoint", "checkpoint and out"])
def test_nothing_that_is_read_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setattr(recovery, "require_torch", lambda: None)
    model, reference, data = (tmp_path / name for name in ("small.onnx", "net.onnx", "rows.npz"))
    onnx.save(nudged(mlp()), model)
    onnx.save(mlp(), reference)
    np.savez(data, **rows())  # type: ignore[arg-type]
    before = {file: file.read_bytes() for file in (model, reference, data)}
    out, checkpoint = {
        "reference": (reference, None),
        "model": (model, None),
        "data": (data, None),
        "checkpoint": (tmp_path / "out.onnx", reference),
        "checkpoint and out": (tmp_path / "out.onnx", tmp_path / "out.onnx"),
    }[wrong]
    with pytest.raises(UsageError, match="two of the files are the same"):
        gp.recover(model, out, reference=reference, data=data, checkpoint=checkpoint)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_weights_beside_the_reference_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "require_torch", lambda: None)
    reference = tmp_path / "net.onnx"
    onnx.save(mlp(), reference, save_as_external_data=True, location="out.onnx.data", size_threshold=0)
    for out, checkpoint in (("out.onnx", None), ("other.onnx", tmp_path / "out.onnx.data")):
        with pytest.raises(UsageError, match=r"two of the files are the same: .*out\.onnx\.data"):
            gp.recover(nudged(mlp()), tmp_path / out, reference=reference, data=rows(), checkpoint=checkpoint)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net.onnx", "out.onnx.data"]
