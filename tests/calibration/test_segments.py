"""A model run piece by piece gives what a whole run gives, and keeps no more than it needs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks import NETWORKS, build, feeds, initializer, run

from graphprune.calibration.segments import Segments
from graphprune.errors import ModelError
from graphprune.model import Model, load

EXTRA: dict[str, Any] = {
    "two inputs": build(
        "(float[batch, 4] x, float[batch, 4] z) => (float[batch, 3] y)",
        "a = MatMul (x, u) s = Add (a, z) r = Relu (s) b = MatMul (r, v) t = Add (z, r) c = MatMul (t, v) "
        "y = Add (b, c)",
        {"u": (4, 4), "v": (4, 3)},
    ),
    "sizes": build(
        "(float[batch, time, 6] x) => (float[batch, time, 6] y)",
        """
        h = MatMul (x, u) shape = Shape (x) n = Gather (shape, first) whole = Concat <axis = 0> (n, rest)
        f = Reshape (h, whole) g = Relu (f) back = Reshape (g, shape) y = MatMul (back, v)
        """,
        {"u": (6, 6), "v": (6, 6), "first": [0], "rest": [-1]},
    ),
    "lists": build(
        "(float[batch, 8] x) => (float[batch, 3] y)",
        """
        s = SplitToSequence <axis = 1, keepdims = 1> (x, half) h = MatMul (x, u) r = Relu (h)
        a = SequenceAt (s, zero) i = MatMul (a, v) b = SequenceAt (s, one) j = MatMul (b, v)
        k = MatMul (r, w) t = Add (i, j) y = Add (k, t)
        """,
        {
            "u": (8, 6), "v": (4, 3), "w": (6, 3),
            "half": np.array(4), "zero": np.array(0), "one": np.array(1),
        },
    ),
}  # fmt: skip
NAMES = [
    "cnn", "dense", "depthwise_se", "mlp", "attention", "grouped_query", "rotary", "tied_embedding",
    "shape_arithmetic", "batch_times_heads", "conditional", *EXTRA,
]  # fmt: skip


def network(name: str) -> onnx.ModelProto:
    return EXTRA[name] if name in EXTRA else NETWORKS[name]()


def batches_of(proto: onnx.ModelProto) -> list[dict[str, Any]]:
    """Three runs of other sizes each; flags have no axis of samples."""
    return [feeds(proto, batch=n, seed=n) for n in (2, 3, 1)]


def values_of(model: Model) -> list[ir.Value]:
    """Tensors that the main graph makes, in order."""
    made = [v for n in model.ir.graph if n.op_type != "SplitToSequence" for v in n.outputs]
    return [v for v in made if v.name and v.const_value is None]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("step", [1, 3])
def test_pieces_make_the_whole(name: str, step: int) -> None:
    proto = network(name)
    model, batches = load(proto), batches_of(proto)
    whole = [run(model.to_proto(), batch) for batch in batches]
    segments = Segments(model, batches)
    assert len(segments) == 3
    for value in values_of(model)[::step]:
        segments.advance([value])
        assert len(segments.values(value.name or "")) == 3
    segments.advance(list(model.ir.graph.outputs))
    for i, output in enumerate(model.ir.graph.outputs):
        for found, outputs in zip(segments.values(output.name or ""), whole, strict=True):
            np.testing.assert_allclose(found, outputs[i], rtol=1e-4, atol=1e-5)


def held(segments: Segments) -> set[str]:
    """Names of the tensors that are kept."""
    (names,) = {frozenset(store) for store in segments._store}
    return set(names)


def test_what_nobody_needs_any_more_is_forgotten() -> None:
    proto = EXTRA["two inputs"]
    model = load(proto)
    value = {v.name: v for v in values_of(model)}
    segments = Segments(model, batches_of(proto))
    assert held(segments) == {"x", "z"}
    segments.advance([value["a"]])
    segments.advance([value["s"]])
    assert held(segments) == {"x", "z", "a", "s"}  # inputs are the caller's
    segments.advance([value["r"]])
    assert held(segments) == {"x", "z", "s", "r"}
    segments.advance([value["c"]])
    assert held(segments) == {"x", "z", "r", "c"}  # r waits for the other layer
    segments.advance([value["b"]])
    assert held(segments) == {"x", "z", "r", "c", "b"}
    segments.advance([value["y"]])
    segments.advance([value["y"]])
    assert held(segments) == {"x", "z", "y"}
    with pytest.raises(KeyError):
        segments.values("r")


def test_a_tensor_is_not_kept_for_its_size() -> None:
    proto = EXTRA["sizes"]
    model = load(proto)
    value = {v.name: v for v in values_of(model)}
    segments = Segments(model, batches_of(proto))
    segments.advance([value["h"]])
    segments.advance([value["g"]])
    segments.advance([value["back"]])
    assert not held(segments) & {"h", "f"}


def test_a_weight_may_change_until_its_piece_runs() -> None:
    proto = build(
        "(float[batch, 4] x) => (float[batch, 3] y)",
        "a = MatMul (x, u) r = Relu (a) y = MatMul (r, v)",
        {"u": (4, 5), "v": (5, 3)},
    )
    model, batches = load(proto), batches_of(proto)
    segments = Segments(model, batches)
    value = {v.name: v for v in values_of(model)}
    segments.advance([value["r"]])
    weights = model.ir.graph.initializers
    weights["u"].const_value = ir.Tensor(np.zeros((4, 5), np.float32), name="u")
    new = np.full((5, 3), 2, np.float32)
    weights["v"].const_value = ir.Tensor(new, name="v")
    segments.advance([value["y"]])
    for found, batch in zip(segments.values("y"), batches, strict=True):
        before = np.maximum(batch["x"] @ initializer(proto, "u"), 0)
        np.testing.assert_allclose(found, before @ new, rtol=1e-5, atol=1e-5)


def test_inputs_that_the_model_lacks_are_ignored() -> None:
    proto = NETWORKS["mlp"]()
    model = load(proto)
    batches = [batch | {"labels": np.arange(3)} for batch in batches_of(proto)]
    segments = Segments(model, batches)
    segments.advance(list(model.ir.graph.outputs))
    np.testing.assert_allclose(segments.values("y")[0], run(proto, batches_of(proto)[0])[0], atol=1e-5)


def test_inputs_that_nobody_gives_have_their_default() -> None:
    proto = build(
        "(float[batch, 4] x) => (float[batch, 3] y)", "a = MatMul (x, u) b = MatMul (d, u) y = Add (a, b)",
        {"u": (4, 3), "d": (1, 4)},
    )  # fmt: skip
    proto.graph.input.append(onnx.helper.make_tensor_value_info("d", onnx.TensorProto.FLOAT, (1, 4)))
    model = load(proto)
    given = np.ones((1, 4), np.float32)
    for batch in (feeds(proto, batch=2), {**feeds(proto, batch=2), "d": given}):
        batch = {k: v for k, v in batch.items() if k == "x" or v is given}
        segments = Segments(model, [batch])
        (found,) = segments.values("d")
        np.testing.assert_array_equal(found, batch.get("d", initializer(proto, "d")))
        segments.advance(list(model.ir.graph.outputs))
        np.testing.assert_allclose(segments.values("y")[0], run(proto, batch)[0], rtol=1e-5)


def test_an_output_of_the_model_may_be_asked_for_again() -> None:
    proto = NETWORKS["mlp"]()
    model = load(proto)
    segments = Segments(model, [feeds(proto, batch=2)])
    ends = list(model.ir.graph.outputs)
    segments.advance(ends)
    segments.advance([])
    segments.advance(ends)
    np.testing.assert_allclose(segments.values(ends[0].name or "")[0], run(proto, feeds(proto, batch=2))[0])


def test_what_waits_is_what_has_not_run() -> None:
    proto = NETWORKS["mlp"]()
    model = load(proto)
    segments = Segments(model, batches_of(proto))
    value = {v.name: v for v in values_of(model)}
    assert {n.outputs[0].name for n in segments.pending([value["ar"]])} == {"a", "ab", "ar"}
    segments.advance([value["ab"]])
    assert {n.outputs[0].name for n in segments.pending([value["ar"]])} == {"ar"}
    assert not segments.pending([value["a"]])


def test_a_piece_that_cannot_run_says_where() -> None:
    proto = NETWORKS["other_domain"]()
    proto.graph.node[3].op_type = "NoSuchOperator"
    model = load(proto)
    segments = Segments(model, batches_of(proto))
    with pytest.raises(ModelError, match="can't run a part") as error:
        segments.advance(list(model.ir.graph.outputs))
    assert error.value.exit_code == 1
    assert error.value.where
