"""Training: a planted teacher is found again, nothing held out is fitted to, interruptions leave no trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from networks import build, initializer, weight
from onnx import numpy_helper
from teachers import half, images, mlp, nudged, pictures, rows, tokens

import graphprune as gp
from graphprune.errors import CalibrationError, ModelError, UsageError, ValidationError

pytestmark = pytest.mark.torch

SETTINGS: dict[str, Any] = {
    "epochs": 20,
    "batch_size": 32,
    "lr": 3e-2,
    "threads": 1,
    "patience": 20,
    "mix": 0,
}


def recover(
    model: Any, reference: Any, data: Any, out: Path | None = None, **options: Any
) -> gp.RecoverResult:
    return gp.recover(model, out, reference=reference, data=data, **{**SETTINGS, **options})


def weights(model: gp.Model) -> dict[str, Any]:
    proto = model.to_proto()
    return {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}


def same(a: gp.Model, b: gp.Model) -> bool:
    ours, theirs = weights(a), weights(b)
    return ours.keys() == theirs.keys() and all(np.array_equal(ours[n], theirs[n]) for n in ours)


def test_a_planted_teacher_is_recovered(tmp_path: Path) -> None:
    teacher, out = mlp(), tmp_path / "out.onnx"
    student = nudged(teacher)
    result = recover(student, teacher, rows(), out, epochs=40, mix=0.5)
    assert result.improved
    assert result.kinds == {"y": "logits"}
    assert result.loss[1] < 0.1 * result.loss[0]
    assert result.after.error["y"] < 0.1 * result.before.error["y"]
    assert result.after.agreement["y"] > result.before.agreement["y"]
    assert (result.fitted, result.held_out) == (173, 19)
    # What was written is what is reported, on samples that nobody has seen.
    new = rows(500, seed=9)
    sessions = [ort.InferenceSession(m.SerializeToString()) for m in (teacher, student)] + [
        ort.InferenceSession(out)
    ]
    right, before, after = (s.run(None, new)[0] for s in sessions)
    assert np.square(after - right).mean() < 0.2 * np.square(before - right).mean()
    assert [(n.op_type, n.input) for n in onnx.load(out).graph.node] == [
        (n.op_type, n.input) for n in student.graph.node
    ]
    assert list(tmp_path.iterdir()) == [out]


def test_errors_of_values_are_learned_too() -> None:
    teacher = mlp(sharp=0.5)
    result = recover(nudged(teacher), teacher, rows(), loss="error")
    assert result.kinds == {"y": "values"}
    assert result.after.error["y"] < 0.2 * result.before.error["y"]
    assert result.after.agreement == {}


def test_the_same_seed_gives_the_same_numbers_and_another_others() -> None:
    first, second, other = (
        recover(nudged(mlp()), mlp(), rows(), epochs=3, mix=0.5, seed=seed).model for seed in (1, 1, 2)
    )
    assert same(first, second)
    assert not same(first, other)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("mix", [0.0, 0.5])
def test_an_interruption_leaves_no_trace(tmp_path: Path, mix: float) -> None:
    file = tmp_path / "run.pt"

    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "recovering" and done > 0.55 * total:
            raise Interrupted

    options = {"epochs": 8, "mix": mix, "checkpoint": file}
    whole = recover(nudged(mlp()), mlp(), rows(), **{**options, "checkpoint": None})
    with pytest.raises(Interrupted):
        recover(nudged(mlp()), mlp(), rows(), **options, progress=interrupt)
    assert [f.name for f in tmp_path.iterdir()] == ["run.pt"]
    seen: list[int] = []
    again = recover(
        nudged(mlp()),
        mlp(),
        rows(),
        **options,
        resume=True,
        progress=lambda s, d, t: s == "recovering" and seen.append(d),
    )
    assert min(seen) >= 400  # it did not begin anew
    assert same(whole.model, again.model)
    assert (again.steps, again.loss, again.after) == (whole.steps, whole.loss, whole.after)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.pt"
    recover(nudged(mlp()), mlp(), rows(), epochs=1, checkpoint=file)
    for change in ({"lr": 1e-3}, {"seed": 4}):
        with pytest.raises(ModelError, match=next(iter(change))):
            recover(nudged(mlp()), mlp(), rows(), **{"epochs": 1, **change}, checkpoint=file, resume=True)
    with pytest.raises(ModelError, match="data was"):
        recover(nudged(mlp()), mlp(), rows(seed=8), epochs=1, checkpoint=file, resume=True)
    with pytest.raises(ModelError, match="no such file"):
        recover(nudged(mlp()), mlp(), rows(), epochs=1, checkpoint=tmp_path / "none.pt", resume=True)
    file.write_bytes(b"something else")
    with pytest.raises(ModelError, match="cannot resume"):
        recover(nudged(mlp()), mlp(), rows(), epochs=1, checkpoint=file, resume=True)


def test_the_best_weights_are_kept() -> None:
    """A rate that tears everything apart: the run stops early, and the weights are as they were."""
    result = recover(nudged(mlp(), 0.02), mlp(), rows(), lr=50.0, patience=3, epochs=40)
    assert not result.improved
    assert same(result.model, gp.load(nudged(mlp(), 0.02)))
    assert result.loss[0] == result.loss[1]
    assert result.after == result.before
    assert any("stopped" in note for note in result.notes)
    assert any("nothing got better" in note for note in result.notes)
    assert result.epochs < 40


def test_a_run_that_stopped_early_stays_stopped(tmp_path: Path) -> None:
    options = {"lr": 50.0, "patience": 2, "epochs": 20, "checkpoint": tmp_path / "run.pt"}
    first = recover(nudged(mlp(), 0.02), mlp(), rows(), **options)
    again = recover(nudged(mlp(), 0.02), mlp(), rows(), **options, resume=True)
    assert first.epochs < 20
    assert (again.steps, again.notes) == (first.steps, first.notes)


def test_a_loss_that_is_no_number_ends_the_run() -> None:
    result = recover(nudged(mlp()), mlp(), rows(), lr=1e30, epochs=5)
    assert any("no number" in note for note in result.notes) or not result.improved


def test_nothing_held_out_is_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples of the held-out part have other answers; the rest is learned as if they were not there."""
    from graphprune.converters.recovery import training

    seen: list[Any] = []
    learn = training.Training._learn

    def watched(self: Any, step: int) -> bool:
        seen.extend(batch.feeds["x"] for batch in self._order.at(step))
        self.judged = [batch.feeds["x"] for batch, _ in self._judges]
        watched.judged = self.judged  # type: ignore[attr-defined]
        return bool(learn(self, step))

    monkeypatch.setattr(training.Training, "_learn", watched)
    result = recover(nudged(mlp()), mlp(), rows(), epochs=4)
    fitted = {row.tobytes() for batch in seen for row in batch}
    judged = {row.tobytes() for batch in watched.judged for row in batch}  # type: ignore[attr-defined]
    assert len(judged) == result.held_out
    assert not fitted & judged
    assert len(fitted | judged) == len(rows()["x"])


def test_labels_pull_where_the_reference_is_wrong() -> None:
    data = rows(512)
    right, wrong = mlp(), mlp("other")
    (logits,) = ort.InferenceSession(right.SerializeToString()).run(None, data)
    labelled = {**data, "labels": logits.argmax(1).astype(np.int64)}
    without = recover(nudged(right), wrong, labelled, label_weight=0.0)
    with_them = recover(nudged(right), wrong, labelled, label_weight=0.9)
    assert with_them.before.accuracy == without.before.accuracy
    assert with_them.after.accuracy > without.after.accuracy + 0.2  # type: ignore[operator]
    with pytest.raises(CalibrationError, match="classes"):
        recover(nudged(right), wrong, {**data, "labels": np.full(512, 3)})


def test_tensors_in_between_are_learned() -> None:
    """`y` sees `h` through a layer of two features only: without `hidden` the rest of `h` stays wrong."""

    def net() -> onnx.ModelProto:
        return build(
            "(float[batch, 6] x) => (float[batch, 2] y)",
            "h = Gemm (x, a.w, a.b) y = MatMul (h, c.w)",
            {"a.w": weight("ha", (6, 6)), "a.b": (6,), "c.w": np.eye(6, 2, dtype=np.float32)},
        )

    student = nudged(net(), 0.5)
    options = {"loss": "error", "epochs": 30}
    blind, seeing = (recover(student, net(), rows(), **options, hidden=h).model for h in ((), ("h",)))

    def error(model: gp.Model) -> float:
        a, b = weights(model)["a.w"], initializer(net(), "a.w")
        return float(np.square(a[:, 2:] - b[:, 2:]).mean())

    assert error(seeing) < 0.1 * error(blind)
    assert recover(student, net(), rows(), epochs=1, hidden=("auto",)).hidden == ("h",)


def test_pictures_with_running_statistics() -> None:
    result = recover(
        nudged(images()), images(), pictures(), epochs=15, lr=1e-2, mix=0.3, augment=("flip", "shift")
    )
    assert result.loss[1] < 0.5 * result.loss[0]
    after, before = weights(result.model), weights(gp.load(nudged(images())))
    for name in ("bn.mean", "bn.var"):
        assert np.array_equal(after[name], before[name])
    for name in ("bn.scale", "bn.bias", "conv.w"):
        assert not np.array_equal(after[name], before[name])


def test_padded_text() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 9, 128)
    mask = (np.arange(8) < lengths[:, None]).astype(np.int64)
    data = {"ids": rng.integers(1, 7, (128, 8)) * mask, "mask": mask}
    result = recover(nudged(tokens(), 0.5), tokens(), data, mix=0.5)
    assert result.kinds == {"y": "logits"}
    assert result.after.error["y"] < 0.1 * result.before.error["y"]
    assert weights(result.model)["last"].dtype == np.int64


def test_half_precision_is_trained_in_float32_and_stays_half(tmp_path: Path) -> None:
    out = tmp_path / "half.onnx"
    x = {"x": rows()["x"].astype(np.float16)}
    result = recover(half(nudged(mlp())), half(mlp()), x, out)
    assert result.after.error["y"] < 0.1 * result.before.error["y"]
    kinds = {t.data_type for t in onnx.load(out).graph.initializer}
    assert kinds == {onnx.TensorProto.FLOAT16}


def test_a_model_without_weights_is_refused() -> None:
    bare = build("(float[batch, 6] x) => (float[batch, 6] y)", "y = Relu (x)", {})
    with pytest.raises(ModelError, match="nothing to train"):
        recover(bare, bare, rows())


def test_data_that_do_not_fit() -> None:
    with pytest.raises(CalibrationError, match="axis 1"):
        recover(mlp(), mlp(), rows(features=5))
    with pytest.raises(CalibrationError, match="can't be split"):
        recover(mlp(), mlp(), rows(1))


def test_no_cuda_here(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="no CUDA device"):
        recover(mlp(), mlp(), rows(), device="cuda")
    for wrong in ("tpu9", "meta"):
        with pytest.raises(UsageError, match=wrong):
            recover(mlp(), mlp(), rows(), device=wrong)


def test_answers_in_torch_are_those_of_onnxruntime() -> None:
    from graphprune.converters.recovery.answers import Asked
    from graphprune.converters.recovery.torch_answers import TorchAsked

    model = gp.load(images())
    a, b = Asked(model, ["r", "y"])(pictures(4)), TorchAsked(model, ["r", "y"], "cpu")(pictures(4))
    for name in ("r", "y"):
        assert not b[name].requires_grad
        np.testing.assert_allclose(a[name], b[name].numpy(), rtol=1e-4, atol=1e-5)


def test_time_is_a_limit_too() -> None:
    result = recover(nudged(mlp()), mlp(), rows(), epochs=None, minutes=0.02)
    assert 0 < result.seconds < 6
    assert result.steps > 5
    assert result.improved


def test_bfloat16_while_training() -> None:
    result = recover(nudged(mlp()), mlp(), rows(), precision="bfloat16")
    assert result.after.error["y"] < 0.3 * result.before.error["y"]
    assert {a.dtype for a in weights(result.model).values()} == {np.dtype(np.float32)}


def test_what_torch_trained_must_be_what_onnxruntime_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from graphprune.converters.torch_graph.module import GraphModule

    monkeypatch.setattr(GraphModule, "write_back", lambda self, model: gp.load(mlp("wrong")))
    with pytest.raises(ValidationError, match="torch and onnxruntime differ"):
        recover(nudged(mlp()), mlp(), rows(), tmp_path / "out.onnx", epochs=3)
    assert list(tmp_path.iterdir()) == []


def test_the_last_step_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock may run out between two looks."""
    from graphprune.converters.recovery import schedule, training

    now = [0.0]

    def tick() -> float:
        now[0] += 0.021
        return now[0]

    monkeypatch.setattr(
        training, "Schedule", lambda steps, seconds, spent: schedule.Schedule(steps, seconds, spent, tick)
    )
    result = recover(nudged(mlp()), mlp(), rows(), epochs=None, minutes=0.05)
    assert result.steps > 40
    assert result.history[-1][0] == 1.0


def test_volumes() -> None:
    """Convolutions over three axes."""
    net = build(
        "(float[batch, 2, 4, 4, 4] x) => (float[batch, 3] y)",
        "c = Conv (x, conv.w) r = Relu (c) g = GlobalAveragePool (r) y = Flatten (g)",
        {"conv.w": (3, 2, 2, 2, 2)},
    )
    x = {"x": np.random.default_rng(0).standard_normal((64, 2, 4, 4, 4)).astype(np.float32)}
    result = recover(nudged(net), net, x, epochs=40)
    assert result.after.error["y"] < 0.3 * result.before.error["y"]


def test_a_model_of_a_fixed_batch() -> None:
    def fixed(model: onnx.ModelProto) -> onnx.ModelProto:
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 4
        return model

    result = recover(fixed(nudged(mlp())), fixed(mlp()), rows(), batch_size=32)
    assert result.after.error["y"] < 0.1 * result.before.error["y"]
    assert result.held_out % 4 == 0
