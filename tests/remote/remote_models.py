"""Models for other machines, and what is left behind there."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import onnx.parser

from graphprune.profiling.feeds import declared_inputs, describe
from graphprune.profiling.providers import find_provider
from graphprune.profiling.setups import Setup

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
SMALL = HEAD + "m (float[N, 4] x) => (float[N, 4] y) { h = Relu (x) y = Neg (h) }"
SLOW = (
    HEAD + "m (float[300, 300] x) => (float[300, 300] y)"
    "{ a = MatMul (x, x) b = MatMul (a, a) c = MatMul (b, b) y = MatMul (c, c) }"
)


def saved(text: str, path: Path, *, unused: int = 0) -> Path:
    """The model of a text, with so many numbers that nothing compresses."""
    model = onnx.parser.parse_model(text)
    if unused:
        noise = np.random.default_rng(0).standard_normal(unused).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(noise, "unused"))
    onnx.save(model, path)
    return path


def setup_of(model: Path | bytes) -> Setup:
    inputs = describe(declared_inputs(model), 1, None)
    return Setup(model, "cpu", find_provider("cpu"), 1, 1, inputs)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def without_answers(folder: Path) -> list[str]:
    """What is in a folder but for an answer that was just fetched, which goes a moment later."""
    return [name for name in names(folder) if name != "outputs.npz"]


def left(folder: Path) -> list[str]:
    """What is in a folder, once what runs there had time to go."""
    for _ in range(100):
        if not names(folder):
            break
        time.sleep(0.1)
    return names(folder)
