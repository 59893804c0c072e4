"""Networks of our own: attention, embeddings, fully connected."""

from __future__ import annotations

from typing import Any

from zoo_own import IDS, SERIES, VOCABULARY, module, own
from zoo_spec import DYNAMO, Input


def einsum_attention(torch: Any) -> Any:
    nn = torch.nn

    def attend(m: Any, x: Any) -> Any:
        q, k, v = (torch.einsum("bnd,dhe->bhne", m.norm(x), w) for w in (m.q, m.k, m.v))
        weights = torch.softmax(torch.einsum("bhqe,bhke->bhqk", q, k) / q.shape[-1] ** 0.5, -1)
        return x + torch.einsum("bhqk,bhke,hed->bqd", weights, v, m.o)

    def layer() -> Any:
        w = [nn.Parameter(torch.randn(64, 4, 16) / 8) for _ in range(3)]
        return module(
            torch,
            attend,
            norm=nn.LayerNorm(64),
            q=w[0],
            k=w[1],
            v=w[2],
            o=nn.Parameter(torch.randn(4, 16, 64) / 8),
        )

    def feed(m: Any, x: Any) -> Any:
        return x + m.down(nn.functional.gelu(m.up(m.norm(x))))

    def mlp() -> Any:
        return module(torch, feed, norm=nn.LayerNorm(64), up=nn.Linear(64, 192), down=nn.Linear(192, 64))

    return nn.Sequential(
        nn.Embedding(VOCABULARY, 64), layer(), mlp(), layer(), mlp(), nn.Linear(64, VOCABULARY)
    )


def alibi_decoder(torch: Any) -> Any:
    nn = torch.nn

    def layer(m: Any, x: Any, bias: Any, hidden: Any) -> Any:
        batch, length, _ = x.shape
        q, k, v = m.qkv(m.norm1(x)).view(batch, length, 3, 4, 16).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) * 0.25 + bias).masked_fill(hidden, -1e4).softmax(-1)
        x = x + m.out((weights @ v).transpose(1, 2).reshape(batch, length, 64))
        gate, value = m.up(m.norm2(x)).chunk(2, -1)
        return x + m.down(nn.functional.silu(gate) * value)

    def make() -> Any:
        return module(
            torch,
            layer,
            norm1=nn.LayerNorm(64),
            qkv=nn.Linear(64, 192),
            out=nn.Linear(64, 64),
            norm2=nn.LayerNorm(64),
            up=nn.Linear(64, 256),
            down=nn.Linear(128, 64),
        )

    def forward(m: Any, ids: Any) -> Any:
        where = torch.arange(ids.shape[1])
        distance = where[None] - where[:, None]
        bias = m.slopes[:, None, None] * distance[None].float()
        x = m.embedding(ids)
        for part in m.layers:
            x = part(x, bias, distance > 0)
        return m.norm(x) @ m.embedding.weight.T

    return module(
        torch,
        forward,
        embedding=nn.Embedding(VOCABULARY, 64),
        slopes=nn.Parameter(0.5 ** torch.arange(1.0, 5.0)),
        layers=nn.ModuleList([make(), make()]),
        norm=nn.LayerNorm(64),
    )


def fused_encoder(torch: Any) -> Any:
    """torch's own encoder layers, with a learned token and a mean at the end."""
    nn = torch.nn

    def forward(m: Any, series: Any) -> Any:
        x = torch.cat([m.token.expand(series.shape[0], -1, -1), m.reader(series)], 1)
        for part in m.layers:
            x = part(x)
        return m.head(x[:, 0])

    # As a list of layers and in training mode's path: the fused kernel of eval mode is not exported.
    layers = [
        nn.TransformerEncoderLayer(64, 4, 128, 0.0, batch_first=True, norm_first=True, activation=nn.GELU())
        for _ in range(2)
    ]
    return module(
        torch,
        forward,
        token=nn.Parameter(torch.randn(1, 1, 64)),
        reader=nn.Linear(12, 64),
        layers=nn.ModuleList(layers),
        head=nn.Linear(64, 5),
    )


def linear_attention(torch: Any) -> Any:
    nn = torch.nn

    def forward(m: Any, series: Any) -> Any:
        x = m.reader(series)
        batch, length, _ = x.shape
        q, k, v = (part(x).view(batch, length, 4, 16).transpose(1, 2) for part in (m.q, m.k, m.v))
        q, k = nn.functional.elu(q) + 1, nn.functional.elu(k) + 1
        memory, total = k.transpose(-1, -2) @ v, k.sum(-2, keepdim=True)
        found = (q @ memory) / (q * total).sum(-1, keepdim=True)
        return m.head(torch.relu(m.hidden(found.transpose(1, 2).reshape(batch, length, 64))))

    part = [nn.Linear(64, 64) for _ in range(3)]
    return module(
        torch,
        forward,
        reader=nn.Linear(12, 64),
        q=part[0],
        k=part[1],
        v=part[2],
        hidden=nn.Linear(64, 96),
        head=nn.Linear(96, 5),
    )


def point_cloud(torch: Any) -> Any:
    nn = torch.nn

    def forward(m: Any, points: Any) -> Any:
        each = m.first(points.transpose(1, 2))
        whole = m.second(each).amax(2, keepdim=True)
        both = torch.cat([each, whole.expand(-1, -1, each.shape[2])], 1)
        return m.head(both).transpose(1, 2)

    def step(i: int, o: int) -> list[Any]:
        return [nn.Conv1d(i, o, 1), nn.BatchNorm1d(o), nn.ReLU()]

    return module(
        torch,
        forward,
        first=nn.Sequential(*step(12, 48)),
        second=nn.Sequential(*step(48, 64), *step(64, 128)),
        head=nn.Sequential(*step(176, 64), nn.Conv1d(64, 6, 1)),
    )


def recommender(torch: Any) -> Any:
    """Several tables, dot products of all pairs, and their upper triangle beside the dense features."""
    nn = torch.nn

    def forward(m: Any, dense: Any, items: Any) -> Any:
        bottom = m.bottom(dense)
        found = [table(items[:, i]) for i, table in enumerate(m.tables)]
        every = torch.stack([bottom, *found], 1)
        pairs = (every @ every.transpose(1, 2)).flatten(1)[:, m.triangle]
        return m.top(torch.cat([bottom, pairs], 1))

    rows, columns = torch.triu_indices(5, 5, 1)
    made = module(
        torch,
        forward,
        tables=nn.ModuleList([nn.Embedding(VOCABULARY, 32) for _ in range(4)]),
        bottom=nn.Sequential(nn.Linear(13, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU()),
        top=nn.Sequential(nn.Linear(42, 96), nn.ReLU(), nn.Linear(96, 48), nn.ReLU(), nn.Linear(48, 1)),
    )
    made.register_buffer("triangle", rows * 5 + columns)
    return made


def tabular(torch: Any) -> Any:
    nn = torch.nn

    def forward(m: Any, x: Any) -> Any:
        return x + m.second(torch.relu(m.first(m.norm(x))))

    def block() -> Any:
        return module(
            torch, forward, norm=nn.BatchNorm1d(64), first=nn.Linear(64, 128), second=nn.Linear(128, 64)
        )

    return nn.Sequential(nn.Linear(20, 64), block(), block(), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 3))


def text_cnn(torch: Any) -> Any:
    nn = torch.nn

    def forward(m: Any, ids: Any) -> Any:
        x = m.embedding(ids).transpose(1, 2)
        return m.head(torch.cat([torch.relu(conv(x)).amax(2) for conv in m.convolutions], 1))

    return module(
        torch,
        forward,
        embedding=nn.Embedding(VOCABULARY, 48),
        head=nn.Linear(120, 4),
        convolutions=nn.ModuleList([nn.Conv1d(48, 40, k, padding=k // 2) for k in (3, 5, 7)]),
    )


def radiance_field(torch: Any) -> Any:
    """Sines of scaled coordinates, and a skip of the input into the middle of a deep network."""
    nn = torch.nn

    def forward(m: Any, place: Any) -> Any:
        waves = (place[..., None] * m.scales).flatten(-2)
        x = torch.cat([place, waves.sin(), waves.cos()], -1)
        return m.last(torch.cat([m.first(x), x], -1))

    def stack(i: int, o: int) -> Any:
        return nn.Sequential(nn.Linear(i, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, o))

    return module(
        torch, forward, scales=nn.Parameter(2.0 ** torch.arange(6.0)), first=stack(39, 64), last=stack(103, 4)
    )


def capsule_of_experts(torch: Any) -> Any:
    """A soft mixture: every expert is computed, and a gate weighs their outputs."""
    nn = torch.nn

    def forward(m: Any, x: Any) -> Any:
        gate = torch.softmax(m.gate(x), -1)
        hidden = torch.relu(torch.einsum("bi,eih->beh", x, m.up) + m.bias)
        return m.head(torch.einsum("be,beh,eho->bo", gate, hidden, m.down))

    return module(
        torch,
        forward,
        gate=nn.Linear(20, 6),
        up=nn.Parameter(torch.randn(6, 20, 48) / 5),
        bias=nn.Parameter(torch.randn(6, 48)),
        down=nn.Parameter(torch.randn(6, 48, 32) / 7),
        head=nn.Linear(32, 4),
    )


SPECS = [
    own("einsum_attention", einsum_attention, IDS),
    own("alibi_decoder", alibi_decoder, IDS),
    own("encoder_layers", fused_encoder, SERIES, DYNAMO),
    own("linear_attention", linear_attention, SERIES),
    own("point_cloud", point_cloud, {"points": Input(("batch", "sequence", 12))}),
    own(
        "recommender", recommender, {"dense": Input(("batch", 13)), "items": Input(("batch", 4), VOCABULARY)}
    ),
    own("tabular", tabular, {"row": Input(("batch", 20))}),
    own("text_cnn", text_cnn, IDS),
    own("radiance_field", radiance_field, {"place": Input(("batch", 3))}),
    own("soft_experts", capsule_of_experts, {"row": Input(("batch", 20))}),
]
