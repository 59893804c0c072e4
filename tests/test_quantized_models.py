"""Models that onnxruntime quantized, through the whole pipeline."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import ml_dtypes
import networks
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

import graphprune as gp
from graphprune.errors import ValidationError
from graphprune.graph import DependencyGraph
from graphprune.oracle import verify
from graphprune.planner import removed_units
from graphprune.quantization import real_weights
from graphprune.rewrite import cut
from graphprune.unrounded import rounds, unrounded

CNN = """
    a = Conv <pads = [1, 1, 1, 1]> (x, stem.w, stem.b) s = Relu (a)
    e = Conv (s, expand.w, expand.b) er = Relu (e)
    d = Conv <group = 24, pads = [1, 1, 1, 1]> (er, dw.w, dw.b) dr = Relu (d)
    p = Conv (dr, project.w, project.b)
    r = Add (s, p)
    m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
    c = Conv <group = 2, pads = [1, 1, 1, 1]> (m, grouped.w, grouped.b) cr = Relu (c)
    g = GlobalAveragePool (cr) f = Flatten (g)
    y = Gemm <transB = 1> (f, head.w, head.b)
"""
CNN_WEIGHTS = {
    "stem.w": (16, 3, 3, 3), "stem.b": (16,), "expand.w": (24, 16, 1, 1), "expand.b": (24,),
    "dw.w": (24, 1, 3, 3), "dw.b": (24,), "project.w": (16, 24, 1, 1), "project.b": (16,),
    "grouped.w": (20, 8, 3, 3), "grouped.b": (20,), "head.w": (5, 20), "head.b": (5,),
}  # fmt: skip


def weights(shapes: dict[str, tuple[int, ...]], out: int) -> dict[str, networks.Array]:
    """Random weights whose channels along axis ``out`` are of different size, as trained ones are."""
    found = {}
    for name, shape in shapes.items():
        array = networks.weight(name, shape)
        if len(shape) > 1:
            sizes = np.random.default_rng(len(name)).lognormal(0, 0.5, shape[out])
            array = array * np.moveaxis(sizes.reshape(-1, *[1] * (len(shape) - 1)), 0, out)
        found[name] = array.astype(np.float32)
    return found


def cnn() -> onnx.ModelProto:
    """Residual, depthwise and grouped convolutions."""
    signature = "(float[batch, 3, 12, 12] x) => (float[batch, 5] y)"
    return networks.build(signature, CNN, weights(CNN_WEIGHTS, 0), opset=21)


def transformer() -> onnx.ModelProto:
    """One block: four heads of eight, and an MLP."""
    heads = "".join(
        f"""{n}m = MatMul (n1, {n}.w) {n}b = Add ({n}m, {n}.b) {n}r = Reshape ({n}b, split)
            {n} = Transpose <perm = [0, 2, 1, 3]> ({n}r)"""
        for n in "qkv"
    )
    body = f"""
        n1 = LayerNormalization (x, norm1.scale, norm1.bias)
        {heads}
        keys = Transpose <perm = [0, 1, 3, 2]> (k)
        scores = MatMul (q, keys) scaled = Div (scores, root) probs = Softmax (scaled)
        mixed = MatMul (probs, v) back = Transpose <perm = [0, 2, 1, 3]> (mixed)
        flat = Reshape (back, merged)
        om = MatMul (flat, o.w) ob = Add (om, o.b) r1 = Add (x, ob)
        n2 = LayerNormalization (r1, norm2.scale, norm2.bias)
        um = MatMul (n2, up.w) ub = Add (um, up.b) u = Relu (ub)
        dm = MatMul (u, down.w) db = Add (dm, down.b)
        y = Add (r1, db)
    """
    shapes = {n: s for p in ("q", "k", "v", "o") for n, s in ((f"{p}.w", (32, 32)), (f"{p}.b", (32,)))}
    shapes |= {"up.w": (32, 48), "up.b": (48,), "down.w": (48, 32), "down.b": (32,)}
    return networks.build(
        "(float[batch, 6, 32] x) => (float[batch, 6, 32] y)",
        body,
        {
            **weights(shapes, 1), "norm1.scale": (32,), "norm1.bias": (32,), "norm2.scale": (32,),
            "norm2.bias": (32,), "split": [0, 0, 4, 8], "merged": [0, 0, 32], "root": 2.8,
        },
        opset=21,
    )  # fmt: skip


class Batches(CalibrationDataReader):
    """A few random batches."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._left = [networks.feeds(model, seed=seed) for seed in range(4)]

    def get_next(self) -> dict[str, networks.Array] | None:
        return self._left.pop() if self._left else None


def static(**options: object) -> Callable[[onnx.ModelProto, str], None]:
    def quantize(model: onnx.ModelProto, path: str) -> None:
        quantize_static(model, path, Batches(model), **options)  # type: ignore[arg-type]

    return quantize


def dynamic(**options: object) -> Callable[[onnx.ModelProto, str], None]:
    def quantize(model: onnx.ModelProto, path: str) -> None:
        quantize_dynamic(model, path, **options)  # type: ignore[arg-type]

    return quantize


UNSIGNED = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QUInt8}
WAYS: dict[str, Callable[[onnx.ModelProto, str], None]] = {
    "qdq": static(),
    "qdq per channel": static(per_channel=True),
    "qdq unsigned": static(**UNSIGNED),
    "operators": static(quant_format=QuantFormat.QOperator),
    "operators unsigned": static(
        quant_format=QuantFormat.QOperator, activation_type=QuantType.QUInt8, per_channel=True
    ),
    "dynamic": dynamic(),
    "dynamic per channel": dynamic(per_channel=True),
    "dynamic unsigned": dynamic(weight_type=QuantType.QUInt8),
}


@cache
def quantized(network: str, way: str) -> onnx.ModelProto:
    model = {"cnn": cnn, "transformer": transformer}[network]()
    with TemporaryDirectory() as folder:
        path = str(Path(folder) / "quantized.onnx")
        WAYS[way](model, path)
        return onnx.load(path)


NETWORKS = {"cnn": cnn, "transformer": transformer}
EVERY = pytest.mark.parametrize(("network", "way"), [(n, w) for n in NETWORKS for w in WAYS])
KINDS = ["channels", "heads", "head_dim", "conv_groups"]


@cache
def graph_of(network: str, way: str = "") -> DependencyGraph:
    """Of a quantized network, or of the original; shared, since nobody may change it."""
    return gp.analyze(gp.load(quantized(network, way) if way else NETWORKS[network]()))


def plain(name: str) -> str:
    """The original's name of a weight."""
    return name.removesuffix("_quantized").removesuffix("_Transposed")


def groups(graph: DependencyGraph) -> set[tuple[str, int, frozenset[str]]]:
    """Prunable groups: kind, size, and the weight matrices that they go through."""
    found = set()
    for group in graph.groups:
        if group.prunable and group.kind in KINDS:
            matrices = frozenset(plain(m.name) for m in group.members if plain(m.name).endswith(".w"))
            assert group.exact
            found.add((group.kind, group.size, matrices))
    return found


@EVERY
def test_groups_are_those_of_the_original(network: str, way: str) -> None:
    found = groups(graph_of(network, way))
    assert found == groups(graph_of(network))
    assert len(found) == 4


@EVERY
def test_multiply_adds_are_those_of_the_original(network: str, way: str) -> None:
    original, found = graph_of(network).cost.evaluate(), graph_of(network, way).cost.evaluate()
    assert found.macs == original.macs
    assert found.bytes < original.bytes


@EVERY
def test_weights_are_scored_as_the_numbers_they_stand_for(network: str, way: str) -> None:
    original = NETWORKS[network]()
    for use in graph_of(network, way).analysis.uses.values():
        name, tensor = plain(use.value.name or ""), use.value.const_value
        if not name.endswith((".w", ".b")) or tensor is None or tensor.dtype.is_floating_point():
            continue
        real = real_weights(use.node, use.index, tensor.numpy())
        expected = networks.initializer(original, name)
        assert real is not None
        expected = expected if expected.shape == real.shape else expected.T
        assert np.abs(real - expected).max() < 0.01 * np.abs(expected).max()


@EVERY
def test_pruned_and_verified(network: str, way: str) -> None:
    model = quantized(network, way)
    result = gp.prune(model, target={"macs": 0.6}, criterion="l2")
    ratio = result.after.ratio(result.before)
    assert 0.5 < ratio["macs"] <= 0.6
    assert ratio["params"] < 0.75
    assert result.verdict is not None
    assert result.verdict.exact
    assert result.verdict.max_error <= 1e-4 * result.verdict.scale
    pruned = result.model.to_proto()
    assert all(np.isfinite(out).all() for out in networks.run(pruned, networks.feeds(model)))
    # Quantized weights and biases stay quantized: nothing is folded to floating point.
    assert numbers(pruned) == numbers(model)
    assert sum("Dequantize" in n.op_type for n in pruned.graph.node) == sum(
        "Dequantize" in n.op_type for n in model.graph.node
    )


def numbers(model: onnx.ModelProto) -> set[tuple[str, int]]:
    """Names of the weights and biases, with their types."""
    return {(t.name, t.data_type) for t in model.graph.initializer if t.name.endswith("_quantized")}


@EVERY
def test_ranking_is_that_of_the_original(network: str, way: str) -> None:
    def kept(graph: DependencyGraph) -> dict[tuple[str, int], set[int]]:
        decision = gp.plan(graph, target={"macs": 0.6}, criterion="l2", kinds=KINDS)
        return {(plain(p.name), p.axis): set(p.keep) for p in decision.parameters}

    original, found = kept(graph_of(network)), kept(graph_of(network, way))
    matrices = [key for key in original if key[0].endswith(".w") and key in found]
    assert len(matrices) >= 6
    total = sum(len(original[key]) for key in matrices)
    common = sum(len(original[key] & found[key]) for key in matrices)
    assert common >= 0.95 * total


@EVERY
def test_without_rounding_it_is_nearly_the_same(network: str, way: str) -> None:
    model = gp.load(quantized(network, way))
    assert rounds(model)
    smooth = unrounded(model)
    if way.startswith("operators"):
        assert smooth is None  # its operators take integers only
        return
    assert smooth is not None
    inputs = networks.feeds(quantized(network, way))
    expected, found = (networks.run(m.to_proto(), inputs)[0] for m in (model, smooth))
    error = np.abs(expected - found).max() / np.abs(expected).max()
    assert 1e-4 < error < 0.1


@pytest.mark.parametrize(
    ("network", "way", "layer"),
    [
        ("cnn", "qdq per channel", "expand"),
        ("cnn", "operators unsigned", "expand"),
        ("transformer", "dynamic per channel", "up"),
    ],
)
def test_a_scale_in_the_wrong_place_is_noticed(network: str, way: str, layer: str) -> None:
    graph = graph_of(network, way)
    removed = removed_units(graph, gp.plan(graph, target={"macs": 0.6}, criterion="l2"))
    pruned = cut(graph.analysis, removed)
    verify(graph.analysis, removed, pruned)
    proto = pruned.to_proto()
    scale = next(t for t in proto.graph.initializer if t.name.startswith(f"{layer}.w_scale"))
    scales = numpy_helper.to_array(scale)
    assert scales.size > 4
    scale.CopyFrom(numpy_helper.from_array(np.roll(scales, 1), scale.name))
    with pytest.raises(ValidationError, match="differs from the masked original"):
        verify(graph.analysis, removed, gp.load(proto))


def test_weights_of_four_bits_lose_whole_blocks() -> None:
    nibbles = np.random.default_rng(0).integers(-8, 8, (32, 12)).astype(ml_dtypes.int4)
    model = networks.build(
        "(float[batch, 6] x) => (float[batch, 12] y)",
        """
        h = MatMul (x, up.w) r = Relu (h)
        w = DequantizeLinear <axis = 0, block_size = 8> (down.w, down.scale)
        y = MatMul (r, w)
        """,
        {"up.w": (6, 32), "down.w": nibbles, "down.scale": np.full((4, 12), 0.1, np.float32)},
        opset=21,
    )
    found = [g for g in gp.analyze(gp.load(model)).groups if g.prunable]
    assert [(g.kind, g.size) for g in found] == [("channels", 4)]
    result = gp.prune(model, target={"macs": 0.6}, criterion="l2")
    assert result.after.ratio(result.before)["macs"] == 0.5
    kept = {p.name: p.keep for p in result.plan.parameters}
    assert len(kept["down.w"]) == 16
    assert len(kept["down.scale"]) == 2
    weight = next(t for t in result.model.to_proto().graph.initializer if t.name == "down.w")
    assert weight.data_type == onnx.TensorProto.INT4


def test_a_last_block_that_is_not_full_stays() -> None:
    rng = np.random.default_rng(0)
    model = networks.build(
        "(float[batch, 6] x) => (float[batch, 12] y)",
        """
        h = MatMul (x, up.w) r = Relu (h)
        w = DequantizeLinear <axis = 0, block_size = 9> (down.w, down.scale)
        y = MatMul (r, w)
        """,
        {
            "up.w": (6, 32), "down.w": rng.integers(-99, 99, (32, 12)).astype(np.int8),
            "down.scale": np.full((4, 12), 0.1, np.float32),
        },
        opset=21,
    )  # fmt: skip
    assert [g.size for g in gp.analyze(gp.load(model)).groups if g.prunable] == [3]
    result = gp.prune(model, target={"macs": 0.5}, criterion="l2")
    kept = {p.name: p.keep for p in result.plan.parameters}
    assert set(range(27, 32)) <= set(kept["down.w"])
    assert len(kept["down.w"]) == 14
    assert kept["down.scale"][-1] == 3
    assert result.verdict is not None
    assert result.verdict.exact


def test_scales_that_do_not_fit_their_positions_say_so() -> None:
    model = networks.build(
        "(float[batch, 6] x) => (float[batch, 12] y)",
        """
        h = MatMul (x, up.w) r = Relu (h)
        w = DequantizeLinear <axis = 0, block_size = 9> (down.w, down.scale)
        y = MatMul (r, w)
        """,
        {
            "up.w": (6, 32), "down.w": np.ones((32, 12), np.int8),
            "down.scale": np.full((2, 12), 0.1, np.float32),
        },
        opset=21,
    )  # fmt: skip
    reasons = [g.reason or "" for g in gp.analyze(gp.load(model)).groups if not g.prunable]
    assert any("2 blocks of 9 are not its 32 positions" in reason for reason in reasons)
