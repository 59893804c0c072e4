"""A plan carried to live torch modules: shapes, attributes, the proof, and what is refused."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphprune as gp
from graphprune.errors import ModelError, PlanError, ValidationError

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.torch,
    # Raised inside torch's own exporters.
    pytest.mark.filterwarnings("ignore"),
]
torch_networks = pytest.importorskip("torch_networks")

from graphprune.converters.carrying.torch_module import carry_module  # noqa: E402
from graphprune.converters.torch import export_module  # noqa: E402


@pytest.fixture
def exported(tmp_path: Path) -> Callable[..., Path]:
    def export(module: Any, inputs: Any, exporter: str = "torchscript") -> Path:
        file = tmp_path / "model.onnx"
        torch.backends.mha.set_fastpath_enabled(False)  # its fused operator is not exported
        try:
            export_module(module, inputs, file, source="the test", exporter=exporter)
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
        return file

    return export


def plan_for(file: Path, **options: Any) -> gp.Plan:
    chosen = {"target": {"macs": 0.6}, "criterion": "l2"} | options
    return gp.plan(file, **chosen)


def cut_kinds(plan: gp.Plan) -> set[str]:
    return {group.kind for group in plan.groups if len(group.keep) < group.size}


def assert_carried(module: Any, report: Any, original: Any) -> None:
    assert report.error <= 1e-5
    assert not any("own weights alone" in note for note in report.notes)  # also with random weights
    assert report.change > 1e-2  # the proof would see a module that was not cut
    before, after = report.parameters
    assert after < before == sum(p.numel() for p in original.parameters())
    assert after == sum(p.numel() for p in module.parameters())


def test_convolutions(exported: Callable[..., Path]) -> None:
    module = torch_networks.with_noise(torch_networks.Convolutions())
    state = copy.deepcopy(module.state_dict())
    file = exported(module, torch_networks.images())
    carried, report = carry_module(plan_for(file), module, model=file)
    assert_carried(carried, report, module)
    assert carried.stem.out_channels == carried.norm.num_features == carried.stem.weight.shape[0] < 16
    assert carried.deep.groups == carried.deep.in_channels == carried.deep.out_channels
    assert carried.grouped.out_channels == carried.groups.num_channels
    assert carried.up.out_channels == carried.slopes.num_parameters == carried.head.in_features
    for name, tensor in module.state_dict().items():  # the input is as it was
        assert torch.equal(tensor, state[name])
    assert module.stem.out_channels == 16


def test_carried_modules_train_save_and_load(exported: Callable[..., Path]) -> None:
    module = torch_networks.with_noise(torch_networks.Convolutions())
    module.stem.weight.requires_grad_(False)
    module.train()
    file = exported(module, torch_networks.images())
    plan = plan_for(file)
    carried, _ = carry_module(plan, module, model=file)
    assert carried.training
    assert carried.norm.training
    assert not carried.stem.weight.requires_grad
    other, _ = carry_module(plan, module, model=file)
    optimizer = torch.optim.SGD([p for p in carried.parameters() if p.requires_grad], lr=0.1)
    carried(torch_networks.images()).square().mean().backward()
    optimizer.step()
    assert all(p.grad is not None for p in carried.parameters() if p.requires_grad)
    assert all(p.grad is None for p in module.parameters())
    other.load_state_dict(carried.state_dict())
    buffer = io.BytesIO()
    torch.save(carried, buffer)
    buffer.seek(0)
    again = torch.load(buffer, weights_only=False)
    images = torch_networks.images()
    for each in (carried, other, again):
        each.eval()
    assert torch.equal(carried(images), other(images))
    assert torch.equal(carried(images), again(images))


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("kinds", [["heads"], ["head_dim"], None])
def test_grouped_queries(exported: Callable[..., Path], explicit: bool, kinds: list[str] | None) -> None:
    attention = torch_networks.Attention
    make = lambda: attention(32, 8, 4, 8, explicit=explicit)  # noqa: E731
    module = torch_networks.with_noise(torch_networks.Transformer(make))
    file = exported(module, torch_networks.ids())
    plan = plan_for(file, kinds=kinds, target={"params": 0.85 if kinds else 0.6})
    assert cut_kinds(plan) >= set(kinds or ["channels"])
    carried, report = carry_module(plan, module, model=file, inputs=torch_networks.ids())
    assert_carried(carried, report, module)
    for block in carried.blocks:
        layer = block.attention
        assert layer.window_size == 8  # equal to the number of heads, and no number of heads
        assert layer.scale == (8**-0.5 if explicit else None)
        assert layer.num_heads * layer.head_dim == layer.q_proj.out_features
        assert layer.num_kv_heads * layer.head_dim == layer.k_proj.out_features
    if kinds == ["head_dim"]:
        assert bool(report.rescaled) != explicit


def test_heads_of_two_sizes_are_filled_up_where_a_module_has_one(exported: Callable[..., Path]) -> None:
    attention = torch_networks.Attention
    make = lambda: attention(32, 8, 4, 8, explicit=True)  # noqa: E731
    module = torch_networks.with_noise(torch_networks.Transformer(make))
    file = exported(module, torch_networks.ids())
    plan = plan_for(file, kinds=["heads", "head_dim"], target={"params": 0.7})
    sizes = {len(group.keep) for group in plan.groups if group.kind == "head_dim"}
    assert len(sizes) > 1
    carried, report = carry_module(plan, module, model=file, inputs=torch_networks.ids())
    assert_carried(carried, report, module)
    assert any("one size" in note for note in report.notes)
    for i, block in enumerate(carried.blocks):
        layer = block.attention
        assert layer.v_proj.out_features == layer.k_proj.out_features == layer.num_kv_heads * layer.head_dim
        filled = [name for name in report.filled if name.startswith(f"blocks.{i}.")]
        assert {name.split(".")[3] for name in filled} <= {"q_proj", "k_proj", "v_proj", "o_proj"}
    name = next(name for name in report.filled if name.endswith("v_proj.weight"))
    rows = carried.get_parameter(name).detach()
    assert (rows == 0).all(dim=1).any()


def test_fused_projections_keep_the_scale(exported: Callable[..., Path]) -> None:
    module = torch_networks.with_noise(torch_networks.Transformer(lambda: torch_networks.Fused(32, 4)))
    file = exported(module, torch_networks.ids())
    plan = plan_for(
        file, kinds=["channels", "head_dim"], target={"params": 0.6}, include=["*qkv*", "*MatMul*"]
    )
    assert "head_dim" in cut_kinds(plan)
    carried, report = carry_module(plan, module, model=file)
    assert_carried(carried, report, module)
    assert "blocks.0.attention.qkv.weight" in report.rescaled
    mended = {entry.name: (entry.before, entry.after) for entry in report.mended}
    layer = carried.blocks[0].attention
    assert mended["blocks.0.attention.head_dim"] == (8, layer.head_dim)
    assert layer.attn_dim == layer.num_heads * layer.head_dim == layer.proj.in_features


def test_ties_stay(exported: Callable[..., Path]) -> None:
    make = lambda: torch_networks.Fused(32, 4)  # noqa: E731
    module = torch_networks.with_noise(torch_networks.Transformer(make, tied=True))
    file = exported(module, torch_networks.ids())
    carried, report = carry_module(plan_for(file), module, model=file)
    assert_carried(carried, report, module)
    assert carried.head.weight is carried.embedding.weight
    assert carried.embedding.embedding_dim == carried.head.in_features < 32


def test_multihead_attention_with_fewer_heads(exported: Callable[..., Path]) -> None:
    module = torch_networks.with_noise(torch_networks.Encoder())
    file = exported(module, torch_networks.sequence())
    plan = plan_for(file, kinds=["heads", "head_dim"], target={"params": 0.75})
    assert cut_kinds(plan) == {"heads", "head_dim"}
    carried, report = carry_module(plan, module, model=file)
    assert_carried(carried, report, module)
    layer = carried.layer.self_attn
    assert layer.embed_dim == 32
    assert layer.num_heads * layer.value_dim == layer.out_proj.in_features < 32
    x = torch_networks.sequence()
    mask = torch.zeros(8, 8).masked_fill_(torch.ones(8, 8).triu(1).bool(), float("-inf"))
    padding = torch.zeros(2, 8, dtype=torch.bool)
    padding[1, 5:] = True
    with torch.no_grad():
        expected, weights = layer(x, x, x, attn_mask=mask, key_padding_mask=padding.float() * -1e9)
        found, none = layer(x, x, x, attn_mask=mask.bool(), key_padding_mask=padding, need_weights=False)
        one, _ = layer(x[0], x[0], x[0], attn_mask=mask)
    assert none is None
    assert weights.shape == (2, 8, 8)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one, found[0], rtol=1e-4, atol=1e-5)
    carried.train()
    carried(x).sum().backward()
    assert layer.in_proj_weight.grad is not None


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_recurrent_layers(exported: Callable[..., Path], kind: str) -> None:
    module = torch_networks.with_noise(torch_networks.Recurrent(getattr(torch.nn, kind)))
    file = exported(module, torch_networks.sequence(8))
    carried, report = carry_module(plan_for(file), module, model=file)
    assert_carried(carried, report, module)
    assert carried.rnn.hidden_size == carried.head.in_features < 12
    assert carried.rnn.input_size == carried.first.out_features < 16
    assert all(a is b for a, b in zip(carried.rnn._flat_weights, carried.rnn.parameters(), strict=True))


def test_updated_weights_are_carried_too(exported: Callable[..., Path]) -> None:
    module = torch_networks.with_noise(torch_networks.Transformer(lambda: torch_networks.Fused(32, 4)))
    file = exported(module, torch_networks.ids())
    plan = plan_for(file)
    rng = np.random.default_rng(0)
    samples = {"ids": rng.integers(0, 20, (64, 8))}
    better = gp.apply(gp.load(file), plan, compensator="obs", calibration=samples)
    carried, report = carry_module(plan, module, model=file, weights=better)
    assert_carried(carried, report, module)
    plain, _ = carry_module(plan, module, model=file)
    assert not torch.allclose(plain(torch_networks.ids()), carried(torch_networks.ids()), rtol=1e-2)


def test_sizes_in_code_are_refused(exported: Callable[..., Path]) -> None:
    module = torch_networks.with_noise(torch_networks.Transformer(torch_networks.Literal))
    file = exported(module, torch_networks.ids())
    with pytest.raises(ModelError, match=r"the code of 'blocks\.0\.attention' can't have the new sizes"):
        carry_module(plan_for(file, kinds=["heads"], target={"params": 0.9}), module, model=file)
    carried, report = carry_module(plan_for(file, kinds=["channels"]), module, model=file)
    assert_carried(carried, report, module)


def test_bfloat16_with_one_block_cut_and_one_not(exported: Callable[..., Path]) -> None:
    module = torch_networks.with_noise(torch_networks.Transformer(lambda: torch_networks.Fused(32, 4)))
    module = module.to(torch.bfloat16)
    file = exported(module, torch_networks.ids())
    plan = plan_for(file, target={"params": 0.7})
    assert len([group for group in plan.groups if group.kind == "head_dim"]) == 1
    carried, report = carry_module(plan, module, model=file)
    assert_carried(carried, report, module)  # as if it were float32
    assert {p.dtype for p in carried.parameters()} == {torch.bfloat16}
    assert sorted(block.attention.head_dim for block in carried.blocks) == [7, 8]


def test_carried_twice(exported: Callable[..., Path]) -> None:
    module = torch_networks.with_noise(torch_networks.Encoder())
    for target in (0.85, 0.8):
        file = exported(module, torch_networks.sequence())
        plan = plan_for(file, kinds=["heads", "head_dim"], target={"params": target})
        module, report = carry_module(plan, module, model=file)
        assert report.error <= 1e-5
    assert module.layer.self_attn.scale == 8**-0.5


def test_another_module_is_refused(exported: Callable[..., Path]) -> None:
    module = torch_networks.with_noise(torch_networks.Convolutions())
    file = exported(module, torch_networks.images())
    plan = plan_for(file)
    other = torch_networks.with_noise(torch_networks.Convolutions(), seed=5)
    with pytest.raises(ModelError, match="the module is not what the model was made from"):
        carry_module(plan, other, model=file)
    with pytest.raises(ModelError, match="not to a str"):
        carry_module(plan, "module", model=file)


def test_a_plan_of_another_model_is_refused(exported: Callable[..., Path], tmp_path: Path) -> None:
    module = torch_networks.with_noise(torch_networks.Convolutions())
    file = exported(module, torch_networks.images())
    plan = plan_for(file)
    other = torch_networks.with_noise(torch_networks.Encoder())
    exported(other, torch_networks.sequence())
    with pytest.raises(PlanError):
        carry_module(plan, other, model=file)


def test_weights_of_another_function_are_refused(exported: Callable[..., Path]) -> None:
    module = torch_networks.with_noise(torch_networks.Convolutions())
    file = exported(module, torch_networks.images())
    plan = plan_for(file)
    wrong = gp.apply(gp.load(file), plan_for(file, criterion="random"))
    with pytest.raises((ModelError, ValidationError)):
        carry_module(plan, module, model=file, weights=wrong)
