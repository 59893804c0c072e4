"""Samples: what is taken, what is refused, and how it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import build

from graphprune.calibration.samples import Samples, batch_size, load_samples
from graphprune.errors import CalibrationError, ModelError, UsageError
from graphprune.model import Model, load

RNG = np.random.default_rng(0)


def text_model() -> Model:
    """A table, a mask and an optional scale."""
    return load(
        build(
            "(int64[batch, time] ids, float[batch, time] mask) => (float[batch, time, 4] y)",
            "e = Gather (table, ids) m = Unsqueeze (mask, last) y = Mul (e, m)",
            {"table": (10, 4), "last": [-1]},
        )
    )


def plain(shape: str, wide: int = 4) -> Model:
    return load(build(f"(float[{shape}] x) => (float[a, b] y)", "y = MatMul (x, w)", {"w": (wide, 3)}))


def texts(count: int, time: int = 5) -> dict[str, Any]:
    return {
        "ids": RNG.integers(0, 10, (count, time)),
        "mask": np.ones((count, time), np.float32),
        "labels": np.arange(count),
    }


def test_file_is_read_as_far_as_needed(tmp_path: Path) -> None:
    data = texts(9)
    path = tmp_path / "calib.npz"
    np.savez(path, **data)
    samples = load_samples(path, text_model(), 6)
    assert len(samples) == 6
    assert samples.labels is not None
    np.testing.assert_array_equal(samples.labels, np.arange(6))
    np.testing.assert_array_equal(samples.feeds["ids"], data["ids"][:6])
    np.savez_compressed(path, **{k: np.asfortranarray(v) for k, v in data.items()})
    np.testing.assert_array_equal(load_samples(path, text_model(), 6).feeds["ids"], data["ids"][:6])
    assert len(load_samples(path, text_model())) == 9


def test_batches_arrays_and_samples_are_the_same_source() -> None:
    data = texts(9)
    one = load_samples(data, text_model())
    parts = ({k: v[i : i + 4] for k, v in data.items()} for i in range(0, 9, 4))
    two = load_samples(parts, text_model())
    three = load_samples(one, text_model())
    for samples in (two, three):
        for name, array in one.feeds.items():
            np.testing.assert_array_equal(samples.feeds[name], array)
        np.testing.assert_array_equal(samples.labels, one.labels)  # type: ignore[arg-type]
    assert [len(batch["ids"]) for batch in one.batches(4)] == [4, 4, 1]


def test_no_more_batches_are_asked_for_than_needed() -> None:
    asked = []

    def batches() -> Any:
        for i in range(100):
            asked.append(i)
            yield texts(4)

    assert len(load_samples(batches(), text_model(), 10)) == 10
    assert asked == [0, 1, 2]


def test_split_and_shuffle_are_seeded_and_keep_rows_together() -> None:
    data = texts(10)
    data["mask"][:, 0] = data["labels"]
    samples = load_samples(data, text_model())
    first, second = samples.split(0.7, seed=3)
    assert (len(first), len(second)) == (7, 3)
    again, _ = samples.split(0.7, seed=3)
    np.testing.assert_array_equal(first.labels, again.labels)  # type: ignore[arg-type]
    assert first.labels is not None
    assert second.labels is not None
    assert sorted([*first.labels, *second.labels]) == list(range(10))
    for part in (first, second, samples.shuffled(1)):
        np.testing.assert_array_equal(part.feeds["mask"][:, 0], part.labels)  # type: ignore[arg-type]
    assert not np.array_equal(samples.shuffled(1).labels, samples.labels)  # type: ignore[arg-type]
    assert [len(part) for part in samples.split(0.0, 0)] == [1, 9]


def test_labels_that_are_an_input_are_one() -> None:
    model = load(build("(float[n, 4] labels) => (float[n, 3] y)", "y = MatMul (labels, w)", {"w": (4, 3)}))
    samples = load_samples({"labels": np.ones((2, 4), np.float32)}, model)
    assert samples.labels is None
    assert list(samples.feeds) == ["labels"]


def test_safe_casts() -> None:
    model = text_model()
    data = texts(3)
    cast = load_samples({"ids": data["ids"].astype(np.int8), "mask": data["mask"].astype(np.float64)}, model)
    assert cast.feeds["ids"].dtype == np.int64
    assert cast.feeds["mask"].dtype == np.float32


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mask": None}, "lack the input 'mask'"),
        ({"mask": None, "maske": np.ones((3, 5))}, "rename 'maske' to 'mask'"),
        ({"extra": np.ones(3)}, "no input 'extra'"),
        ({"ids": np.ones((3, 5))}, "fractions would be lost"),
        ({"mask": np.ones((3, 5), np.uint8)}, "normalised"),
        ({"mask": np.ones((3, 5, 2, 2), np.float32)}, "has 4 axes instead of 2"),
        ({"mask": np.ones((3, 6), np.float32)}, "'time' is 5 in input 'ids'"),
        ({"mask": np.full((3, 5), np.nan, np.float32)}, "first at [0, 0]"),
        ({"mask": np.full((3, 5), 1e300)}, "holds inf"),
        ({"mask": np.ones((4, 5), np.float32)}, "'ids' has 3, 'mask' has 4"),
        ({"ids": np.full((3, 5), 10)}, "the index 10"),
        ({"ids": np.full((3, 5), -11)}, "the index -11"),
        ({"ids": np.ones((0, 5), np.int64), "mask": np.ones((0, 5), np.float32)}, "no calibration samples"),
        ({"labels": np.arange(2)}, "2 labels for 3"),
        ({"mask": np.array([[object()] * 5] * 3)}, "holds object"),
        ({"mask": np.float32(1)}, "one number"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], words: str) -> None:
    data = {name: array for name, array in (texts(3) | change).items() if array is not None}
    with pytest.raises(CalibrationError) as error:
        load_samples(data, text_model())
    assert words in str(error.value)
    assert len(str(error.value).splitlines()) <= 4
    assert isinstance(error.value, ModelError)
    assert error.value.exit_code == 1


def test_fixed_sizes_are_named() -> None:
    with pytest.raises(CalibrationError, match=r"axis 1 of calibration input 'x' is 5 instead of 4"):
        load_samples({"x": np.ones((2, 5), np.float32)}, plain("n, 4"))


@pytest.mark.parametrize("content", [b"", b"no zip at all", None])
def test_no_archive_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "calib.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CalibrationError, match="cannot read the calibration data"):
        load_samples(path, text_model())


def test_pickles_and_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "calib.npz"
    np.savez(path, ids=np.array([{}], object), mask=np.ones(1))
    with pytest.raises(CalibrationError, match="pickled"):
        load_samples(path, text_model())
    np.savez(path, **texts(500))
    whole = path.read_bytes()
    path.write_bytes(whole[:800] + b"\xff" * 64 + whole[864:])
    with pytest.raises(CalibrationError, match="CRC"):
        load_samples(path, text_model())


def test_archive_without_samples_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "calib.npz"
    np.savez(path, **texts(0))
    with pytest.raises(CalibrationError, match="no calibration samples"):
        load_samples(path, text_model())


def test_limit_must_be_a_count() -> None:
    with pytest.raises(UsageError):
        load_samples(texts(3), text_model(), 0)


@pytest.mark.parametrize(("shape", "size"), [("1, 4", 1), ("3, 4", 3), ("n, 4", 7)])
def test_fixed_batches(shape: str, size: int) -> None:
    model = plain(shape)
    assert batch_size(model, 7) == size
    samples = load_samples({"x": np.ones((8, 4), np.float32)}, model)
    found = [len(batch["x"]) for batch in samples.batches(7)]
    assert found == {1: [1] * 8, 3: [3, 3], 7: [7, 1]}[size]
    assert all(len(part) % size == 0 for part in samples.split(0.5, 0)) or size == 7


def test_too_few_for_a_fixed_batch() -> None:
    with pytest.raises(CalibrationError, match="exactly 3 at a time"):
        load_samples({"x": np.ones((2, 4), np.float32)}, plain("3, 4"))


def scaled() -> Model:
    """A scalar, and positions that every sample shares."""
    return load(
        build(
            "(float[n, time, 4] x, float scale, float[time, 4] places) => (float[n, time, 3] y)",
            "s = Mul (x, scale) p = Add (s, places) y = MatMul (p, w)",
            {"w": (4, 3)},
        )
    )


def test_shared_inputs_go_to_every_batch(tmp_path: Path) -> None:
    data = {
        "x": np.ones((5, 2, 4), np.float32), "scale": np.float32(2), "places": np.ones((2, 4), np.float32)
    }  # fmt: skip
    path = tmp_path / "calib.npz"
    np.savez(path, **data)
    for source in (path, data, [data, data]):
        samples = load_samples(source, scaled(), 1)
        assert len(samples) == 1
        assert samples.shared == {"scale", "places"}
        (batch,) = samples.batches(4)
        assert {name: array.shape for name, array in batch.items()} == {
            "x": (1, 2, 4), "scale": (), "places": (2, 4)
        }  # fmt: skip
    with pytest.raises(CalibrationError, match="not the same in every batch"):
        load_samples([data, data | {"scale": np.float32(3)}], scaled())


def test_one_scalar_per_sample_runs_one_at_a_time() -> None:
    data = {
        "x": np.ones((5, 2, 4), np.float32),
        "scale": np.arange(5, dtype=np.float32),
        "places": np.ones((2, 4), np.float32),
    }
    samples = load_samples(data, scaled())
    assert len(samples) == 5
    batches = list(samples.batches(4))
    assert [float(batch["scale"]) for batch in batches] == [0, 1, 2, 3, 4]
    assert batches[0]["x"].shape == (1, 2, 4)
    assert len(samples.take(2)) == 2


def test_defaults_need_no_data() -> None:
    proto = build("(float[n, 4] x, float[4, 3] w) => (float[n, 3] y)", "y = MatMul (x, w)", {"w": (4, 3)})
    assert isinstance(load_samples({"x": np.ones((2, 4), np.float32)}, load(proto)), Samples)
