"""Networks of our own that look at images: classifiers and detectors."""

from __future__ import annotations

from typing import Any

from zoo_own import conv_bn, module, own
from zoo_spec import Input, image


def c2f_detector(torch: Any) -> Any:
    """Split-and-concatenate blocks, pyramid pooling, a top-down neck and decoupled heads."""
    nn = torch.nn

    def block(i: int, o: int, n: int) -> Any:
        def forward(m: Any, x: Any) -> Any:
            pieces = list(m.first(x).chunk(2, 1))
            for inner in m.inner:
                pieces.append(pieces[-1] + inner(pieces[-1]))
            return m.last(torch.cat(pieces, 1))

        half = o // 2
        inner = [nn.Sequential(conv_bn(torch, half, half), conv_bn(torch, half, half)) for _ in range(n)]
        return module(
            torch,
            forward,
            first=conv_bn(torch, i, o, 1),
            inner=nn.ModuleList(inner),
            last=conv_bn(torch, half * (2 + n), o, 1),
        )

    def pyramid(m: Any, x: Any) -> Any:
        found = [m.first(x)]
        for _ in range(3):
            found.append(m.pool(found[-1]))
        return m.last(torch.cat(found, 1))

    def forward(m: Any, picture: Any) -> Any:
        small = m.stage1(m.stem(picture))
        middle = m.stage2(small)
        large = m.pyramid(m.stage3(middle))
        up = m.neck(torch.cat([nn.functional.interpolate(large, scale_factor=2.0), middle], 1))
        down = m.neck2(torch.cat([m.down(up), large], 1))
        found = []
        for boxes, classes, x in zip(m.boxes, m.classes, (up, down), strict=True):
            found.append(torch.cat([boxes(x), classes(x)], 1).flatten(2))
        every = torch.cat(found, 2)
        box, score = every.split([64, 20], 1)
        batch, _, places = box.shape
        # Distances are expectations over 16 bins.
        spread = box.view(batch, 4, 16, places).transpose(2, 1).softmax(1)
        return torch.cat([m.bins(spread).view(batch, 4, places), score.sigmoid()], 1)

    def head(o: int) -> Any:
        make = [
            nn.Sequential(conv_bn(torch, c, 32), conv_bn(torch, 32, 32), nn.Conv2d(32, o, 1))
            for c in (64, 128)
        ]
        return nn.ModuleList(make)

    pool = module(
        torch,
        pyramid,
        first=conv_bn(torch, 128, 64, 1),
        pool=nn.MaxPool2d(5, 1, 2),
        last=conv_bn(torch, 256, 128, 1),
    )
    return module(
        torch,
        forward,
        stem=conv_bn(torch, 3, 16, 3, 2),
        stage1=nn.Sequential(conv_bn(torch, 16, 32, 3, 2), block(32, 32, 1)),
        stage2=nn.Sequential(conv_bn(torch, 32, 64, 3, 2), block(64, 64, 2)),
        stage3=nn.Sequential(conv_bn(torch, 64, 128, 3, 2), block(128, 128, 1)),
        pyramid=pool,
        neck=block(192, 64, 1),
        down=conv_bn(torch, 64, 64, 3, 2),
        neck2=block(192, 128, 1),
        boxes=head(64),
        classes=head(20),
        bins=nn.Conv2d(16, 1, 1, bias=False),
    )


def padded_resnet(torch: Any) -> Any:
    """Shortcuts without parameters: a strided slice, and channels padded with zeros."""
    nn = torch.nn

    def forward(m: Any, x: Any) -> Any:
        short = x
        if m.grows:
            short = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, m.grows, m.grows))
        return torch.relu(m.second(torch.relu(m.first(x))) + short)

    def block(i: int, o: int) -> Any:
        stride = 1 if i == o else 2
        first = nn.Sequential(nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o))
        second = nn.Sequential(nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o))
        return module(torch, forward, first=first, second=second, grows=(o - i) // 2)

    widths = [(16, 16), (16, 16), (16, 32), (32, 32), (32, 64), (64, 64)]
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        *(block(*pair) for pair in widths),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def group_norm_resnet(torch: Any) -> Any:
    nn = torch.nn

    def forward(m: Any, x: Any) -> Any:
        return torch.relu(m.second(torch.relu(m.first(x))) + m.short(x))

    def block(i: int, o: int, stride: int) -> Any:
        first = nn.Sequential(nn.Conv2d(i, o, 3, stride, 1), nn.GroupNorm(8, o))
        second = nn.Sequential(nn.Conv2d(o, o, 3, 1, 1), nn.GroupNorm(8, o))
        short = nn.Sequential(nn.Conv2d(i, o, 1, stride), nn.GroupNorm(8, o))
        return module(torch, forward, first=first, second=second, short=short)

    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.InstanceNorm2d(32, affine=True),
        nn.ReLU(),
        block(32, 32, 1),
        block(32, 64, 2),
        block(64, 128, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


def feature_pyramid(torch: Any) -> Any:
    """A detector with a shared head on every level of a pyramid; two kinds of outputs."""
    nn = torch.nn

    def forward(m: Any, picture: Any) -> Any:
        levels, x = [], picture
        for stage in m.stages:
            x = stage(x)
            levels.append(x)
        sides = [side(level) for side, level in zip(m.sides, levels, strict=True)]
        for i in (1, 0):
            sides[i] = sides[i] + nn.functional.interpolate(sides[i + 1], scale_factor=2.0)
        classes = [m.classes(side).permute(0, 2, 3, 1).reshape(picture.shape[0], -1, 6) for side in sides]
        boxes = [m.boxes(side).permute(0, 2, 3, 1).reshape(picture.shape[0], -1, 4) for side in sides]
        return [torch.cat(classes, 1), torch.cat(boxes, 1)]

    def head(o: int) -> Any:
        return nn.Sequential(nn.Conv2d(32, 48, 3, padding=1), nn.ReLU(), nn.Conv2d(48, 3 * o, 3, padding=1))

    return module(
        torch,
        forward,
        stages=nn.ModuleList(
            [conv_bn(torch, 3, 24, 3, 2), conv_bn(torch, 24, 48, 3, 2), conv_bn(torch, 48, 96, 3, 2)]
        ),
        sides=nn.ModuleList([nn.Conv2d(c, 32, 1) for c in (24, 48, 96)]),
        classes=head(6),
        boxes=head(4),
    )


def siamese(torch: Any) -> Any:
    """One encoder for two pictures: shared weights, used twice."""
    nn = torch.nn

    def forward(m: Any, first: Any, second: Any) -> Any:
        a, b = m.encoder(first), m.encoder(second)
        return m.head(torch.cat([(a - b).abs(), a * b], 1))

    encoder = nn.Sequential(
        conv_bn(torch, 3, 24, 3, 2),
        conv_bn(torch, 24, 48, 3, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(48, 32),
    )
    return module(torch, forward, encoder=encoder, head=nn.Linear(64, 2))


def two_images(side: int) -> dict[str, Input]:
    return {name: Input(("batch", 3, side, side)) for name in ("first", "second")}


SPECS = [
    own("c2f_detector", c2f_detector, image(64), raw=True),
    own("resnet_option_a", padded_resnet, image(32), raw=True),
    own("resnet_group_norm", group_norm_resnet, image(32)),
    own("feature_pyramid", feature_pyramid, image(64), pick=lambda result: result),
    own("siamese", siamese, two_images(32)),
]
