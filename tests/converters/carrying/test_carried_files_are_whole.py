"""What ``carry`` must not do with files of weights: replace the source, miss new numbers, or keep quiet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphprune.converters.carrying.carry_file import carry_file
from graphprune.converters.carrying.matching import match
from graphprune.converters.carrying.safetensors_file import read_safetensors, write_safetensors
from graphprune.converters.carrying.weight_files import open_weights
from networks import build, weight
from plans import changed, plan_of

import graphprune as gp
from graphprune.errors import CarryError, ModelError, UsageError
from graphprune.model import Model, load
from graphprune.plan import GroupPlan, Plan

Array = np.ndarray[Any, Any]
KEEP = [0, 2, 3, 6]
UP, DOWN = weight("up", (8, 6)), weight("down", (5, 8))


def network() -> tuple[Model, Plan]:
    body = "h = MatMul(x, up)\n r = Relu(h)\n y = MatMul(r, down)"
    model = load(build("(float[n, 6] x) => (float[n, 5] y)", body, {"up": UP.T, "down": DOWN.T}))
    return model, plan_of(model, {"up": {1: KEEP}, "down": {0: KEEP}})


def shards(folder: Path, first: dict[str, Array], second: dict[str, Array], where: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    write_safetensors(folder / "m-1.safetensors", first, {})
    write_safetensors(folder / "m-2.safetensors", second, {})
    index = folder / "m.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return index


WHERE = {"up": "m-1.safetensors", "down": "m-2.safetensors"}


def test_files_of_an_index_are_not_replaced(tmp_path: Path) -> None:
    model, plan = network()
    index = shards(tmp_path / "old", {"up": UP}, {"down": DOWN}, WHERE)
    with pytest.raises(UsageError, match="two of the files are the same"):
        carry_file(plan, index, index.parent / "small.safetensors.index.json", model=model)
    assert sorted(path.name for path in index.parent.iterdir()) == [
        "m-1.safetensors", "m-2.safetensors", "m.safetensors.index.json"
    ]  # fmt: skip
    np.testing.assert_array_equal(open_weights(index).arrays["up"], UP)
    (tmp_path / "new").mkdir()
    carry_file(plan, index, tmp_path / "new" / "m.safetensors.index.json", model=model)
    found = open_weights(tmp_path / "new" / "m.safetensors.index.json").arrays
    np.testing.assert_array_equal(found["up"], UP[KEEP])
    np.testing.assert_array_equal(found["down"], DOWN[:, KEEP])


@pytest.mark.parametrize("name", ["../evil.safetensors", "a/m-1.safetensors", "..\\m-1.safetensors", 3, None])
def test_an_index_names_files_beside_it(tmp_path: Path, name: Any) -> None:
    write_safetensors(tmp_path / "evil.safetensors", {"up": UP}, {})
    index = shards(tmp_path / "m", {"up": UP}, {"down": DOWN}, {**WHERE, "up": name})
    with pytest.raises(ModelError, match=r"is not the name of a \.safetensors file beside it"):
        open_weights(index)


def test_an_index_lists_what_its_files_hold(tmp_path: Path) -> None:
    index = shards(tmp_path / "m", {"up": UP, "extra": UP}, {"down": DOWN}, WHERE)
    with pytest.raises(ModelError, match="'extra' is in it, and the index says otherwise"):
        open_weights(index)
    index = shards(tmp_path / "m", {"up": UP}, {"down": DOWN, "up": UP}, WHERE)  # which one is read?
    with pytest.raises(ModelError, match="'up' is in it, and the index says otherwise"):
        open_weights(index)
    index = shards(tmp_path / "m", {"up": UP}, {"down": DOWN}, {**WHERE, "more": "m-1.safetensors"})
    with pytest.raises(ModelError, match="'more' is not in it"):
        open_weights(index)


def two_biases() -> tuple[Model, Plan, dict[str, Array]]:
    """Two layers that add the same zeros, unnamed, in a source that has the second one first."""
    first, mid, last = weight("a", (8, 6)), weight("mid", (8, 8)), weight("b", (5, 8))
    zero = np.zeros(8, np.float32)
    body = (
        "h = MatMul(x, a)\n h1 = Add(h, z)\n r = Relu(h1)\n g = MatMul(r, mid)\n g1 = Add(g, v)\n"
        " q = Relu(g1)\n y = MatMul(q, b)"
    )
    weights = {"a": first.T, "z": zero, "v": zero.copy(), "mid": mid.T, "b": last.T}
    model = load(build("(float[n, 6] x) => (float[n, 5] y)", body, weights))
    cuts = {"a": {1: KEEP}, "z": {0: KEEP}, "v": {0: KEEP}, "mid": {0: KEEP, 1: KEEP}, "b": {0: KEEP}}
    source = {"s.weight": mid, "s.bias": zero, "f.weight": first, "f.bias": zero.copy(), "c.weight": last}
    return model, plan_of(model, cuts), source


def test_equal_arrays_get_different_new_numbers(tmp_path: Path) -> None:
    model, plan, source = two_biases()
    write_safetensors(tmp_path / "a.safetensors", source, {})
    small = gp.apply(model, plan)
    ones = np.ones(4, np.float32)
    with pytest.raises(CarryError, match="only their order tells which is which"):
        carry_file(
            plan, tmp_path / "a.safetensors", None, model=model, weights=changed(small, z=ones, v=2 * ones)
        )
    same = changed(small, z=ones, v=ones)
    out = tmp_path / "b.safetensors"
    carry_file(plan, tmp_path / "a.safetensors", out, model=model, weights=same)
    found, _ = read_safetensors(out)
    np.testing.assert_array_equal(found["f.bias"], ones)
    np.testing.assert_array_equal(found["s.bias"], ones)


def test_equal_arrays_that_are_updated_and_not_cut(tmp_path: Path) -> None:
    model, _, source = two_biases()
    part = plan_of(model, {"mid": {1: KEEP}, "v": {0: KEEP}, "b": {0: KEEP}})
    new = changed(gp.apply(model, part), z=np.ones(8, np.float32))
    found = match(model, part, source, new)
    assert found.cut.how["s.bias"] == found.cut.how["f.bias"] == "order"


def test_a_fresh_norm_gets_its_new_shift_by_the_inputs_role() -> None:
    """Shift and mean are both zeros, scale and variance both ones; stored in another order than torch's."""
    ones, zeros = np.ones(6, np.float32), np.zeros(6, np.float32)
    first = weight("first", (6, 3, 1, 1))
    weights = {"w": first, "s": ones, "b": zeros, "m": zeros.copy(), "v": ones.copy()}
    body = "c = Conv(x, w)\n r = Relu(c)\n y = BatchNormalization(r, s, b, m, v)"
    model = load(build("(float[n, 3, h, w2] x) => (float[n, 6, h, w2] y)", body, weights))
    plan = plan_of(model, {})
    new = changed(gp.apply(model, plan), b=np.arange(6.0), s=2 * ones)
    source = {
        "norm.running_mean": zeros, "norm.running_var": ones, "norm.bias": zeros.copy(),
        "norm.weight": ones.copy(), "conv.weight": first,
    }  # fmt: skip
    found = match(model, plan, source, new)
    assert found.unmatched == ()
    assert set(found.cut.values) == {"norm.bias", "norm.weight"}
    np.testing.assert_array_equal(found.cut.values["norm.bias"], np.arange(6))
    assert "order" not in found.cut.how.values()


def test_a_file_of_new_weights_with_other_names_is_refused(tmp_path: Path) -> None:
    model, plan = network()
    write_safetensors(tmp_path / "a.safetensors", {"a.weight": UP, "c.weight": DOWN}, {})
    proto = changed(gp.apply(model, plan), up=weight("new", (6, 4))).to_proto()
    for node in proto.graph.node:
        names = {"h": "t1", "r": "t2"}
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    with pytest.raises(CarryError, match="the file with the new weights has no constant there"):
        carry_file(
            plan, tmp_path / "a.safetensors", tmp_path / "b.safetensors", model=model, weights=load(proto)
        )
    assert not (tmp_path / "b.safetensors").exists()


def test_new_numbers_of_a_folded_split_go_back_to_their_array() -> None:
    """A split of a constant is folded when the model is read; what changed in one half alone is carried."""
    source = {"a": weight("a", (8, 6)), "mid": weight("mid", (8, 8)), "b": weight("b", (5, 8))}
    both = weight("both", (16,))
    weights = {"both": both, "sizes": np.array([8, 8]), **{name: array.T for name, array in source.items()}}
    body = (
        "s, t = Split<axis=0>(both, sizes)\n h = MatMul(x, a)\n h1 = Add(h, s)\n r = Relu(h1)\n"
        " g = MatMul(r, mid)\n g1 = Add(g, t)\n q = Relu(g1)\n y = MatMul(q, b)"
    )
    model = load(build("(float[n, 6] x) => (float[n, 5] y)", body, weights))
    plan = gp.plan(model, target={"params": 0.6}, criterion="l2")
    small = gp.apply(model, plan)
    halves = small.ir.graph.initializers["s"].const_value
    assert halves is not None
    shape = tuple(small.ir.graph.initializers["a"].const_value.shape.numpy())  # type: ignore[union-attr]
    arrays = {**source, "both": both}
    found = match(model, plan, arrays, changed(small, a=weight("new", shape)))
    assert found.unmatched == ()
    assert set(found.cut.values) == {"a"}
    found = match(model, plan, arrays, changed(small, s=halves.numpy() + 1))
    assert found.unmatched == ()
    assert set(found.cut.values) == {"both"}
    expected = np.concatenate([small.ir.graph.initializers[name].const_value.numpy() for name in "st"])  # type: ignore[union-attr]
    expected[: len(halves.numpy())] += 1
    np.testing.assert_array_equal(found.cut.values["both"], expected)


def test_smaller_heads_are_noted(tmp_path: Path) -> None:
    model, plan = network()
    write_safetensors(tmp_path / "a.safetensors", {"a.weight": UP, "c.weight": DOWN}, {})
    assert carry_file(plan, tmp_path / "a.safetensors", None, model=model).notes == ()
    heads = Plan(model.sha256, {}, {}, [GroupPlan("g", "head_dim", True, 8, KEEP)], plan.parameters)
    (note,) = carry_file(heads, tmp_path / "a.safetensors", None, model=model).notes
    assert "must keep the old scale" in note
    whole = Plan(model.sha256, {}, {}, [GroupPlan("g", "head_dim", True, 8, list(range(8)))], plan.parameters)
    assert carry_file(whole, tmp_path / "a.safetensors", None, model=model).notes == ()


def test_copies_that_keep_old_numbers_are_noted(tmp_path: Path) -> None:
    model, plan = network()
    source = {"net.up": UP, "net.down": DOWN, "average.first": UP.copy(), "average.second": UP * 1.5}
    write_safetensors(tmp_path / "a.safetensors", source, {})
    new = weight("new", (6, 4))
    weights = changed(gp.apply(model, plan), up=new)
    report = carry_file(
        plan, tmp_path / "a.safetensors", tmp_path / "b.safetensors", model=model, weights=weights
    )
    found, _ = read_safetensors(tmp_path / "b.safetensors")
    np.testing.assert_array_equal(found["net.up"], new.T)
    np.testing.assert_array_equal(found["average.first"], UP[KEEP])
    assert report.notes == (
        "equal to arrays that got new numbers, and left with their old ones: 'average.first'",
    )
