"""Networks of our own that make images or volumes: one value or more per pixel."""

from __future__ import annotations

from typing import Any

from zoo_own import conv_bn, module, own
from zoo_spec import Input, image


def unet(torch: Any, transposed: bool) -> Any:
    nn = torch.nn

    def double(i: int, o: int) -> Any:
        return nn.Sequential(conv_bn(torch, i, o), conv_bn(torch, o, o))

    def forward(m: Any, picture: Any) -> Any:
        skips, x = [], picture
        for level in m.down:
            x = level(x)
            skips.append(x)
            x = nn.functional.max_pool2d(x, 2)
        x = m.bottom(x)
        for up, level, skip in zip(m.up, m.join, reversed(skips), strict=True):
            x = level(torch.cat([skip, up(x)], 1))
        return m.head(x)

    def rise(i: int) -> Any:
        if transposed:
            return nn.ConvTranspose2d(i, i // 2, 2, 2)
        return nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(i, i // 2, 1))

    return module(
        torch,
        forward,
        down=nn.ModuleList([double(3, 32), double(32, 64)]),
        bottom=double(64, 128),
        up=nn.ModuleList([rise(128), rise(64)]),
        join=nn.ModuleList([double(128, 64), double(64, 32)]),
        head=nn.Conv2d(32, 4, 1),
    )


def super_resolution(torch: Any) -> Any:
    nn = torch.nn

    def forward(m: Any, picture: Any) -> Any:
        x = first = m.first(picture)
        for block in m.body:
            x = x + 0.2 * block(x)
        return m.last(m.rise(m.join(x) + first))

    body = [
        nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.PReLU(32), nn.Conv2d(32, 32, 3, padding=1))
        for _ in range(3)
    ]
    rise = nn.Sequential(
        nn.Conv2d(32, 128, 3, padding=1),
        nn.PixelShuffle(2),
        nn.PReLU(),
        nn.Conv2d(32, 128, 3, padding=1),
        nn.PixelShuffle(2),
        nn.LeakyReLU(0.1),
    )
    return module(
        torch,
        forward,
        first=nn.Conv2d(3, 32, 3, padding=1),
        body=nn.ModuleList(body),
        join=nn.Conv2d(32, 32, 3, padding=1),
        rise=rise,
        last=nn.Conv2d(32, 3, 3, padding=1),
    )


def unshuffled(torch: Any) -> Any:
    """Space to depth in front, depth to space behind, with squeeze-and-excitation between."""
    nn = torch.nn

    def excite(m: Any, x: Any) -> Any:
        return x * torch.sigmoid(m.up(torch.relu(m.down(x.mean((2, 3), keepdim=True)))))

    se = module(torch, excite, down=nn.Conv2d(48, 12, 1), up=nn.Conv2d(12, 48, 1))
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1),
        nn.ReLU(),
        nn.PixelUnshuffle(2),
        conv_bn(torch, 48, 48),
        se,
        conv_bn(torch, 48, 64),
        nn.Conv2d(64, 12, 1),
        nn.PixelShuffle(2),
    )


def denoiser(torch: Any) -> Any:
    """A diffusion U-Net: time embedding added to channels, group norm, self-attention at the bottom."""
    nn = torch.nn

    def residual(m: Any, x: Any, time: Any) -> Any:
        h = m.first(nn.functional.silu(m.norm1(x))) + m.time(nn.functional.silu(time))[:, :, None, None]
        return m.second(nn.functional.silu(m.norm2(h))) + m.short(x)

    def block(i: int, o: int) -> Any:
        return module(
            torch,
            residual,
            norm1=nn.GroupNorm(8, i),
            first=nn.Conv2d(i, o, 3, padding=1),
            time=nn.Linear(64, o),
            norm2=nn.GroupNorm(8, o),
            second=nn.Conv2d(o, o, 3, padding=1),
            short=nn.Conv2d(i, o, 1),
        )

    def attend(m: Any, x: Any) -> Any:
        batch, channels, height, width = x.shape
        qkv = m.qkv(m.norm(x)).reshape(batch, 3, 4, channels // 4, height * width)
        q, k, v = qkv[:, 0], qkv[:, 1], qkv[:, 2]
        weights = torch.softmax(q.transpose(-1, -2) @ k * (channels // 4) ** -0.5, -1)
        return x + m.out((v @ weights.transpose(-1, -2)).reshape(batch, channels, height, width))

    def forward(m: Any, picture: Any, when: Any) -> Any:
        time = m.time(torch.cat([torch.sin(when * m.waves), torch.cos(when * m.waves)], -1))
        first = m.reader(picture)
        high = m.down1(first, time)
        low = m.down2(m.shrink(high), time)
        low = m.middle(m.attention(low), time)
        up = m.rise(nn.functional.interpolate(low, scale_factor=2.0))
        return m.head(m.up(torch.cat([up, high], 1), time))

    attention = module(
        torch, attend, norm=nn.GroupNorm(8, 64), qkv=nn.Conv2d(64, 192, 1), out=nn.Conv2d(64, 64, 1)
    )
    return module(
        torch,
        forward,
        waves=nn.Parameter(torch.rand(16) * 3),
        time=nn.Sequential(nn.Linear(32, 64), nn.SiLU(), nn.Linear(64, 64)),
        reader=nn.Conv2d(3, 32, 3, padding=1),
        down1=block(32, 32),
        shrink=nn.Conv2d(32, 32, 3, 2, 1),
        down2=block(32, 64),
        attention=attention,
        middle=block(64, 64),
        rise=nn.Conv2d(64, 32, 3, padding=1),
        up=block(64, 32),
        head=nn.Conv2d(32, 3, 3, padding=1),
    )


def generator(torch: Any) -> Any:
    nn = torch.nn
    return nn.Sequential(
        nn.Linear(32, 64 * 16),
        nn.Unflatten(1, (64, 4, 4)),
        nn.ConvTranspose2d(64, 48, 4, 2, 1, bias=False),
        nn.BatchNorm2d(48),
        nn.ReLU(),
        nn.ConvTranspose2d(48, 32, 4, 2, 1, groups=2),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.ConvTranspose2d(32, 3, 4, 2, 1),
        nn.Tanh(),
    )


def modulated(torch: Any) -> Any:
    """Styles scale the channels before a convolution and the demodulation after it."""
    nn = torch.nn

    def layer(m: Any, x: Any, style: Any) -> Any:
        scale = m.affine(style)
        x = m.conv(x * scale[:, :, None, None])
        energy = (m.conv.weight.pow(2).sum((2, 3))[None] * scale[:, None].pow(2)).sum(2)
        return nn.functional.leaky_relu(x * torch.rsqrt(energy + 1e-8)[:, :, None, None] + m.bias, 0.2)

    def make(i: int, o: int) -> Any:
        return module(
            torch,
            layer,
            affine=nn.Linear(32, i),
            conv=nn.Conv2d(i, o, 3, padding=1, bias=False),
            bias=nn.Parameter(torch.rand(1, o, 1, 1)),
        )

    def forward(m: Any, picture: Any, noise: Any) -> Any:
        style, x = m.mapping(noise), m.reader(picture)
        for part in m.layers:
            x = part(x, style)
        return m.head(x)

    return module(
        torch,
        forward,
        mapping=nn.Sequential(nn.Linear(16, 48), nn.LeakyReLU(), nn.Linear(48, 32)),
        reader=nn.Conv2d(3, 32, 1),
        layers=nn.ModuleList([make(32, 48), make(48, 32)]),
        head=nn.Conv2d(32, 3, 1),
    )


def volume(torch: Any) -> Any:
    nn = torch.nn
    return nn.Sequential(
        nn.Conv3d(1, 16, 3, padding=1),
        nn.BatchNorm3d(16),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.Conv3d(16, 32, 3, padding=1),
        nn.GroupNorm(4, 32),
        nn.ReLU(),
        nn.ConvTranspose3d(32, 16, 2, 2),
        nn.ReLU(),
        nn.Conv3d(16, 2, 1),
    )


def spatial_transformer(torch: Any) -> Any:
    """A network that predicts an affine map, and a classifier behind the grid it samples."""
    nn = torch.nn

    def forward(m: Any, picture: Any) -> Any:
        theta = m.locate(picture).view(-1, 2, 3)
        grid = (m.places @ theta.transpose(1, 2)).view(-1, 16, 16, 2)
        return m.classify(nn.functional.grid_sample(m.features(picture), grid, align_corners=False))

    def pooled(i: int, o: int, classes: int) -> Any:
        layers = [
            nn.Conv2d(i, o, 3, 2, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(o, classes),
        ]
        return nn.Sequential(*layers)

    features = nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 16, 3, padding=1), nn.ReLU()
    )
    made = module(torch, forward, locate=pooled(3, 16, 6), features=features, classify=pooled(16, 32, 5))
    side = torch.linspace(-0.9, 0.9, 16)
    places = torch.stack([side.repeat(16), side.repeat_interleave(16), torch.ones(256)], 1)
    made.register_buffer("places", places)
    return made


SPECS = [
    own("unet_transposed", lambda torch: unet(torch, True), image(64)),
    own("unet_resize", lambda torch: unet(torch, False), image(64)),
    own("super_resolution", super_resolution, image(32)),
    own("pixel_unshuffle", unshuffled, image(32)),
    own("denoiser", denoiser, {"picture": Input(("batch", 3, 16, 16)), "when": Input(("batch", 1))}),
    own("generator", generator, {"noise": Input(("batch", 32))}),
    own("modulated", modulated, {"picture": Input(("batch", 3, 16, 16)), "noise": Input(("batch", 16))}),
    own("volume", volume, {"volume": Input(("batch", 1, 16, 16, 16))}),
    own("spatial_transformer", spatial_transformer, image(32)),
]
