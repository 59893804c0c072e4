"""Comparing outputs: nothing is skipped, and what is not finite on one side only is never equal."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import NETWORKS, Array, initializer, replace

from graphprune.check import compare_models as check_models
from graphprune.check import load_feeds, validate
from graphprune.compare import Difference, compare_outputs, run, session
from graphprune.errors import ModelError, UsageError, ValidationError
from graphprune.model import load
from graphprune.sample_inputs import sample_inputs


def difference(expected: object, actual: object) -> Difference:
    (found,) = compare_outputs({"y": np.asarray(expected)}, {"y": np.asarray(actual)})
    return found


def test_equal_outputs() -> None:
    found = difference([1.0, -2.0], [1.0, -2.0])
    assert (found.max_error, found.mean_error, found.scale, found.compared) == (0, 0, 2, 2)
    assert found.cosine == pytest.approx(1.0)
    assert found.within(0.0)
    assert found.passing_tolerance == 0


def test_numbers_by_hand() -> None:
    found = difference([3.0, 0.0, -4.0], [3.0, 1.0, -4.5])
    assert found.max_error == 1.0
    assert found.mean_error == pytest.approx(0.5)
    assert found.scale == 4.0
    assert found.passing_tolerance == 0.25
    assert found.within(0.25)
    assert not found.within(0.2499)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ([1.0, np.nan], [1.0, 2.0]),
        ([1.0, 2.0], [1.0, np.nan]),
        ([1.0, np.inf], [1.0, 2.0]),
        ([1.0, np.inf], [1.0, -np.inf]),
        ([1.0, np.inf], [1.0, np.nan]),
    ],
)
def test_not_finite_on_one_side_is_infinitely_far(expected: list[float], actual: list[float]) -> None:
    found = difference(expected, actual)
    assert found.max_error == np.inf
    assert not found.within(1e9)


def test_not_finite_on_both_sides_is_equal_but_not_counted() -> None:
    found = difference([1.0, np.nan, np.inf, -np.inf], [1.0, np.nan, np.inf, -np.inf])
    assert found.max_error == 0
    assert found.compared == 1
    assert difference([np.nan], [np.nan]).compared == 0


def test_tiny_outputs_are_not_judged_by_a_relative_error() -> None:
    assert difference([1e-12], [2e-12]).within(1e-4)
    assert not difference([1e-3], [1.1e-3]).within(1e-4)


def test_missing_output_and_other_shape_are_errors() -> None:
    with pytest.raises(ValidationError, match="output 'y' is missing"):
        compare_outputs({"y": np.ones(2)}, {"z": np.ones(2)})
    with pytest.raises(ValidationError, match=r"shape \[3\] instead of \[2\]"):
        difference(np.ones(2), np.ones(3))
    with pytest.raises(ValidationError, match=r"shape \[1, 2\] instead of \[2\]"):
        difference(np.ones(2), np.ones((1, 2)))


def test_texts_and_empty_outputs() -> None:
    assert difference(np.array(["a", "b"], object), np.array(["a", "b"], object)).within(0)
    assert not difference(np.array(["a", "b"], object), np.array(["a", "c"], object)).within(1e9)
    assert difference(np.zeros((0, 3)), np.zeros((0, 3))).within(0)


def test_integers_and_truths() -> None:
    assert difference(np.array([1, 5]), np.array([1, 5])).max_error == 0
    assert difference(np.array([1, 5]), np.array([1, 7])).max_error == 2
    assert difference(np.array([True, False]), np.array([True, True])).max_error == 1


def test_run_gives_outputs_by_name_and_refuses_wrong_inputs() -> None:
    model = load(NETWORKS["mlp"]())
    assert run(model, {"x": np.ones((2, 6), np.float32), "unused": np.ones(1)})["y"].shape == (2, 3)
    with pytest.raises(ValidationError, match="can't run the model"):
        run(model, {"x": np.ones((2, 7), np.float32)})


def test_session_refuses_what_onnxruntime_refuses() -> None:
    proto = NETWORKS["mlp"]()
    replace(proto, "b.w", np.ones((11, 8), np.float32))
    with pytest.raises(ValidationError, match="refuses the model"):
        session(load(proto)).run(None, {"x": np.ones((1, 6), np.float32)})


def test_validate_refuses_wrong_shapes() -> None:
    proto = NETWORKS["mlp"]()
    replace(proto, "b.w", np.ones((11, 8), np.float32))
    with pytest.raises(ValidationError) as caught:
        validate(load(proto))
    assert caught.value.exit_code == 3


# ---- check --------------------------------------------------------------------------------------


def changed(factor: float) -> onnx.ModelProto:
    model = NETWORKS["mlp"]()
    replace(model, "c.w", initializer(model, "c.w") * np.float32(factor))
    return model


def test_check_on_random_and_on_given_inputs(tmp_path) -> None:  # type: ignore[no-untyped-def]
    reference, other = load(NETWORKS["mlp"]()), load(changed(1.01))
    (on_random,) = check_models(reference, other)
    assert 1e-4 < on_random.passing_tolerance < 0.02
    data = {"x": np.zeros((2, 6), np.float32)}
    (given,) = check_models(reference, other, data)
    assert given.max_error > 0
    np.savez(tmp_path / "d.npz", **data)
    assert check_models(reference, other, tmp_path / "d.npz") == [given]
    assert check_models(reference, other, str(tmp_path / "d.npz")) == [given]


def test_check_names_the_missing_input() -> None:
    model = load(NETWORKS["mlp"]())
    with pytest.raises(UsageError, match="lack the input 'x'"):
        check_models(model, model, {"z": np.ones(3)})


def test_load_feeds_takes_arrays_only(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "d.npz"
    np.savez(path, x=np.array([{"a": 1}], object))
    with pytest.raises(ModelError, match="cannot read the data file"):
        load_feeds(path)
    np.savez(path, x=np.ones(3), y=np.zeros(2))
    found = load_feeds(path)
    assert {k: v.shape for k, v in found.items()} == {"x": (3,), "y": (2,)}
    whole = path.read_bytes()
    for cut in (0, 1, 40, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:cut])
        with pytest.raises(ModelError, match="cannot read the data file"):
            load_feeds(path)
    np.save(tmp_path / "one.npy", np.ones(3))
    with pytest.raises(ModelError, match="cannot read the data file"):
        load_feeds(tmp_path / "one.npy")
    with pytest.raises(ModelError, match="cannot read the data file"):
        load_feeds(tmp_path / "none.npz")


def test_sample_inputs_fit_the_tables_they_index() -> None:
    model = load(NETWORKS["tied_embedding"]())
    ids: Array = sample_inputs(model, {"batch": 50, "time": 40}, np.random.default_rng(0))["ids"]
    assert ids.dtype == np.int64
    assert (ids.min(), ids.max()) == (0, 6)


def test_sample_inputs_have_the_type_and_size_asked_for() -> None:
    found = sample_inputs(load(NETWORKS["conditional"]()), {"batch": 4}, np.random.default_rng(0))
    assert found["x"].shape == (4, 6)
    assert found["x"].dtype == np.float32
    assert found["flag"].tolist() == [True]


def test_sequences_entry_by_entry() -> None:
    """As onnxruntime gives them: a list, whose tensors may have different sizes."""
    found = compare_outputs(
        {"y": [np.ones((2, 3)), np.zeros((2, 4))]}, {"y": [np.ones((2, 3)), np.full((2, 4), 0.5)]}
    )
    assert [(d.output, d.max_error) for d in found] == [("y[0]", 0.0), ("y[1]", 0.5)]
    with pytest.raises(ValidationError, match="1 entries instead of 2"):
        compare_outputs({"y": [np.ones(2), np.ones(2)]}, {"y": [np.ones(2)]})
    with pytest.raises(ValidationError, match=r"'y\[0\]' has shape"):
        compare_outputs({"y": [np.ones(2)]}, {"y": [np.ones(3)]})


def test_empty_sequences_maps_and_optionals() -> None:
    def worst(expected: object, actual: object) -> float:
        found = compare_outputs({"y": expected}, {"y": actual})  # type: ignore[dict-item]
        return max(d.max_error for d in found)

    assert worst([], []) == 0
    assert worst([{"a": 0.25}], [{"a": 0.5}]) == 0.25
    assert worst(None, None) == 0
    assert worst(np.ones(2), None) == np.inf
    assert worst(None, np.ones(2)) == np.inf
    assert worst(np.ones(2), [np.ones(2)]) == np.inf
    assert worst([], np.ones(2)) == np.inf
