"""Vision networks of torchvision and timm.

Where a class takes a configuration, the widths and depths are small and every kind of block stays:
the graph is what is tested, and a quick export and run make room for more architectures.
"""

from __future__ import annotations

from typing import Any

from zoo_spec import BOTH, DYNAMO, LEGACY, Exporter, Input, Spec, image


def torchvision_model(name: str, **options: Any) -> Any:
    import torchvision

    return torchvision.models.get_model(name, weights=None, **options)


def timm_model(name: str, **options: Any) -> Any:
    import timm

    return timm.create_model(name, pretrained=False, **options)


def vgg16_bn() -> Any:
    import torch

    network = torchvision_model("vgg16_bn", num_classes=100)
    network.avgpool = torch.nn.Identity()
    network.classifier[0] = torch.nn.Linear(512 * 2 * 2, 512)
    network.classifier[3] = torch.nn.Linear(512, 512)
    network.classifier[6] = torch.nn.Linear(512, 100)
    return network


def alexnet() -> Any:
    import torch

    network = torchvision_model("alexnet", num_classes=100)
    network.classifier[1] = torch.nn.Linear(256 * 6 * 6, 256)
    network.classifier[4] = torch.nn.Linear(256, 256)
    network.classifier[6] = torch.nn.Linear(256, 100)
    return network


def residual(**options: Any) -> Any:
    from torchvision.models.resnet import Bottleneck, ResNet

    return ResNet(Bottleneck, [1, 2, 1, 1], num_classes=100, **options)


def swin(heads: int, depths: tuple[int, ...], second: bool = False) -> Any:
    from torchvision.models import swin_transformer as module

    options: dict[str, Any] = {}
    if second:
        options = {"block": module.SwinTransformerBlockV2, "downsample_layer": module.PatchMergingV2}
    return module.SwinTransformer(
        patch_size=[4, 4],
        embed_dim=16 * heads,
        depths=list(depths),
        window_size=[7, 7],
        num_classes=100,
        num_heads=[heads * 2**i for i in range(4)],
        **options,
    )


def vision_transformer() -> Any:
    from torchvision.models import VisionTransformer

    return VisionTransformer(64, 16, num_layers=3, num_heads=4, hidden_dim=128, mlp_dim=256, num_classes=100)


def maxvit() -> Any:
    from torchvision.models import MaxVit

    return MaxVit(
        (64, 64),
        stem_channels=16,
        block_channels=[32, 64],
        block_layers=[1, 2],
        head_dim=16,
        stochastic_depth_prob=0.0,
        partition_size=4,
        num_classes=100,
    )


def convmixer() -> Any:
    from timm.models.convmixer import ConvMixer

    return ConvMixer(dim=128, depth=4, kernel_size=7, patch_size=7, num_classes=100)


def raft(name: str) -> Any:
    import torch

    network = torchvision_model(name)

    class Flow(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
            return network(first, second, num_flow_updates=2)[-1]

    return Flow()


def pixels(result: Any) -> Any:
    return result["out"]


def tv(name: str, side: int = 64, exporters: tuple[Exporter, ...] = LEGACY, **options: Any) -> Spec:
    return Spec(f"tv_{name}", lambda: torchvision_model(name, **options), image(side), exporters)


def segmentation(name: str) -> Spec:
    options = {"weights_backbone": None, "num_classes": 21}
    return Spec(f"tv_{name}", lambda: torchvision_model(name, **options), image(64), LEGACY, pick=pixels)


def tm(name: str, side: int = 64, exporters: tuple[Exporter, ...] = LEGACY, **options: Any) -> Spec:
    return Spec(f"timm_{name}", lambda: timm_model(name, num_classes=100, **options), image(side), exporters)


#: At their full size: what the project's notes quote.
FULL = [
    Spec("resnet50", lambda: torchvision_model("resnet50"), image(), raw=True),
    Spec("densenet121", lambda: torchvision_model("densenet121"), image()),
    Spec("mobilenetv2", lambda: torchvision_model("mobilenet_v2"), image()),
    Spec("efficientnet_b0", lambda: torchvision_model("efficientnet_b0"), image()),
    Spec("shufflenetv2", lambda: torchvision_model("shufflenet_v2_x1_0"), image()),
    Spec("convnext_tiny", lambda: torchvision_model("convnext_tiny"), image()),
    Spec("swin_tiny", lambda: torchvision_model("swin_t"), image()),
    Spec("vit_tiny", lambda: timm_model("vit_tiny_patch16_224"), image(), raw=True),
]

TORCHVISION = [
    tv("resnet18", exporters=BOTH),
    Spec("tv_resnext", lambda: residual(groups=32, width_per_group=4), image(64), BOTH, raw=True),
    Spec("tv_wide_resnet", lambda: residual(width_per_group=128), image(64), LEGACY),
    Spec("tv_vgg16_bn", vgg16_bn, image(64), LEGACY, raw=True),
    Spec("tv_alexnet", alexnet, image(224), LEGACY),
    tv("mobilenet_v3_small", exporters=BOTH),
    tv("mobilenet_v3_large"),
    tv("efficientnet_v2_s"),
    tv("shufflenet_v2_x0_5", exporters=BOTH),
    tv("shufflenet_v2_x1_5"),
    tv("shufflenet_v2_x2_0"),
    tv("squeezenet1_1", 96, BOTH),
    tv("mnasnet0_5", exporters=BOTH),
    tv("regnet_x_400mf", exporters=BOTH),
    tv("regnet_y_400mf"),
    tv("googlenet", aux_logits=False, init_weights=False),
    tv("inception_v3", 96, aux_logits=False, init_weights=False),
    Spec("tv_swin_s", lambda: swin(3, (2, 2, 18, 2)), image(112), LEGACY),
    Spec("tv_swin_b", lambda: swin(4, (2, 2, 18, 2)), image(112), LEGACY),
    Spec("tv_swin_v2_t", lambda: swin(3, (2, 2, 2, 2), second=True), image(112), BOTH),
    Spec("tv_vit", vision_transformer, image(64), BOTH, raw=True),
    Spec("tv_maxvit", maxvit, image(64), BOTH),
    Spec(
        "tv_raft_large",
        lambda: raft("raft_large"),
        {"first": Input(("batch", 3, 128, 128)), "second": Input(("batch", 3, 128, 128))},
        BOTH,
    ),
    segmentation("deeplabv3_mobilenet_v3_large"),
    segmentation("fcn_resnet50"),
    segmentation("lraspp_mobilenet_v3_large"),
    Spec(
        "tv_r2plus1d_18",
        lambda: torchvision_model("r2plus1d_18", num_classes=100),
        {"video": Input(("batch", 3, 4, 32, 32))},
        LEGACY,
    ),
]

TIMM = [
    tm("deit_tiny_distilled_patch16_224", exporters=BOTH, img_size=64, depth=3),
    tm("beit_base_patch16_224", exporters=BOTH, img_size=64, depth=3, embed_dim=128, num_heads=4),
    tm("cait_xxs24_224", img_size=64, depth=3),
    tm("xcit_nano_12_p16_224", exporters=BOTH, img_size=64, depth=3),
    tm("mixer_s16_224", 96, exporters=BOTH, img_size=96),
    tm("resmlp_12_224", 96, img_size=96),
    tm("poolformer_s12", exporters=BOTH),
    tm("levit_128s", 224),
    tm("efficientformer_l1", 224),
    tm("ghostnet_050", exporters=BOTH),
    tm("res2net50_26w_4s", exporters=BOTH, layers=(1, 1, 1, 1)),
    tm("cspresnet50"),
    tm("cspdarknet53"),
    tm("dla46_c"),
    tm("hrnet_w18_small"),
    tm("repvgg_a0", exporters=BOTH),
    tm("nf_regnet_b0"),
    tm("eca_nfnet_l0"),
    tm("ese_vovnet19b_slim", exporters=BOTH),
    tm("coat_lite_tiny", 224),
    tm("convit_tiny", img_size=64),
    tm("crossvit_9_240", 240),
    tm("pit_ti_224", 224),
    tm("twins_svt_small", 224, depths=(1, 1, 2, 1), embed_dims=(32, 64, 96, 128), num_heads=(1, 2, 3, 4)),
    tm("twins_pcpvt_small", 224, depths=(1, 1, 2, 1), embed_dims=(32, 64, 96, 128), num_heads=(1, 2, 3, 4)),
    tm("pvt_v2_b0", exporters=BOTH),
    tm("edgenext_xx_small", exporters=BOTH),
    tm("mobilevit_xxs", 64),
    tm("mobilevitv2_050", 64, BOTH),
    tm("mobileone_s0"),
    tm("fastvit_t8"),
    tm("tinynet_e"),
    tm("volo_d1_224", 224, DYNAMO),
    tm("gcvit_xxtiny", 224),
    tm("davit_tiny", 224, depths=(1, 1, 1, 1), embed_dims=(32, 64, 128, 256), num_heads=(1, 2, 4, 8)),
    tm("nest_tiny", 224),
    tm("hiera_tiny_224", 224),
    tm("sequencer2d_s", 224, BOTH, layers=(1, 1, 1, 1), embed_dims=(64, 128, 128, 128)),
    tm("eva02_tiny_patch14_224", 56, BOTH, img_size=56, depth=3),
    Spec("timm_convmixer", convmixer, image(64), BOTH),
    tm("botnet26t_256", 256),
    tm("halonet26t", 256, DYNAMO),
    tm("lambda_resnet26rpt_256", 256),
    tm("visformer_tiny", 224),
    tm("tnt_s_legacy_patch16_224", 224, depth=2),
    tm("focalnet_tiny_srf"),
    tm("inception_next_atto"),
    tm("repvit_m0_9"),
    tm("starnet_s050"),
    tm("mambaout_femto"),
    tm("skresnet18"),
    tm("resnest14d"),
    tm("efficientvit_b0"),
    tm("efficientvit_m0", 224),
    tm("swiftformer_xs", 224),
    tm("tiny_vit_5m_224", 224),
    tm("mvitv2_tiny", 224),
    tm("hgnetv2_b0"),
    tm("selecsls42b"),
    tm("mobilenetv4_conv_small"),
    tm("mobilenetv4_hybrid_medium", 256),
    tm("mixnet_s", exporters=BOTH),
    tm("dpn48b"),
    tm("xception41"),
    tm("resnetv2_50x1_bit"),
    tm("coatnet_nano_rw_224", 224, depths=(1, 1, 2, 1), embed_dim=(32, 64, 96, 128)),
    tm("vit_relpos_medium_patch16_224", img_size=64, depth=2, embed_dim=128, num_heads=4),
    tm("gernet_s"),
    tm("rexnet_100"),
    tm("hardcorenas_a"),
]

SPECS = [*FULL, *TORCHVISION, *TIMM]
