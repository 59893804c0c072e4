"""The module around the interpreter: names, trainable constants, types, write-back, errors."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from graphprune.converters import to_torch
from graphprune.models import demo_model_path
from networks import NETWORKS
from onnx import numpy_helper

import graphprune as gp
from graphprune.errors import ModelError, UsageError

pytestmark = pytest.mark.torch

MERGED = """
<ir_version: 10, opset_import: ["" : 18]>
g (float[n, 4] x) => (float[n, 4] y) {
  a = MatMul(x, w)
  b = LayerNormalization(a, ones, zeros)
  c = MatMul(b, w)
  d = LayerNormalization(c, ones, zeros)
  e = Div(d, root)
  f = Add(e, mask)
  y = Softmax(f)
}"""


def merged() -> onnx.ModelProto:
    """Two norms that share their vectors, a tied matrix, a divisor and a mask."""
    model = onnx.parser.parse_model(MERGED)
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.standard_normal((4, 4)),
        "ones": np.ones(4),
        "zeros": np.zeros(4),
        "root": np.array(2.0),
        "mask": np.array([0.0, 0.0, 0.0, -3.4e38]),
    }
    tensors = [numpy_helper.from_array(a.astype(np.float32), n) for n, a in constants.items()]
    model.graph.initializer.extend(tensors)
    return model


def run(model: gp.Model, feeds: dict[str, Any]) -> list[Any]:
    return list(ort.InferenceSession(model.to_proto().SerializeToString()).run(None, feeds))


def digits() -> tuple[gp.Model, dict[str, Any]]:
    model = gp.load(demo_model_path())
    name = model.ir.graph.inputs[0].name or ""
    return model, {name: np.random.default_rng(0).random((3, 1, 8, 8), np.float32)}


@pytest.mark.parametrize("name", [n for n in NETWORKS if n != "other_domain"])
def test_networks_compute_what_onnxruntime_computes(name: str) -> None:
    from graphprune.sample_inputs import sample_inputs
    from graphprune.shapes.sizes import Interface

    model = gp.load(NETWORKS[name]())
    sizes = next(iter(Interface(model.ir).nominal({})))
    feeds = sample_inputs(model, sizes, np.random.default_rng(0))
    for a, b in zip(run(model, feeds), to_torch(model)(feeds).values(), strict=True):
        scale = max(float(np.abs(a).max(initial=0)), 1.0)
        assert np.abs(a - b.detach().numpy()).max(initial=0) <= 1e-5 * scale


def test_parameters_are_named_by_initializer() -> None:
    model, _ = digits()
    module = to_torch(model)
    floats = {v.name for v in model.ir.graph.initializers.values() if v.dtype and v.dtype.is_floating_point()}
    assert set(module.initializers) == floats
    by_name = dict(module.named_parameters())
    assert by_name.keys() == set(module.registered_names.values())
    assert all(by_name[module.registered_names[key]] is p for key, p in module.initializers.items())


def test_what_is_no_weight_is_not_trained() -> None:
    module = to_torch(merged())
    assert {key.partition("@")[0] for key in module.initializers} == {"w", "ones", "zeros"}


@pytest.mark.parametrize(("op_type", "blocked"), [("Add", -100.0), ("Mul", 0.0)])
def test_masks_are_not_trained(op_type: str, blocked: float) -> None:
    """Two numbers over a table choose positions; training one would let later tokens be seen."""
    model = onnx.parser.parse_model(f"""
    <ir_version: 10, opset_import: ["" : 18]>
    g (float[n, 4] x) => (float[n, 4] y) {{
      a = MatMul(x, w) m = {op_type}(a, mask) t = Add(m, table) y = Mul(t, scale) }}""")
    open_ = 1.0 if op_type == "Mul" else 0.0
    mask = np.where(np.tri(4, dtype=bool), open_, blocked)
    constants = {
        "w": np.zeros((4, 4)),
        "mask": mask,
        "table": np.arange(16.0).reshape(4, 4),
        "scale": np.ones((1, 4)),
    }
    tensors = [numpy_helper.from_array(a.astype(np.float32), n) for n, a in constants.items()]
    model.graph.initializer.extend(tensors)
    assert set(to_torch(model).initializers) == {"w", "table", "scale"}


def test_a_shared_vector_is_one_parameter_per_use() -> None:
    model = gp.load(merged())
    module = to_torch(model)
    assert set(module.initializers) == {"w", "ones@b:1", "ones@d:1", "zeros@b:2", "zeros@d:2"}
    import torch

    with torch.no_grad():
        module.initializers["ones@b:1"].mul_(2.0)
        module.initializers["zeros@d:2"].add_(torch.arange(4.0))
        module.initializers["w"].mul_(0.5)
    feeds = {"x": np.random.default_rng(1).standard_normal((2, 4)).astype(np.float32)}
    trained = module.write_back(model)
    (wanted,), (found,) = run(trained, feeds), module(feeds).values()
    np.testing.assert_allclose(found.detach().numpy(), wanted, atol=1e-6)
    assert np.abs(wanted - run(model, feeds)[0]).max() > 1e-3
    assert np.array_equal(model.ir.graph.initializers["zeros"].const_value.numpy(), np.zeros(4))


def test_what_was_not_trained_comes_back_as_it_was() -> None:
    model = gp.load(merged())
    same = to_torch(model).write_back(model)
    assert set(same.ir.graph.initializers) == set(model.ir.graph.initializers)
    assert same.to_proto().SerializeToString() == model.to_proto().SerializeToString()


def test_training_steps_reach_the_file(tmp_path: Path) -> None:
    import torch

    model, feeds = digits()
    module = to_torch(model)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        next(iter(module(feeds).values())).square().mean().backward()
        optimizer.step()
    module.write_back(model).save(tmp_path / "trained.onnx")
    wanted = run(gp.load(tmp_path / "trained.onnx"), feeds)[0]
    found = next(iter(module(feeds).values())).detach().numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert np.abs(wanted - run(model, feeds)[0]).max() > 1e-3


def test_half_precision_weights_keep_their_type() -> None:
    source = merged()
    for tensor in source.graph.initializer:
        half = np.clip(numpy_helper.to_array(tensor), -6e4, 6e4).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    for value in (*source.graph.input, *source.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    model = gp.load(source)
    module = to_torch(model).float()
    feeds = {"x": np.random.default_rng(1).standard_normal((2, 4)).astype(np.float16)}
    (found,) = module(feeds).values()
    assert str(found.dtype) == "torch.float32"
    np.testing.assert_allclose(found.detach().numpy(), run(model, feeds)[0], atol=2e-3)
    back = module.write_back(model).ir.graph.initializers["w"].const_value
    assert back.dtype == model.ir.graph.initializers["w"].const_value.dtype


def test_casts_follow_the_module() -> None:
    source = onnx.parser.parse_model("""
    <ir_version: 10, opset_import: ["" : 18]>
    g (float[3] x) => (float[3] y) { a = Cast<to: int = 10>(x)  b = Exp(a)  y = Cast<to: int = 1>(b) }""")
    feeds = {"x": np.array([0.1, 0.2, 0.3])}
    exact = np.exp(feeds["x"])
    assert np.abs(to_torch(source).double()(feeds)["y"].numpy() - exact).max() < 1e-15
    assert np.abs(to_torch(source)(feeds)["y"].numpy() - exact).max() > 1e-5


def test_any_tensor_can_be_fetched_and_nothing_else_is_run() -> None:
    module = to_torch(merged())
    x = np.ones((2, 4), np.float32)
    found = module(x=x, fetch=["b", "w"])
    assert list(found) == ["b", "w"]
    last = next(s for s in module._program.steps if s.call.op_type == "Softmax")
    last.function = None  # it would fail
    assert module(x=x, fetch=["d"])["d"].shape == (2, 4)


def test_copies_are_apart() -> None:
    import torch

    module = to_torch(merged())
    twin = copy.deepcopy(module).double()
    with torch.no_grad():
        twin.initializers["w"].zero_()
    assert module.initializers["w"].abs().sum() > 0
    assert module({"x": np.ones((1, 4))})["y"].dtype == torch.float32


def test_inputs_are_checked() -> None:
    module = to_torch(merged())
    with pytest.raises(UsageError, match="no value for input 'x'"):
        module({})
    with pytest.raises(UsageError, match="no input 'z'"):
        module(x=np.ones((1, 4)), z=1)
    with pytest.raises(UsageError, match="no tensor 'nothing'"):
        module(x=np.ones((1, 4)), fetch=["nothing"])
    with pytest.raises(ModelError, match="'MatMul' fails on inputs of shapes"):
        module(x=np.ones((1, 5)))


def test_an_unknown_operator_is_named() -> None:
    source = onnx.parser.parse_model("""
    <ir_version: 10, opset_import: ["" : 18, "my.ops" : 1]>
    g (float[3] x) => (float[3] y) { y = my.ops.Strange(x) }""")
    with pytest.raises(ModelError, match=r"'my\.ops::Strange' of opset 1 can't be run in torch") as error:
        to_torch(source)
    assert error.value.where == "Strange 'y'"


def test_another_model_is_refused() -> None:
    model, _ = digits()
    with pytest.raises(ModelError, match="has no initializer"):
        to_torch(merged()).write_back(model)
    narrow = merged()
    other = numpy_helper.from_array(np.zeros((4, 2), np.float32), "w")
    narrow.graph.initializer[0].CopyFrom(other)
    with pytest.raises(ModelError, match="has the shape"):
        to_torch(merged()).write_back(narrow)


def test_without_torch_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModelError, match=r"torch is not installed") as error:
        to_torch(merged())
    assert "graphprune[torch]" in (error.value.hint or "")
