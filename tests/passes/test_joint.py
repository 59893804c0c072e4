"""A hidden width's layers are solved together: what one can't make up for, both can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from graphprune.passes.compensators import joint
from graphprune.passes.compensators.sequential import Sequential
from networks import NETWORKS, build, feeds, initializer, run

import graphprune as gp
from graphprune.calibration.evidence import Evidence
from graphprune.rewrite import cut

Array = npt.NDArray[Any]
#: How far the filters that stay are from those that do the work.
APART = 0.6
DENSE = "(float[batch, 6] x) => (float[batch, 5] y)"
IMAGES = "(float[batch, 3, 7, 7] x) => (float[batch, 5, 7, 7] y)"
SEQUENCE = "(float[batch, 20, 6] x) => (float[batch, 20, 5] y)"
PAD = "pads = [1, 1, 1, 1]"


def twice(*shape: int, seed: int = 0) -> Array:
    """Filters ``[8, ...]``: the last four are near the first four."""
    rng = np.random.default_rng([seed, *shape])
    first, noise = rng.standard_normal((2, 4, *shape)) / np.sqrt(np.prod(shape))
    return np.concatenate([first, first + APART * noise]).astype(np.float32)


def read(made: int, *kernel: int) -> Array:
    """Weights ``[made, 8, ...]`` that only the first four filters reach."""
    found = np.random.default_rng(made).standard_normal((made, 8, *kernel))
    found[:, 4:] = 0.0
    return found.astype(np.float32)


def dense(activation: str, seed: int = 0) -> onnx.ModelProto:
    return build(
        DENSE, f"h = Gemm (x, u, a) r = {activation} (h) y = Gemm (r, v, b)",
        {"u": twice(6, seed=seed).T.copy(), "a": (8,), "v": read(5).T.copy(), "b": (5,)},
    )  # fmt: skip


def gated() -> onnx.ModelProto:
    return build(
        DENSE,
        "h = MatMul (x, u) g = MatMul (x, w) s = Sigmoid (g) t = Mul (g, s) r = Mul (t, h) y = MatMul (r, v)",
        {"u": twice(6).T.copy(), "w": twice(6, seed=1).T.copy(), "v": read(5).T.copy()},
    )


def images(
    kernel: int = 3, attributes: str = PAD, body: str = "r = Relu (h)", **more: Any
) -> onnx.ModelProto:
    signature = IMAGES if attributes == PAD else IMAGES.replace("5, 7, 7]", "5, a, b]")
    return build(
        signature, f"h = Conv <{PAD}> (x, u, c) {body} y = Conv <{attributes}> (r, v)",
        {"u": twice(3, 3, 3), "c": (8,), "v": read(5, kernel, kernel), **more},
    )  # fmt: skip


def pointwise() -> onnx.ModelProto:
    """So many positions that not all are looked at."""
    return build(
        "(float[batch, 6, 24, 24] x) => (float[batch, 5, 24, 24] y)",
        "h = Conv (x, u, c) r = Relu (h) y = Conv (r, v)",
        {"u": twice(6, 1, 1), "c": (8,), "v": read(5, 1, 1)},
    )  # fmt: skip


def turned() -> onnx.ModelProto:
    """A weight on the left makes what a convolution reads."""
    return build(
        "(float[batch, 6, 12] x) => (float[batch, 5, 12] y)",
        "h = MatMul (u, x) r = Relu (h) y = Conv <pads = [1, 1]> (r, v)",
        {"u": twice(6), "v": read(5, 3)},
    )


def normed() -> onnx.ModelProto:
    norm = {"s": np.ones(8), "o": np.full(8, 0.1), "m": np.zeros(8), "d": np.ones(8)}
    constants = {name: array.astype(np.float32) for name, array in norm.items()}
    return images(body="n = BatchNormalization (h, s, o, m, d) r = Relu (n)", **constants)


PLANTED: dict[str, Callable[[], onnx.ModelProto]] = {
    "relu": lambda: dense("Relu"),
    "tanh": lambda: dense("Tanh"),
    "gated": gated,
    "windows": images,
    "strided": lambda: images(attributes="strides = [2, 2], pads = [0, 1, 1, 0]"),
    "dilated": lambda: images(attributes="dilations = [2, 2], pads = [2, 2, 2, 2]"),
    "norm": normed,
    "pointwise": pointwise,
    "turned": turned,
}


class Cut:
    """A model without the first units of its hidden width.

    Args:
        model: whose width the producer of ``u`` makes.
        data: samples.
        units: of the width that go.
    """

    def __init__(
        self, model: onnx.ModelProto, data: dict[str, Array], units: tuple[int, ...] = (0, 1, 2, 3)
    ) -> None:
        self.evidence = Evidence(gp.analyze(model), data)
        (group,) = (
            g for g in self.evidence.graph.groups if any(m.name == "v" for m in g.members) and g.prunable
        )
        self.removed = np.zeros(len(self.evidence.graph.analysis.algebra), bool)
        self.removed[group.units[list(units)]] = True

    def solved(self, *, joint: bool, grows: bool = True) -> onnx.ModelProto:
        pruned = cut(self.evidence.graph.analysis, self.removed)
        proto: onnx.ModelProto = Sequential(joint=joint, grows=grows)(
            self.evidence, self.removed, pruned
        ).to_proto()
        onnx.checker.check_model(proto, full_check=True)
        return proto


def error(model: onnx.ModelProto, found: onnx.ModelProto, inputs: dict[str, Array]) -> float:
    """Relative squared error of the first output."""
    wanted, made = run(model, inputs)[0].astype(np.float64), run(found, inputs)[0]
    return float(np.square(wanted - made).mean() / wanted.var())


@pytest.mark.parametrize("name", PLANTED)
def test_other_filters_do_the_work_of_those_that_went(name: str) -> None:
    model = PLANTED[name]()
    small = name not in ("pointwise", "windows", "strided", "dilated", "norm")
    task = Cut(model, feeds(model, batch=600 if small else 120))
    one, both = (task.solved(joint=joint) for joint in (False, True))
    fresh = feeds(model, batch=100, seed=5)
    assert error(model, one, fresh) > 1e-3  # there is something to gain
    assert error(model, both, fresh) < error(model, one, fresh) / 3


def weights(model: onnx.ModelProto) -> dict[str, bytes]:
    return {t.name: onnx.numpy_helper.to_array(t).tobytes() for t in model.graph.initializer}


def test_it_is_the_same_each_time() -> None:
    for make in (gated, images, pointwise):
        model = make()
        data = feeds(model, batch=60)
        a, b = (weights(Cut(model, data).solved(joint=True)) for _ in range(2))
        assert a == b


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("samples", [50, 150])
def test_samples_held_out_are_no_worse_off(samples: int, seed: int) -> None:
    """A random network has nothing to find; with few samples there is much to fit by chance."""
    wide = np.random.default_rng(seed).standard_normal((20, 16)).astype(np.float32)
    model = build(
        "(float[batch, 20] x) => (float[batch, 4] y)", "h = Gemm (x, u, a) r = Relu (h) y = Gemm (r, v, b)",
        {"u": wide, "a": (16,), "v": (16, 4), "b": (4,)},
    )  # fmt: skip
    task = Cut(model, feeds(model, batch=samples, seed=seed), tuple(range(6)))
    held = [b for b, is_held in zip(task.evidence.batches, task.evidence.held_out, strict=True) if is_held]
    inputs: dict[str, Array] = {"x": np.concatenate([np.asarray(batch["x"]) for batch in held])}
    one, both = (error(model, task.solved(joint=joint), inputs) for joint in (False, True))
    assert both <= 1.01 * one


def test_few_samples_change_nothing() -> None:
    """None of them is held out, so nobody could say when to stop."""
    model = dense("Relu")
    task = Cut(model, feeds(model, batch=5))
    assert weights(task.solved(joint=True)) == weights(task.solved(joint=False))


def test_half_precision_is_left_alone() -> None:
    single = dense("Relu")
    model = build(
        DENSE.replace("float[", "float16["), "h = Gemm (x, u, a) r = Relu (h) y = Gemm (r, v, b)",
        {n: initializer(single, n).astype(np.float16) for n in ("u", "a", "v", "b")},
    )  # fmt: skip
    task = Cut(model, feeds(model, batch=300))
    assert weights(task.solved(joint=True)) == weights(task.solved(joint=False))


@pytest.mark.filterwarnings("error")
def test_a_sample_that_overflows_says_nothing() -> None:
    model = dense("Relu")
    data = feeds(model, batch=600)
    data["x"][3] = 1e30
    task = Cut(model, data)
    one, both = (
        error(model, task.solved(joint=joint), feeds(model, batch=100, seed=5)) for joint in (False, True)
    )
    assert both < one / 3


def test_layers_before_the_width_keep_their_numbers() -> None:
    """Those that make it change, and those that are not reached get no bias."""
    model = build(
        "(float[batch, 6] x) => (float[batch, 5] y)",
        "k = MatMul (x, z) q = Tanh (k) h = MatMul (q, u) r = Relu (h) y = MatMul (r, v)",
        {"z": (6, 6), "u": twice(6).T.copy(), "v": read(5).T.copy()},
    )
    found = Cut(model, feeds(model, batch=600)).solved(joint=True)
    assert np.array_equal(initializer(found, "z"), initializer(model, "z"))
    assert not np.array_equal(initializer(found, "u"), initializer(model, "u")[:, 4:])
    convolutions = images()
    node = convolutions.graph.node[0]
    del node.input[2:]
    del convolutions.graph.initializer[1]
    found = Cut(convolutions, feeds(convolutions, batch=60)).solved(joint=True)
    first, last = (n for n in found.graph.node if n.op_type == "Conv")
    assert len(first.input) == 2  # no room was counted for it
    assert len(last.input) == 3
    found = Cut(convolutions, feeds(convolutions, batch=60)).solved(joint=True, grows=False)
    assert all(len(n.input) == 2 for n in found.graph.node if n.op_type == "Conv")


def test_two_layers_that_are_added_up() -> None:
    """As in a recurrent cell: the second was solved for the first one's output, which can't change then."""
    model = build(
        "(float[batch, 6] x, float[batch, 6] z) => (float[batch, 5] y)",
        "k = MatMul (x, w) q = Relu (k) p = MatMul (q, u) i = MatMul (z, t) h = Add (p, i) r = Tanh (h) "
        "y = MatMul (r, v)",
        {"w": (6, 6), "u": twice(6).T.copy(), "t": twice(6, seed=1).T.copy(), "v": read(5).T.copy()},
    )
    task = Cut(model, feeds(model, batch=300))
    assert weights(task.solved(joint=True)) == weights(task.solved(joint=False))


@pytest.mark.parametrize("samples", [4, 60])
def test_two_outputs_side_by_side(samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one was compared with is asked for again behind the other's layers, when nothing was changed."""
    monkeypatch.setattr(joint, "_WORTH_IT", 1.0)
    model = build(
        DENSE.replace("5] y", "5] y, float[batch, 5] q"),
        "h = MatMul (x, u) g = MatMul (x, w) r = Relu (h) s = Relu (g) y = MatMul (r, v) q = MatMul (s, t)",
        {"u": twice(6).T.copy(), "w": twice(6, seed=1).T.copy(), "v": read(5).T.copy(), "t": (8, 5)},
    )
    task = Cut(model, feeds(model, batch=samples))
    assert weights(task.solved(joint=True)) == weights(task.solved(joint=False))


def test_a_layer_may_read_an_input_that_has_a_default() -> None:
    model = build(
        "(float[1, 9, 6] x) => (float[1, 9, 5] y)",
        "h = MatMul (x, u) g = MatMul (d, w) r = Relu (h) q = Mul (r, g) y = MatMul (q, v)",
        {"u": twice(6).T.copy(), "w": (6, 8), "v": read(5).T.copy(), "d": (1, 9, 6)},
    )
    model.graph.input.append(onnx.helper.make_tensor_value_info("d", onnx.TensorProto.FLOAT, (1, 9, 6)))
    data = {"x": np.random.default_rng(0).standard_normal((40, 9, 6)).astype(np.float32)}
    task = Cut(model, data)
    assert weights(task.solved(joint=True)) != weights(task.solved(joint=False))


def test_a_vector_has_no_rows() -> None:
    """Its only axis is that of the features."""
    model = build(
        "(float[6] x) => (float[5] y)", "h = MatMul (x, u) r = Relu (h) y = MatMul (r, v)",
        {"u": twice(6).T.copy(), "v": read(5).T.copy()},
    )  # fmt: skip
    data = {"x": np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)}
    task = Cut(model, data)
    assert weights(task.solved(joint=True)) == weights(task.solved(joint=False))


@pytest.mark.parametrize("folded", [False, True])
def test_rows_that_are_kept_are_bounded(folded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sample is one row, or, with its positions folded into the first axis, many."""
    monkeypatch.setattr(joint, "BYTES", 1 << 14)
    seen: list[int] = []
    fit = joint.Fit.run
    monkeypatch.setattr(joint.Fit, "run", lambda self: (seen.append(len(self.fitted.wanted)), fit(self))[1])
    body = "h = Gemm (f, u) r = Relu (h) k = Gemm (r, v)"
    constants: dict[str, Any] = {"u": twice(6).T.copy(), "v": read(5).T.copy()}
    if folded:
        constants |= {"flat": np.array([-1, 6]), "back": np.array([-1, 20, 5])}
        signature, body = SEQUENCE, f"f = Reshape (x, flat) {body} y = Reshape (k, back)"
    else:
        signature, body = DENSE, f"f = Neg (x) {body} y = Neg (k)"
    model = build(signature, body, constants)
    Cut(model, feeds(model, batch=40 if folded else 800)).solved(joint=True)
    assert seen
    assert max(seen) < 200


@pytest.mark.parametrize("name", ["mlp", "cnn", "gated_mlp"])
def test_whole_networks_come_closer(name: str) -> None:
    model = NETWORKS[name]()
    result = gp.prune(model, target={"macs": 0.6}, calibration=feeds(model, batch=100), compensator="joint")
    assert result.plan.options["compensator"] == "joint"
    assert result.output_errors is not None
    assert result.output_errors[1] < result.output_errors[0]
