"""Plans carried to Keras models: sizes that follow, equality with the pruned file, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphprune.converters import tensorflow
from onnx import numpy_helper

import graphprune as gp
from graphprune.errors import CarryError, ModelError, ValidationError

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore"),  # raised inside TensorFlow and tf2onnx
]


def network(name: str) -> Any:
    import keras
    import keras_networks

    keras.utils.set_random_seed(0)
    return keras_networks.moved(getattr(keras_networks, name)())


def converted(model: Any, folder: Path) -> Path:
    tensorflow.export_made(model, folder / "m.onnx", source="test")
    return folder / "m.onnx"


def carry(*arguments: Any, **options: Any) -> Any:
    from graphprune.converters.carrying.keras_model import carry_model

    return carry_model(*arguments, **options)


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("attention", {"num_heads", "key_dim", "value_dim", "units"}),
        ("squeeze_and_excite", {"filters", "target_shape[2]"}),
        ("recurrent", {"output_dim", "units"}),
        ("nested", {"units"}),
        ("transposed", {"filters", "groups"}),
    ],
)
def test_the_carried_model_is_the_pruned_one(tmp_path: Path, name: str, numbers: set[str]) -> None:
    import keras

    original = network(name)
    before = [np.array(weight) for weight in original.weights]
    file = converted(original, tmp_path)
    kinds = ["channels", "heads", "head_dim", "norm_groups"]
    for compensator in ("obs", "none"):
        result = gp.prune(file, target={"macs": 0.6}, criterion="l2", compensator=compensator, kinds=kinds)
        weights = None if compensator == "none" else result.model
        carried, report = carry(result.plan, original, model=file, weights=weights)
        assert report.error <= 1e-5
        assert not report.notes  # also with random weights
        assert report.change > 1e-2, "the cut did something"
        assert report.parameters == (original.count_params(), carried.count_params())
        assert report.parameters[1] < report.parameters[0]
        assert report.mended
        assert {mended.name.rpartition(".")[2] for mended in report.mended} <= numbers
        assert all(np.array_equal(a, b) for a, b in zip(before, original.weights, strict=True))
    # It is a model like any other: it can be saved, loaded and trained.
    carried.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert [w.shape for w in again.weights] == [w.shape for w in carried.weights]
    assert [layer.name for layer in again.layers] == [layer.name for layer in original.layers]


def test_a_whole_network_with_new_weights(tmp_path: Path) -> None:
    original = network("mobile")
    file = converted(original, tmp_path)
    result = gp.prune(file, target={"macs": 0.5}, criterion="l2", compensator="none", verify_result=False)
    trained = result.model.to_proto()
    rng = np.random.default_rng(0)
    for tensor in trained.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.ndim and array.size > 1:
            array = array * (1 + 0.01 * rng.standard_normal(array.shape)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    carried, report = carry(result.plan, original, model=file)
    updated, with_weights = carry(result.plan, original, model=file, weights=trained)
    assert max(report.error, with_weights.error) <= 1e-5
    assert report.change != with_weights.change
    assert len(report.mended) > 30
    assert carried.count_params() == updated.count_params() < original.count_params()


def test_another_model_is_refused(tmp_path: Path) -> None:
    original = network("two_dense")
    file = converted(original, tmp_path)
    plan = gp.plan(gp.load(file), target={"macs": 0.5}, criterion="l2")
    original.layers[-1].bias.assign(original.layers[-1].bias + 1)
    with pytest.raises(ModelError, match="the Keras model is not what the ONNX model was made from"):
        carry(plan, original, model=file)
    with pytest.raises(ModelError, match="not to a dict"):
        carry(plan, {}, model=file)


def test_what_is_not_found_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = network("two_dense")
    file = converted(original, tmp_path)
    plan = gp.plan(gp.load(file), target={"macs": 0.5}, criterion="l2")
    from graphprune.converters.carrying import keras_model

    arrays = keras_model.arrays_of(original)
    without = {name: array for name, array in arrays.items() if name != next(iter(arrays))}
    assert len(without) < len(arrays)
    monkeypatch.setattr(keras_model, "arrays_of", lambda model: without)
    with pytest.raises(CarryError) as caught:
        carry(plan, original, model=file)
    assert caught.value.unmatched


@pytest.mark.parametrize("is_hidden", [False, True])
def test_wrong_numbers_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_hidden: bool) -> None:
    original = network("attention")
    if is_hidden:  # the outputs do not depend on what is cut
        original.layers[-1].set_weights([np.zeros((16, 3)), np.zeros(3)])
    file = converted(original, tmp_path)
    plan = gp.plan(gp.load(file), target={"macs": 0.6}, criterion="l2", kinds=["head_dim"])
    from graphprune.converters.carrying import keras_model

    before = original.get_weights()
    _, report = carry(plan, original, model=file)
    assert not report.notes
    monkeypatch.setattr(keras_model, "sqrt", lambda value: 1.0)
    with pytest.raises(ValidationError, match="not what the pruned model computes"):
        carry(plan, original, model=file)
    assert all(np.array_equal(a, b) for a, b in zip(before, original.get_weights(), strict=True))


def test_a_layer_of_ones_own_is_refused(tmp_path: Path) -> None:
    original = network("own")
    file = converted(original, tmp_path)
    plan = gp.plan(gp.load(file), target={"macs": 0.5}, criterion="l2")
    with pytest.raises(ModelError, match="no telling how a Own gets smaller"):
        carry(plan, original, model=file)


def test_keras_files(tmp_path: Path) -> None:
    from graphprune.converters.carrying.carry import carry as carry_anything

    network("two_dense").save(tmp_path / "m.keras")
    gp.convert(tmp_path / "m.keras", tmp_path / "m.onnx")
    result = gp.prune(tmp_path / "m.onnx", target={"macs": 0.5}, criterion="l2", compensator="none")
    result.plan.save(tmp_path / "plan.json")
    out = tmp_path / "small.keras"
    carry_anything(tmp_path / "plan.json", tmp_path / "m.keras", out, model=tmp_path / "m.onnx")
    report = gp.convert(out, tmp_path / "small.onnx")
    assert report.scale > 0
    result.model.save(tmp_path / "pruned.onnx")
    differences = gp.check(tmp_path / "pruned.onnx", tmp_path / "small.onnx")
    assert all(difference.within(1e-5) for difference in differences)
    (tmp_path / "broken.keras").write_text("hello")
    with pytest.raises(ModelError, match="Keras cannot load"):
        carry_anything(result.plan, tmp_path / "broken.keras", out, model=tmp_path / "m.onnx")
