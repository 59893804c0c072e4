"""Networks of the transformers library that read sounds or pixels, from small configurations."""

from __future__ import annotations

from typing import Any

from zoo_models_text import BART, ENCODER, transformers_model
from zoo_spec import BOTH, LEGACY, Exporter, Input, Spec


def vision(
    name: str,
    kind: str,
    config: str,
    side: int = 64,
    exporters: tuple[Exporter, ...] = BOTH,
    pick: Any = None,
    **shape: Any,
) -> Spec:
    """A model that reads pixels."""
    inputs = {"pixel_values": Input(("batch", 3, side, side))}
    return Spec(name, lambda: transformers_model(kind, config, **shape), inputs, exporters, False, True, pick)


def part(attribute: str, kind: str, config: str, **shape: Any) -> Any:
    """One part of a model, such as its encoder."""
    return getattr(transformers_model(kind, config, **shape), attribute)


AUDIO = [
    Spec(
        "hf_whisper_encoder",
        lambda: part(
            "encoder",
            "WhisperModel",
            "Whisper",
            **BART
            | {
                "vocab_size": 600,
                "max_source_positions": 50,
                "num_mel_bins": 40,
                "pad_token_id": 0,
                "bos_token_id": 1,
                "eos_token_id": 2,
                "decoder_start_token_id": 1,
            },
        ),
        {"input_features": Input(("batch", 40, 100))},
        BOTH,
        keywords=True,
    ),
    Spec(
        "hf_wav2vec2",
        lambda: transformers_model(
            "Wav2Vec2ForCTC",
            "Wav2Vec2",
            vocab_size=32,
            conv_dim=(64,) * 7,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4,
            **ENCODER,
        ),
        {"input_values": Input(("batch", 4000))},
        BOTH,
        keywords=True,
    ),
    Spec(
        "hf_hubert",
        lambda: transformers_model(
            "HubertModel",
            "Hubert",
            conv_dim=(64,) * 7,
            feat_extract_norm="layer",
            do_stable_layer_norm=True,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4,
            **ENCODER,
        ),
        {"input_values": Input(("batch", 4000))},
        LEGACY,
        keywords=True,
    ),
    Spec(
        "hf_ast",
        lambda: transformers_model(
            "ASTForAudioClassification", "AST", max_length=64, num_mel_bins=64, **ENCODER
        ),
        {"input_values": Input(("batch", 64, 64))},
        LEGACY,
        keywords=True,
    ),
]

STAGES = {"depths": [1, 1, 1, 1], "hidden_sizes": [32, 64, 96, 128]}


def detr() -> Any:
    import transformers

    backbone = transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[32, 48, 64, 96], depths=[1, 1, 1, 1], out_features=["stage4"]
    )
    settings = {**BART, "num_queries": 10, "use_timm_backbone": False, "backbone": None}
    return transformers_model("DetrForObjectDetection", "Detr", backbone_config=backbone, **settings)


VISION = [
    vision("hf_vit", "ViTForImageClassification", "ViT", image_size=64, **ENCODER),
    vision("hf_clip_vision", "CLIPVisionModel", "CLIPVision", image_size=64, patch_size=16, **ENCODER),
    vision("hf_siglip_vision", "SiglipVisionModel", "SiglipVision", image_size=64, patch_size=16, **ENCODER),
    vision("hf_dinov2", "Dinov2Model", "Dinov2", 56, image_size=56, use_swiglu_ffn=True, **ENCODER),
    vision(
        "hf_beit",
        "BeitForImageClassification",
        "Beit",
        exporters=LEGACY,
        image_size=64,
        use_relative_position_bias=True,
        **ENCODER,
    ),
    vision(
        "hf_segformer",
        "SegformerForSemanticSegmentation",
        "Segformer",
        depths=[1, 1, 1, 1],
        hidden_sizes=[16, 32, 64, 96],
        num_attention_heads=[1, 2, 4, 8],
        decoder_hidden_size=64,
    ),
    Spec("hf_detr", detr, {"pixel_values": Input(("batch", 3, 64, 64))}, BOTH, keywords=True),
    vision(
        "hf_yolos",
        "YolosForObjectDetection",
        "Yolos",
        image_size=[64, 64],
        num_detection_tokens=10,
        **ENCODER,
    ),
    vision(
        "hf_swinv2",
        "Swinv2ForImageClassification",
        "Swinv2",
        image_size=64,
        embed_dim=32,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=4,
    ),
    vision(
        "hf_swin",
        "SwinModel",
        "Swin",
        exporters=LEGACY,
        image_size=64,
        embed_dim=32,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=4,
    ),
    vision(
        "hf_sam_vision",
        "SamVisionModel",
        "SamVision",
        image_size=64,
        patch_size=16,
        output_channels=32,
        window_size=3,
        global_attn_indexes=[1],
        mlp_dim=256,
        **ENCODER,
    ),
    vision("hf_convnextv2", "ConvNextV2ForImageClassification", "ConvNextV2", exporters=LEGACY, **STAGES),
    vision(
        "hf_mobilevit",
        "MobileViTForImageClassification",
        "MobileViT",
        exporters=LEGACY,
        image_size=64,
        neck_hidden_sizes=[8, 16, 24, 32, 40, 48, 96],
        hidden_sizes=[32, 48, 64],
    ),
    vision(
        "hf_dpt",
        "DPTForDepthEstimation",
        "DPT",
        exporters=LEGACY,
        image_size=64,
        is_hybrid=False,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[16, 32, 48, 64],
        fusion_hidden_size=32,
        **ENCODER | {"num_hidden_layers": 4},
    ),
    vision(
        "hf_pvt",
        "PvtForImageClassification",
        "Pvt",
        exporters=LEGACY,
        image_size=64,
        depths=[1, 1, 1, 1],
        hidden_sizes=[16, 32, 64, 96],
        num_attention_heads=[1, 2, 4, 8],
    ),
    vision("hf_vit_msn", "ViTMSNModel", "ViTMSN", exporters=LEGACY, image_size=64, **ENCODER),
    vision(
        "hf_poolformer",
        "PoolFormerForImageClassification",
        "PoolFormer",
        exporters=LEGACY,
        depths=[1, 1, 1, 1],
        hidden_sizes=[16, 32, 64, 96],
    ),
    vision(
        "hf_levit",
        "LevitForImageClassification",
        "Levit",
        224,
        exporters=LEGACY,
        hidden_sizes=[64, 96, 128],
        num_attention_heads=[2, 3, 4],
        depths=[1, 1, 1],
    ),
    vision(
        "hf_glpn",
        "GLPNForDepthEstimation",
        "GLPN",
        exporters=LEGACY,
        depths=[1, 1, 1, 1],
        hidden_sizes=[16, 32, 64, 96],
        num_attention_heads=[1, 2, 4, 8],
        decoder_hidden_size=32,
    ),
]

SPECS = [*AUDIO, *VISION]
