"""One network in numbers, and what graphprune must make of it whatever framework it comes from.

Every framework's test writes these arrays into a network of its own, converts it, and compares groups,
kept channels and pruned outputs with those of the same network written down in ONNX by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

import graphprune as gp

Array = np.ndarray
EPSILON = 1e-3
SAMPLES = 5


@dataclass(frozen=True)
class Convolution:
    """A kernel ``[out, in, 3, 3]`` (padded by one, no bias) and the normalisation behind it."""

    kernel: Array
    gamma: Array
    beta: Array
    mean: Array
    variance: Array


@dataclass(frozen=True)
class Record:
    """What is compared.

    Attributes:
        groups: by size: kind, exactness, and the shapes (sorted) of the weights that the width runs through.
        kept: by size: the positions that stay.
        outputs: of the pruned model.
    """

    groups: dict[int, tuple[str, bool, tuple[tuple[int, ...], ...]]]
    kept: dict[int, list[int]]
    outputs: Array


def _strengths(rng: np.random.Generator, size: int) -> Array:
    """Clearly different magnitudes in random order, so that rounding or folding never turns a ranking."""
    return rng.permutation(np.geomspace(0.4, 2.5, size)).astype(np.float32)


@cache
def dense_layers() -> tuple[tuple[Array, Array], ...]:
    """``(weight [in, out], bias)`` of 6 -> 16 -> 12 -> 4."""
    rng = np.random.default_rng(0)
    layers, sizes = [], (6, 16, 12, 4)
    before = np.ones(6, np.float32)
    for i, size in enumerate(sizes[1:]):
        after = _strengths(rng, size) if size != 4 else np.ones(4, np.float32)
        weight = rng.standard_normal((sizes[i], size)) / np.sqrt(sizes[i]) * before[:, None] * after
        layers.append(
            (weight.astype(np.float32), (0.1 * after * rng.standard_normal(size)).astype(np.float32))
        )
        before = after
    return tuple(layers)


@cache
def image_layers() -> tuple[tuple[Convolution, ...], tuple[Array, Array]]:
    """3 -> 10, a residual branch 10 -> 14 -> 10, 10 -> 12 and a classifier ``[12, 4]``."""
    rng = np.random.default_rng(1)
    strengths = {3: np.ones(3, np.float32), **{n: _strengths(rng, n) for n in (10, 14, 12)}}
    convolutions = []
    for before, after in ((3, 10), (10, 14), (14, 10), (10, 12)):
        scale = strengths[after][:, None, None, None] * strengths[before][:, None, None]
        kernel = rng.standard_normal((after, before, 3, 3)) * scale / np.sqrt(9 * before)
        small = 0.1 * strengths[after] * rng.standard_normal((2, after))
        gamma, variance = strengths[after] * rng.uniform(0.9, 1.1, after), rng.uniform(0.9, 1.1, after)
        arrays = (kernel, gamma, small[0], small[1], variance)
        convolutions.append(Convolution(*(a.astype(np.float32) for a in arrays)))
    head = rng.standard_normal((12, 4)) * strengths[12][:, None] / np.sqrt(12)
    return tuple(convolutions), (head.astype(np.float32), (0.1 * rng.standard_normal(4)).astype(np.float32))


def rows() -> Array:
    """Inputs of the dense network."""
    return np.random.default_rng(2).standard_normal((SAMPLES, 6)).astype(np.float32)


def images() -> Array:
    """Inputs of the convolutional network, channels first."""
    return np.random.default_rng(3).standard_normal((SAMPLES, 3, 8, 8)).astype(np.float32)


class _Graph:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, op: str, *inputs: str | Array, **attributes: Any) -> str:
        names = []
        for value in inputs:
            if not isinstance(value, str):
                self.constants.append(numpy_helper.from_array(value, f"c{len(self.constants)}"))
                value = self.constants[-1].name
            names.append(value)
        self.nodes.append(helper.make_node(op, names, [f"v{len(self.nodes)}"], **attributes))
        return str(self.nodes[-1].output[0])

    def model(self, shape: list[int | str], result: str) -> onnx.ModelProto:
        self.nodes[-1].output[0] = "y"
        x = helper.make_tensor_value_info("x", 1, shape)
        y = helper.make_tensor_value_info("y", 1, ["batch", 4])
        graph = helper.make_graph(self.nodes, "same", [x], [y], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def dense_model() -> onnx.ModelProto:
    graph, h = _Graph(), "x"
    for i, (weight, bias) in enumerate(dense_layers()):
        h = graph.add("Gemm", h, weight, bias)
        if i < 2:
            h = graph.add("Relu", h)
    return graph.model(["batch", 6], h)


def image_model(*, folded: bool) -> onnx.ModelProto:
    """With each normalisation as a node, or within its convolution."""
    graph = _Graph()
    convolutions, (head, bias) = image_layers()

    def layer(x: str, c: Convolution) -> str:
        if folded:
            scale = c.gamma / np.sqrt(c.variance + EPSILON)
            return graph.add(
                "Conv", x, c.kernel * scale[:, None, None, None], c.beta - c.mean * scale, pads=[1] * 4
            )
        h = graph.add("Conv", x, c.kernel, pads=[1] * 4)
        return graph.add("BatchNormalization", h, c.gamma, c.beta, c.mean, c.variance, epsilon=EPSILON)

    stem = graph.add("Relu", layer("x", convolutions[0]))
    branch = layer(graph.add("Relu", layer(stem, convolutions[1])), convolutions[2])
    h = graph.add(
        "MaxPool", graph.add("Relu", graph.add("Add", stem, branch)), kernel_shape=[2, 2], strides=[2, 2]
    )
    h = graph.add("ReduceMean", graph.add("Relu", layer(h, convolutions[3])), np.array([2, 3]), keepdims=0)
    return graph.model(["batch", 3, 8, 8], graph.add("Gemm", h, head, bias))


def record(source: onnx.ModelProto | Path, inputs: Array, output: int = 0) -> Record:
    """Groups of a model, and its cut to half its multiply-adds by the L2 norm."""
    graph = gp.analyze(gp.load(source))
    constants = graph.model.ir.graph.initializers
    groups = {}
    for group in graph.groups:
        if not group.prunable or group.kind == "blocks":
            continue
        shapes = [tuple(constants[member.name].const_value.shape.numpy()) for member in group.members]
        weights = sorted(tuple(sorted(s)) for s in shapes if sum(size > 1 for size in s) > 1)
        assert group.size not in groups, "every width is met once"
        groups[group.size] = (group.kind, group.exact, tuple(weights))
    result = gp.prune(source, target={"macs": 0.5}, criterion="l2", allocator="uniform", compensator="none")
    assert result.verdict is not None, "the masking oracle has run"
    pruned = result.model.to_proto().SerializeToString()
    session = ort.InferenceSession(pruned, providers=["CPUExecutionProvider"])
    outputs = session.run(None, {session.get_inputs()[0].name: inputs})
    return Record(groups, {g.size: g.keep for g in result.plan.groups}, outputs[output])


@cache
def expected_dense() -> Record:
    return record(dense_model(), rows())


@cache
def expected_image() -> Record:
    return record(image_model(folded=False), images())


def assert_same(found: Record, expected: Record) -> None:
    assert found.groups == expected.groups
    assert found.kept == expected.kept
    scale = np.abs(expected.outputs).max()
    np.testing.assert_allclose(found.outputs, expected.outputs, rtol=0, atol=1e-5 * scale)
