"""Which nodes of the file a fused node computes, against what onnxruntime really makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from graphprune.profiling.feeds import declared_inputs, describe
from graphprune.profiling.local import LocalBench
from graphprune.profiling.origins import Origins
from graphprune.profiling.providers import find_provider
from graphprune.profiling.setups import Setup

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
RESIDUAL = (
    HEAD
    + """
m (float[1, 16, 8, 8] x) => (float[1, 16] y) <float[16, 16, 3, 3] w1, float[16, 16, 3, 3] w2>
{ a = Conv<pads: ints = [1, 1, 1, 1]> (x, w1) b = Relu (a) c = Conv<pads: ints = [1, 1, 1, 1]> (b, w2)
  d = Add (c, b) e = Relu (d) p = GlobalAveragePool (e) y = Flatten (p) }"""
)
BRANCH = (
    HEAD
    + """
m (float[4] x, bool c) => (float[4] y)
{ y = If (c) <then_branch = t () => (float[4] u) { u = Exp (x) },
               else_branch = e () => (float[4] v) { v = Neg (x) }> }"""
)


def measured(text: str, path: Path) -> tuple[Origins, Origins, list[str]]:
    """The origins with and without the fused graph, and the names of its nodes."""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for value in model.graph.value_info:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        weight = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, value.name))
    del model.graph.value_info[:]
    onnx.save(model, path)
    setup = Setup(path, "cpu", find_provider("cpu"), 1, 1, describe(declared_inputs(path), 1, None))
    nodes, optimized = LocalBench().trace(setup, 0.01)
    assert optimized is not None
    assert len(optimized) < 6000  # weights are not in it
    return Origins(path, optimized), Origins(path, None), [node["name"] for node in nodes]


def test_every_node_is_found_once(tmp_path: Path) -> None:
    origins, _, names = measured(RESIDUAL, tmp_path / "m.onnx")
    found = sorted(origin for name in names for origin in origins.of(name))
    assert found == sorted("abcdepy")
    together = {origins.of(name) for name in names}
    assert any({"a", "b"} <= set(group) for group in together)
    assert any({"c", "d", "e"} <= set(group) for group in together)


def test_names_alone_tell_less_but_nothing_wrong(tmp_path: Path) -> None:
    origins, alone, names = measured(RESIDUAL, tmp_path / "m.onnx")
    for name in names:
        assert set(alone.of(name)) <= set(origins.of(name))
    assert any(alone.of(name) for name in names)


def test_nodes_in_bodies(tmp_path: Path) -> None:
    origins, _, names = measured(BRANCH, tmp_path / "m.onnx")
    assert {origins.of(name) for name in names} >= {("y",)}


@pytest.mark.parametrize(
    ("layer", "expected"), [("a + b", ("a", "b")), ("PWN(PWN(e))", ("e",)), ("Reformatting", ())]
)
def test_layers_of_tensorrt(tmp_path: Path, layer: str, expected: tuple[str, ...]) -> None:
    _, alone, _ = measured(RESIDUAL, tmp_path / "m.onnx")
    assert alone.of(layer) == expected
