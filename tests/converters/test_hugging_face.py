"""Folders of transformers: inputs that are made up, free axes, no cache, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from graphprune.converters import convert

import graphprune as gp
from graphprune.errors import ModelError

pytestmark = [
    pytest.mark.transformers,
    pytest.mark.filterwarnings("ignore"),  # raised inside torch.onnx
]
ENCODER = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
TEXT = {**ENCODER, "vocab_size": 64}
BATCH, SEQUENCE = "batch", "sequence"
# Class, configuration, its settings, inputs, outputs.
MODELS: dict[str, tuple[str, str, dict[str, Any], dict[str, tuple[Any, ...]], dict[str, tuple[Any, ...]]]] = {
    "classifier": (
        "BertForSequenceClassification",
        "BertConfig",
        {**TEXT, "num_labels": 3},
        {"input_ids": (BATCH, SEQUENCE), "attention_mask": (BATCH, SEQUENCE)},
        {"logits": (BATCH, 3)},
    ),
    "decoder": (
        "LlamaForCausalLM",
        "LlamaConfig",
        {**TEXT, "num_key_value_heads": 2},
        {"input_ids": (BATCH, SEQUENCE), "attention_mask": (BATCH, SEQUENCE)},
        {"logits": (BATCH, SEQUENCE, 64)},
    ),
    "experts": (
        "MixtralForCausalLM",
        "MixtralConfig",
        {**TEXT, "num_key_value_heads": 2, "num_local_experts": 4},
        {"input_ids": (BATCH, SEQUENCE), "attention_mask": (BATCH, SEQUENCE)},
        {"logits": (BATCH, SEQUENCE, 64)},
    ),
    "images": (
        "ViTForImageClassification",
        "ViTConfig",
        {**ENCODER, "image_size": 32, "patch_size": 8, "num_labels": 3},
        {"pixel_values": (BATCH, 3, 32, 32)},
        {"logits": (BATCH, 3)},
    ),
    "translator": (
        "T5ForConditionalGeneration",
        "T5Config",
        {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 4, "vocab_size": 64},
        {
            "input_ids": (BATCH, SEQUENCE),
            "attention_mask": (BATCH, SEQUENCE),
            "decoder_input_ids": (BATCH, "decoder_sequence"),
        },
        {"logits": (BATCH, "decoder_sequence", 64), "encoder_last_hidden_state": (BATCH, SEQUENCE, 32)},
    ),
}


def saved(folder: Path, name: str, dtype: str | None = None) -> Path:
    import torch
    import transformers

    kind, config, settings, *_ = MODELS[name]
    torch.manual_seed(0)
    model = getattr(transformers, kind)(getattr(transformers, config)(**settings))
    if dtype is not None:
        model = model.to(getattr(torch, dtype))
    model.save_pretrained(folder / name)
    return folder / name


@pytest.mark.parametrize(
    ("name", "exporter"), [*((name, "torchscript") for name in MODELS), ("decoder", "dynamo")]
)
def test_inputs_are_made_up_and_lengths_are_free(tmp_path: Path, name: str, exporter: str) -> None:
    report = convert(saved(tmp_path, name), tmp_path / "m.onnx", exporter=exporter)
    inputs, outputs = MODELS[name][3:]
    assert {spec.name: spec.shape for spec in report.inputs} == inputs
    assert {spec.name: spec.shape for spec in report.outputs} == outputs
    assert report.scale > 0
    assert report.max_abs_diff <= 1e-5 * report.scale


def test_a_factory_needs_no_inputs_either(tmp_path: Path) -> None:
    saved(tmp_path, "decoder")
    (tmp_path / "net.py").write_text(
        "import transformers\n"
        f"def make(): return transformers.LlamaForCausalLM.from_pretrained({str(tmp_path / 'decoder')!r})\n"
    )
    report = convert(f"{tmp_path / 'net.py'}:make", tmp_path / "m.onnx", exporter="torchscript")
    inputs, outputs = MODELS["decoder"][3:]
    assert {spec.name: spec.shape for spec in report.inputs} == inputs
    assert {spec.name: spec.shape for spec in report.outputs} == outputs


def test_pruned_with_its_heads_and_experts(tmp_path: Path) -> None:
    convert(saved(tmp_path, "experts"), tmp_path / "m.onnx", exporter="torchscript")
    kinds = {group.kind for group in gp.analyze(gp.load(tmp_path / "m.onnx")).groups if group.prunable}
    assert {"channels", "experts", "heads", "head_dim"} <= kinds


def test_bfloat16_and_fixed_sizes(tmp_path: Path) -> None:
    folder = saved(tmp_path, "classifier", "bfloat16")
    report = convert(folder, tmp_path / "m.onnx", batch=None)
    assert [spec.shape for spec in report.inputs] == [(2, 16), (2, 16)]
    assert report.outputs[0].dtype == "bfloat16"
    assert report.max_abs_diff <= 0.03 * report.scale


def test_what_is_not_in_the_folder_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, "classifier")
    out = tmp_path / "m.onnx"
    config = folder / "config.json"
    settings = json.loads(config.read_text())
    wrong = {
        "parameters of BertForMaskedLM are not in": {"architectures": ["BertForMaskedLM"]},
        "has no class 'NoSuchModel'": {"architectures": ["NoSuchModel"]},
        "is code of its own(.|\n)*--trust": {"auto_map": {"AutoModel": "modeling_own.Own"}},
    }
    for text, change in wrong.items():
        config.write_text(json.dumps({**settings, **change}))
        with pytest.raises(ModelError, match=text):
            convert(folder, out)
    config.write_text("{}")
    with pytest.raises(ModelError, match="no configuration of transformers"):
        convert(folder, out)
    config.write_text(json.dumps(settings))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="there are no weights in"):
        convert(folder, out)
    assert not out.exists()
