"""What is known to be superfluous goes, and nothing is lost; what must not change does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from networks import NETWORKS, build, feeds, initializer, replace, run

import graphprune as gp
from graphprune.plan import Plan

Array = npt.NDArray[Any]
RNG = np.random.default_rng


def random(*shape: int, seed: int = 0) -> Array:
    return RNG([seed, *shape]).standard_normal(shape).astype(np.float32)


def kept(plan: Plan, member: str) -> list[int]:
    """What the plan keeps of the group with this member, as ``"a.w:1"``."""
    name, axis = member.split(":")
    (entry,) = (e for e in plan.parameters if e.name == name and e.axis == int(axis))
    return list(entry.keep)


def require_same(model: onnx.ModelProto, result: gp.PruneResult, atol: float) -> None:
    """On samples that nobody has seen."""
    inputs = feeds(model, batch=50, seed=99)
    for wanted, found in zip(run(model, inputs), run(result.model.to_proto(), inputs), strict=True):
        scale = float(np.abs(wanted).max())
        np.testing.assert_allclose(found / scale, wanted / scale, atol=atol)


def linear_chain() -> onnx.ModelProto:
    """A hidden layer of 12 that holds 5 dimensions."""
    wide = (random(6, 5) @ random(5, 12)).astype(np.float32)
    return build(
        "(float[batch, 6] x) => (float[batch, 7] y)", "h = MatMul (x, u) p = MatMul (h, v) y = Add (p, b)",
        {"u": wide, "v": (12, 7), "b": (7,)},
    )  # fmt: skip


def conv_chain() -> onnx.ModelProto:
    """Two convolutions with nothing in between; 8 channels that are mixes of 3 filters."""
    filters = np.einsum("om,mcij->ocij", random(8, 3), random(3, 3, 2, 2)).astype(np.float32)
    return build(
        "(float[batch, 3, 6, 6] x) => (float[batch, 5, 4, 4] y)", "h = Conv (x, u) y = Conv (h, v, b)",
        {"u": filters, "v": (5, 8, 2, 2), "b": (5,)},
    )  # fmt: skip


def duplicates() -> onnx.ModelProto:
    """Behind a ReLU, four channels and a positive multiple of each."""
    own, bias = random(4, 3, 3, 3), np.array([0.1, -0.1, 0.2, 0.0], np.float32)
    factors = np.array([0.5, 2.0, 1.0, 3.0], np.float32)
    return build(
        "(float[batch, 3, 6, 6] x) => (float[batch, 5, 6, 6] y)",
        "h = Conv <pads = [1, 1, 1, 1]> (x, u, a) r = Relu (h) y = Conv <pads = [1, 1, 1, 1]> (r, v)",
        {
            "u": np.concatenate([own, own * factors[:, None, None, None]]),
            "a": np.concatenate([bias, bias * factors]),
            "v": (5, 8, 3, 3),
        },
    )


PLANTED = {
    "linear": (linear_chain, "u:1", 5),
    "conv": (conv_chain, "u:0", 3),
    "duplicates": (duplicates, "u:0", 4),
}


@pytest.mark.parametrize("name", PLANTED)
def test_mixes_of_others_go_and_nothing_is_lost(name: str) -> None:
    make, member, enough = PLANTED[name]
    model = make()
    size = initializer(model, member[:1]).shape[int(member[2:])]
    result = gp.prune(
        model, target={"macs": enough / size + 0.01}, calibration=feeds(model, batch=300), floor=0.0
    )
    assert len(kept(result.plan, member)) == enough
    if name == "duplicates":
        assert {unit % 4 for unit in kept(result.plan, member)} == {0, 1, 2, 3}
    require_same(model, result, 3e-4)
    assert result.output_errors is not None
    assert result.output_errors[1] < 1e-7


@pytest.mark.parametrize("name", PLANTED)
def test_mixes_go_at_one_pass_as_well(name: str) -> None:
    """Its damping is fixed, and correlations are shrunk: nearly the same."""
    make, member, enough = PLANTED[name]
    model = make()
    size = initializer(model, member[:1]).shape[int(member[2:])]
    result = gp.prune(
        model, recipe="obspa", target={"macs": enough / size + 0.01}, calibration=feeds(model, batch=2000),
        floor=0.0,
    )  # fmt: skip
    assert len(kept(result.plan, member)) == enough
    assert result.output_errors is not None
    before, after = result.output_errors
    assert after < 0.02
    assert after < before / 10


@pytest.mark.parametrize("recipe", ["graphprune", "obspa"])
def test_dead_channels_go_first(recipe: str) -> None:
    model = build(
        "(float[batch, 6] x) => (float[batch, 3] y)", "h = Gemm (x, u, a) r = Relu (h) y = Gemm (r, v, b)",
        {"u": (6, 10), "a": (10,), "v": (10, 3), "b": (3,)},
    )  # fmt: skip
    up, bias, down = (initializer(model, n).copy() for n in ("u", "a", "v"))
    up[:, 2] *= 30  # large, and unheard
    bias[2] = -1e4
    down[7] = 0  # nobody listens
    up[:, 4], bias[4] = 0, 5  # always the same: a bias
    for name, array in (("u", up), ("a", bias), ("v", down)):
        replace(model, name, array)
    result = gp.prune(model, recipe=recipe, target={"macs": 0.7}, calibration=feeds(model, batch=200))
    assert set(range(10)) - set(kept(result.plan, "u:1")) == {2, 4, 7}
    require_same(model, result, 1e-4)


@pytest.mark.parametrize("recipe", ["graphprune", "obspa", "flap"])
@pytest.mark.parametrize("samples", [1, 3])
def test_fewer_samples_than_features(recipe: str, samples: int) -> None:
    for name in ("mlp", "cnn", "attention"):
        model = NETWORKS[name]()
        result = gp.prune(
            model, recipe=recipe, target={"params": 0.6}, calibration=feeds(model, batch=samples),
            verify_result=False,
        )  # fmt: skip
        for tensor in result.model.to_proto().graph.initializer:
            array = onnx.numpy_helper.to_array(tensor)
            assert np.isfinite(array).all()
            assert np.abs(array.astype(np.float64)).max() < 1e3
        outputs = run(result.model.to_proto(), feeds(model, batch=4, seed=5))
        assert all(np.isfinite(y).all() for y in outputs)


@pytest.mark.parametrize("recipe", ["graphprune", "obspa"])
def test_half_precision_stays(recipe: str) -> None:
    weights = {
        n: (random(*s) / np.sqrt(s[0])).astype(np.float16) for n, s in {"u": (6, 16), "v": (16, 5)}.items()
    }
    model = build(
        "(float16[batch, 6] x) => (float16[batch, 5] y)", "h = MatMul (x, u) r = Relu (h) y = MatMul (r, v)",
        weights,
    )  # fmt: skip
    result = gp.prune(model, recipe=recipe, target={"macs": 0.5}, calibration=feeds(model, batch=100))
    proto = result.model.to_proto()
    onnx.checker.check_model(proto, full_check=True)
    assert {t.data_type for t in proto.graph.initializer} == {onnx.TensorProto.FLOAT16}
    assert run(proto, feeds(model, batch=3))[0].dtype == np.float16
    assert result.output_errors is not None
    assert result.output_errors[1] < result.output_errors[0]


@pytest.mark.parametrize("recipe", ["graphprune", "obspa"])
def test_other_readers_of_a_weight_keep_it(recipe: str) -> None:
    """The table is looked up and is the last layer's weight: it stays one constant, as it was."""
    model = NETWORKS["tied_embedding"]()
    ids = RNG(0).integers(0, 7, (200, 5))
    result = gp.prune(
        model, recipe=recipe, target={"params": 0.75}, calibration={"ids": ids}, include=["table"]
    )
    proto = result.model.to_proto()
    stays = kept(result.plan, "table:1")
    assert len(stays) < 8
    (lookup,) = (n for n in proto.graph.node if n.op_type == "Gather")
    (last,) = (n for n in proto.graph.node if n.op_type == "Gemm")
    assert np.array_equal(initializer(proto, lookup.input[0]), initializer(model, "table")[:, stays])
    assert last.input[1] == lookup.input[0]


@pytest.mark.parametrize("options", [{"compensator": "sequential"}, {"recipe": "obspa"}], ids=str)
def test_layers_before_the_first_cut_keep_their_numbers(options: dict[str, Any]) -> None:
    model = NETWORKS["mlp"]()
    result = gp.prune(
        model, target={"params": 0.8}, calibration=feeds(model, batch=100), include=["b.w"], **options
    )
    proto, stays = result.model.to_proto(), kept(result.plan, "b.w:1")
    assert len(stays) < 8
    for name in ("a.w", "a.b"):
        assert initializer(proto, name).tobytes() == initializer(model, name).tobytes()
    assert np.array_equal(initializer(proto, "b.w"), initializer(model, "b.w")[:, stays])
    assert np.array_equal(initializer(proto, "b.b"), initializer(model, "b.b")[stays])
    assert not np.array_equal(initializer(proto, "c.w"), initializer(model, "c.w")[stays])
