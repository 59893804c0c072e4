"""Networks of the transformers library that read text, from small configurations.

Two layers and small widths: every kind of layer of the architecture stays, and the real widths would only
take longer.  Nothing is downloaded.
"""

from __future__ import annotations

from typing import Any

from zoo_spec import BOTH, DYNAMO, LEGACY, Exporter, Input, Spec, text

VOCABULARY = 512
#: The usual names of the sizes; a configuration that has others is given them by itself.
ENCODER: dict[str, Any] = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
}
DECODER: dict[str, Any] = {**ENCODER, "use_cache": False}
GROUPED: dict[str, Any] = {**DECODER, "num_key_value_heads": 2}
MIXTURE: dict[str, Any] = {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}


def transformers_model(kind: str, config: str, experts: str = "", **shape: Any) -> Any:
    """A model by class names; ``experts`` picks the form in which a mixture of experts is computed."""
    import transformers

    settings = getattr(transformers, config + "Config")(**shape)
    if experts:
        settings._experts_implementation = experts
    return getattr(transformers, kind)(settings)


def hf(
    name: str, kind: str, config: str, exporters: tuple[Exporter, ...] = BOTH, raw: bool = False, **shape: Any
) -> Spec:
    """A text model that reads ids and a mask."""
    sizes = {"vocab_size": VOCABULARY, **shape}
    return Spec(
        name,
        lambda: transformers_model(kind, config, **sizes),
        text(sizes["vocab_size"]),
        exporters,
        raw,
        True,
    )


def encoder_decoder() -> dict[str, Input]:
    return {**text(VOCABULARY), "decoder_input_ids": Input(("batch", "sequence"), VOCABULARY)}


def sequence_to_sequence(name: str, kind: str, config: str, **shape: Any) -> Spec:
    sizes = {"vocab_size": VOCABULARY, "use_cache": False, **shape}
    return Spec(name, lambda: transformers_model(kind, config, **sizes), encoder_decoder(), BOTH, False, True)


LAYERS_WITH_CACHE, CACHED_HEADS, HEAD_DIM = 2, 2, 32


def llama_with_cache() -> Any:
    """A decoder step: past keys and values come in, all keys and values go out."""
    import torch
    from transformers.cache_utils import DynamicCache

    network = transformers_model(
        "LlamaForCausalLM", "Llama", vocab_size=VOCABULARY, **GROUPED | {"use_cache": True}
    )

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, ids: torch.Tensor, mask: torch.Tensor, *past: torch.Tensor) -> list[torch.Tensor]:
            cache = DynamicCache()
            for layer in range(LAYERS_WITH_CACHE):
                cache.update(past[2 * layer], past[2 * layer + 1], layer)
            length = past[0].shape[2]
            positions = (length + torch.arange(ids.shape[1]))[None]
            result = self.network(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache
            )
            present = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
            return [result.logits, *present]

    return Step()


def cache_inputs() -> dict[str, Input]:
    past = Input(("batch", CACHED_HEADS, "past", HEAD_DIM))
    named = {f"past_{kind}_{i}": past for i in range(LAYERS_WITH_CACHE) for kind in ("key", "value")}
    return {
        "input_ids": Input(("batch", "sequence"), VOCABULARY),
        "attention_mask": Input(("batch", "past + sequence"), -1),
        **named,
    }


def everything(result: Any) -> Any:
    return result


def clip_text() -> Spec:
    shape = ENCODER | {
        "max_position_embeddings": 256,
        "vocab_size": VOCABULARY,
        "eos_token_id": 2,
        "bos_token_id": 1,
        "pad_token_id": 0,
    }
    return hf("hf_clip_text", "CLIPTextModel", "CLIPText", **shape)


#: At larger sizes: what the project's notes quote.
FULL = [
    hf("bert", "BertForSequenceClassification", "Bert", vocab_size=8192, num_hidden_layers=4, num_labels=5),
    hf("bert12", "BertModel", "Bert", vocab_size=30522),
    hf("gpt2", "GPT2LMHeadModel", "GPT2", vocab_size=8192, n_layer=4, use_cache=False),
    hf(
        "llama_gqa",
        "LlamaForCausalLM",
        "Llama",
        vocab_size=2048,
        num_hidden_layers=4,
        hidden_size=256,
        num_attention_heads=8,
        num_key_value_heads=2,
        intermediate_size=688,
        use_cache=False,
    ),
]

ENCODERS = [
    hf("hf_bert", "BertForMaskedLM", "Bert", raw=True, **ENCODER),
    hf(
        "hf_distilbert",
        "DistilBertForSequenceClassification",
        "DistilBert",
        dim=128,
        n_layers=2,
        n_heads=4,
        hidden_dim=256,
    ),
    hf("hf_roberta", "RobertaForTokenClassification", "Roberta", max_position_embeddings=514, **ENCODER),
    hf("hf_albert", "AlbertModel", "Albert", embedding_size=64, **ENCODER),
    hf("hf_electra", "ElectraForSequenceClassification", "Electra", embedding_size=64, **ENCODER),
    hf("hf_mpnet", "MPNetModel", "MPNet", max_position_embeddings=514, **ENCODER),
    hf(
        "hf_deberta_v2",
        "DebertaV2Model",
        "DebertaV2",
        relative_attention=True,
        position_buckets=16,
        pos_att_type=["p2c", "c2p"],
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        **ENCODER,
    ),
    hf("hf_convbert", "ConvBertModel", "ConvBert", LEGACY, embedding_size=64, **ENCODER),
    hf(
        "hf_squeezebert",
        "SqueezeBertModel",
        "SqueezeBert",
        embedding_size=128,
        q_groups=2,
        k_groups=2,
        v_groups=2,
        post_attention_groups=1,
        intermediate_groups=2,
        output_groups=2,
        **ENCODER,
    ),
    hf(
        "hf_modernbert",
        "ModernBertModel",
        "ModernBert",
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        cls_token_id=1,
        sep_token_id=2,
        global_attn_every_n_layers=2,
        local_attention=8,
        **ENCODER,
    ),
    hf(
        "hf_mobilebert",
        "MobileBertModel",
        "MobileBert",
        LEGACY,
        embedding_size=32,
        hidden_size=128,
        intra_bottleneck_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
    ),
    hf("hf_nystromformer", "NystromformerModel", "Nystromformer", LEGACY, **ENCODER),
    hf(
        "hf_esm",
        "EsmModel",
        "Esm",
        LEGACY,
        pad_token_id=1,
        mask_token_id=3,
        position_embedding_type="rotary",
        **ENCODER,
    ),
    clip_text(),
]

DECODERS = [
    hf("hf_gpt2", "GPT2LMHeadModel", "GPT2", n_layer=2, n_embd=128, n_head=4, use_cache=False, raw=True),
    hf(
        "hf_gpt_neo",
        "GPTNeoForCausalLM",
        "GPTNeo",
        hidden_size=128,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        window_size=8,
        use_cache=False,
        intermediate_size=256,
    ),
    hf("hf_gpt_neox", "GPTNeoXForCausalLM", "GPTNeoX", **DECODER),
    hf("hf_gptj", "GPTJForCausalLM", "GPTJ", n_embd=128, n_layer=2, n_head=4, rotary_dim=16, use_cache=False),
    hf(
        "hf_opt",
        "OPTForCausalLM",
        "OPT",
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        ffn_dim=256,
        word_embed_proj_dim=64,
        use_cache=False,
    ),
    hf("hf_bloom", "BloomForCausalLM", "Bloom", hidden_size=128, n_layer=2, n_head=4, use_cache=False),
    hf(
        "hf_falcon",
        "FalconForCausalLM",
        "Falcon",
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        multi_query=True,
        use_cache=False,
    ),
    hf("hf_llama_mha", "LlamaForCausalLM", "Llama", LEGACY, **DECODER),
    hf("hf_llama_mqa", "LlamaForCausalLM", "Llama", **DECODER | {"num_key_value_heads": 1}),
    hf("hf_mistral", "MistralForCausalLM", "Mistral", LEGACY, sliding_window=8, **GROUPED),
    hf("hf_gemma", "GemmaForCausalLM", "Gemma", head_dim=32, **GROUPED),
    hf("hf_gemma2", "Gemma2ForCausalLM", "Gemma2", LEGACY, head_dim=32, sliding_window=8, **GROUPED),
    hf("hf_qwen2", "Qwen2ForCausalLM", "Qwen2", LEGACY, **GROUPED),
    hf("hf_qwen3", "Qwen3ForCausalLM", "Qwen3", head_dim=32, **GROUPED),
    hf("hf_phi", "PhiForCausalLM", "Phi", **DECODER),
    hf("hf_phi3", "Phi3ForCausalLM", "Phi3", pad_token_id=0, bos_token_id=1, eos_token_id=2, **GROUPED),
    hf("hf_stablelm", "StableLmForCausalLM", "StableLm", LEGACY, **GROUPED),
    hf("hf_olmo2", "Olmo2ForCausalLM", "Olmo2", LEGACY, **GROUPED),
    hf(
        "hf_cohere",
        "CohereForCausalLM",
        "Cohere",
        DYNAMO,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **GROUPED,
    ),
    hf("hf_glm", "GlmForCausalLM", "Glm", DYNAMO, head_dim=32, pad_token_id=0, **GROUPED),
    hf("hf_mpt", "MptForCausalLM", "Mpt", LEGACY, d_model=128, n_heads=4, n_layers=2, use_cache=False),
    hf(
        "hf_codegen",
        "CodeGenForCausalLM",
        "CodeGen",
        LEGACY,
        n_embd=128,
        n_layer=2,
        n_head=4,
        rotary_dim=16,
        use_cache=False,
    ),
    hf(
        "hf_starcoder",
        "GPTBigCodeForCausalLM",
        "GPTBigCode",
        LEGACY,
        n_embd=128,
        n_layer=2,
        n_head=4,
        use_cache=False,
    ),
    hf(
        "hf_mamba",
        "MambaForCausalLM",
        "Mamba",
        DYNAMO,
        hidden_size=64,
        num_hidden_layers=2,
        state_size=8,
        use_cache=False,
    ),
    *(
        hf(f"hf_{name}_{form}", kind, config, BOTH if form == "batched_mm" else LEGACY, experts=form, **shape)
        for form in ("eager", "batched_mm")
        for name, kind, config, shape in (
            ("mixtral", "MixtralForCausalLM", "Mixtral", MIXTURE),
            (
                "qwen2_moe",
                "Qwen2MoeForCausalLM",
                "Qwen2Moe",
                GROUPED
                | {
                    "num_experts": 4,
                    "num_experts_per_tok": 2,
                    "moe_intermediate_size": 64,
                    "shared_expert_intermediate_size": 128,
                },
            ),
            ("olmoe", "OlmoeForCausalLM", "Olmoe", DECODER | {"num_experts": 4, "num_experts_per_tok": 2}),
        )
    ),
    Spec("hf_llama_cache", llama_with_cache, cache_inputs(), BOTH, pick=everything),
]

T5 = {"d_model": 128, "d_kv": 32, "d_ff": 256, "num_layers": 2, "num_heads": 4}
BART = {
    "d_model": 128,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 256,
    "decoder_ffn_dim": 256,
}

ENCODER_DECODERS = [
    hf("hf_t5_encoder", "T5EncoderModel", "T5", **T5),
    sequence_to_sequence("hf_t5", "T5ForConditionalGeneration", "T5", **T5),
    sequence_to_sequence("hf_t5_gated", "MT5ForConditionalGeneration", "MT5", **T5),
    sequence_to_sequence("hf_bart", "BartForConditionalGeneration", "Bart", **BART),
    sequence_to_sequence(
        "hf_marian", "MarianMTModel", "Marian", pad_token_id=0, decoder_start_token_id=0, **BART
    ),
]

SPECS = [*FULL, *ENCODERS, *DECODERS, *ENCODER_DECODERS]
