"""Configurations of transformers models: changed where they can say the new sizes, left alone otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import graphprune as gp

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.transformers, pytest.mark.filterwarnings("ignore")]

from graphprune.converters.carrying.torch_module import carry_module  # noqa: E402
from graphprune.converters.torch import export_module  # noqa: E402


@pytest.fixture(scope="module")
def llama() -> Any:
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, use_cache=False,
    )  # fmt: skip
    torch.manual_seed(0)
    module = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return module


@pytest.fixture(scope="module")
def file(llama: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("llama") / "llama.onnx"
    ids = torch.randint(0, 64, (2, 9))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    dynamic = {name: {1: "sequence"} for name in inputs}
    exported = Exported(llama)
    export_module(exported, inputs, out, source="the test", exporter="torchscript", dynamic=dynamic)
    return out


class Exported(torch.nn.Module):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        return self.network(input_ids=input_ids, attention_mask=attention_mask).logits


def test_a_cut_that_the_config_can_say_is_saved_and_read_again(
    llama: Any, file: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"criterion": "l2", "align": 8, "kinds": ["channels"]}
    plan = gp.plan(file, target={"params": 0.8}, include=["*embed_tokens*"], **options)
    carried, report = carry_module(plan, llama, model=file)
    assert report.error <= 1e-5
    assert report.notes == ()
    assert carried.config.hidden_size == carried.model.embed_tokens.embedding_dim < 32
    assert (carried.config.num_hidden_layers, carried.config.head_dim) == (2, 8)
    assert llama.config.hidden_size == 32
    carried.save_pretrained(tmp_path)
    again = transformers.LlamaForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.arange(12).reshape(2, 6)
    torch.testing.assert_close(again(ids).logits, carried(ids).logits)


def test_layers_of_different_sizes_are_noted(llama: Any, file: Path) -> None:
    plan = gp.plan(file, target={"params": 0.7}, criterion="l2", include=["*layers.0*"])
    carried, report = carry_module(plan, llama, model=file)
    assert report.error <= 1e-5
    assert any("it has no words for the new sizes" in note for note in report.notes)
    assert carried.config.to_dict() == llama.config.to_dict()
