"""Small networks with samples, for criteria."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from networks import build, feeds, initializer, replace

from graphprune.calibration.evidence import Evidence
from graphprune.graph import analyze
from graphprune.groups import Group
from graphprune.model import load

Array = npt.NDArray[np.floating[Any]]
#: Biases that leave every channel alive behind a ReLU.
SMALL = np.linspace(-0.2, 0.3, 8, dtype=np.float32)


def two_layers(**weights: Any) -> onnx.ModelProto:
    """A hidden layer of 8 behind a ReLU; what is given replaces the random weights."""
    body = "h = Gemm (x, a.w, a.b) r = Relu (h) y = MatMul (r, b.w)"
    shapes = {"a.w": (6, 8), "a.b": SMALL, "b.w": (8, 3)}
    given = {name.replace("_", "."): array for name, array in weights.items()}
    return build("(float[batch, 6] x) => (float[batch, 3] y)", body, {**shapes, **given})


def two_readers() -> onnx.ModelProto:
    """A hidden layer that two layers read, each with an output of its own."""
    body = "h = MatMul (x, a.w) r = Relu (h) y = MatMul (r, b.w) z = MatMul (r, c.w)"
    weights = {"a.w": (6, 8), "b.w": (8, 3), "c.w": (8, 5)}
    return build("(float[batch, 6] x) => (float[batch, 3] y, float[batch, 5] z)", body, weights)


def two_convolutions(groups: int = 1) -> onnx.ModelProto:
    """A convolution of 8 channels that a second one reads; zeros around the image."""
    body = f"""
        h = Conv <pads = [1, 1, 1, 1]> (x, a.w, a.b) r = Relu (h)
        y = Conv <pads = [1, 1, 1, 1], group = {groups}> (r, b.w)"""
    weights = {"a.w": (8, 3, 3, 3), "a.b": SMALL, "b.w": (6, 8 // groups, 3, 3)}
    return build("(float[batch, 3, 5, 5] x) => (float[batch, 6, 5, 5] y)", body, weights)


def two_branches() -> onnx.ModelProto:
    """Two residual branches of one stream."""
    body = """
        h = MatMul (x, a.up) r = Relu (h) s = MatMul (r, a.down) t = Add (x, s)
        i = MatMul (t, b.up) q = Relu (i) u = MatMul (q, b.down) y = Add (t, u)"""
    weights = {"a.up": (6, 8), "a.down": (8, 6), "b.up": (6, 10), "b.down": (10, 6)}
    return build("(float[batch, 6] x) => (float[batch, 6] y)", body, weights)


def evidence_of(model: onnx.ModelProto, samples: int = 64, **options: int) -> Evidence:
    """With random samples."""
    return Evidence(analyze(load(model)), feeds(model, batch=samples, **options))


def group_of(evidence: Evidence, name: str) -> Group:
    """The group that holds this member, as ``"a.w:1"``."""
    return next(g for g in evidence.graph.groups if any(f"{m.name}:{m.axis}" == name for m in g.members))


def changed(model: onnx.ModelProto, name: str, at: Any, value: Any) -> onnx.ModelProto:
    """The same model with other numbers at some places of an initializer; changed in place."""
    array = initializer(model, name).copy()
    array[at] = value
    replace(model, name, array)
    return model


def hidden(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> Array:
    """What the second of two dense layers reads, in double precision."""
    made = inputs["x"].astype(np.float64) @ initializer(model, "a.w").astype(np.float64)
    if any(t.name == "a.b" for t in model.graph.initializer):
        made = made + initializer(model, "a.b")
    return np.maximum(made, 0.0)


def windows(channels: Array) -> Array:
    """``[n, channels, 9]`` windows of 3x3 around every pixel, zeros outside."""
    padded = np.pad(channels, [(0, 0), (0, 0), (1, 1), (1, 1)])
    rows, columns = channels.shape[2:]
    stacked = [padded[:, :, i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
    return np.stack(stacked, axis=-1).transpose(0, 2, 3, 1, 4).reshape(-1, channels.shape[1], 9)
