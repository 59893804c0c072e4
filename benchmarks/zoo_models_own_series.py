"""Networks of our own that read series or texts: recurrent, and one-dimensional convolutions."""

from __future__ import annotations

from typing import Any

from zoo_own import IDS, SERIES, VOCABULARY, module, own
from zoo_spec import Input


def lstm_classifier(torch: Any) -> Any:
    nn = torch.nn
    return module(
        torch,
        lambda m, ids: m.head(m.lstm(m.embedding(ids))[0].mean(1)),
        embedding=nn.Embedding(VOCABULARY, 48),
        lstm=nn.LSTM(48, 64, num_layers=2, bidirectional=True, batch_first=True),
        head=nn.Linear(128, 7),
    )


def gru_tagger(torch: Any) -> Any:
    nn = torch.nn
    return module(
        torch,
        lambda m, series: m.head(torch.relu(m.hidden(m.gru(m.reader(series))[0]))),
        reader=nn.Linear(12, 32),
        gru=nn.GRU(32, 48, num_layers=2, batch_first=True),
        hidden=nn.Linear(48, 64),
        head=nn.Linear(64, 5),
    )


def lstm_last_state(torch: Any) -> Any:
    nn = torch.nn

    def forward(m: Any, series: Any) -> Any:
        _, (hidden, cell) = m.lstm(series)
        return m.head(torch.cat([hidden[-1], cell[-1]], 1))

    return module(
        torch, forward, lstm=nn.LSTM(12, 64, num_layers=2, batch_first=True), head=nn.Linear(128, 6)
    )


def elman(torch: Any) -> Any:
    nn = torch.nn
    return module(
        torch,
        lambda m, series: m.head(m.rnn(series)[0]),
        rnn=nn.RNN(12, 40, num_layers=2, bidirectional=True, batch_first=True),
        head=nn.Linear(80, 5),
    )


def seq2seq(torch: Any) -> Any:
    """A GRU encoder, whose last state starts a decoder that attends to it."""
    nn = torch.nn

    def forward(m: Any, ids: Any, target: Any) -> Any:
        memory, state = m.encoder(m.source(ids))
        decoded, _ = m.decoder(m.target(target), state)
        weights = torch.softmax(m.query(decoded) @ memory.transpose(1, 2), -1)
        return m.head(torch.tanh(m.join(torch.cat([decoded, weights @ memory], -1))))

    return module(
        torch,
        forward,
        source=nn.Embedding(VOCABULARY, 32),
        target=nn.Embedding(VOCABULARY, 32),
        encoder=nn.GRU(32, 64, batch_first=True),
        decoder=nn.GRU(32, 64, batch_first=True),
        query=nn.Linear(64, 64, bias=False),
        join=nn.Linear(128, 64),
        head=nn.Linear(64, VOCABULARY),
    )


def crnn(torch: Any) -> Any:
    """Convolutions, then a bidirectional LSTM along the image's width."""
    nn = torch.nn

    def forward(m: Any, picture: Any) -> Any:
        features = m.convolutions(picture)  # (B, C, 1, W)
        sequence = features.squeeze(2).permute(2, 0, 1)
        return m.head(m.lstm(sequence)[0]).permute(1, 0, 2)

    layers = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d((4, 2)),
        nn.Conv2d(64, 64, (4, 3), padding=(0, 1)),
        nn.ReLU(),
    )
    lstm = nn.LSTM(64, 48, num_layers=2, bidirectional=True)
    return module(torch, forward, convolutions=layers, lstm=lstm, head=nn.Linear(96, 37))


def weight_normed(torch: Any) -> Any:
    nn = torch.nn
    norm = nn.utils.parametrizations.weight_norm
    return nn.Sequential(
        norm(nn.Conv1d(12, 48, 3, padding=2, dilation=2)),
        nn.ELU(),
        norm(nn.Conv1d(48, 64, 3, padding=1), dim=1),
        nn.ELU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        norm(nn.Linear(64, 32)),
        nn.ReLU(),
        nn.Linear(32, 5),
    )


def wavenet(torch: Any) -> Any:
    """Dilated causal convolutions with gates; skips are added up beside the residual path."""
    nn = torch.nn

    def forward(m: Any, series: Any) -> Any:
        x, total = m.reader(series.transpose(1, 2)), 0
        for gate, skip, out in zip(m.gates, m.skips, m.outs, strict=True):
            filtered, opened = gate(nn.functional.pad(x, (gate.dilation[0], 0))).chunk(2, 1)
            h = torch.tanh(filtered) * torch.sigmoid(opened)
            total, x = total + skip(h), x + out(h)
        return m.head(torch.relu(total)).transpose(1, 2)

    many = range(3)
    return module(
        torch,
        forward,
        reader=nn.Conv1d(12, 32, 1),
        gates=nn.ModuleList([nn.Conv1d(32, 96, 2, dilation=2**i) for i in many]),
        skips=nn.ModuleList([nn.Conv1d(48, 64, 1) for _ in many]),
        outs=nn.ModuleList([nn.Conv1d(48, 32, 1) for _ in many]),
        head=nn.Conv1d(64, 6, 1),
    )


def temporal_glu(torch: Any) -> Any:
    nn = torch.nn
    return module(
        torch,
        lambda m, series: m.head(
            nn.functional.glu(m.second(nn.functional.glu(m.first(series.transpose(1, 2)), 1)), 1).amax(2)
        ),
        first=nn.Conv1d(12, 96, 3, padding=1),
        second=nn.Conv1d(48, 128, 3, padding=1, groups=4),
        head=nn.Linear(64, 5),
    )


SPECS = [
    own("lstm_bidirectional", lstm_classifier, IDS),
    own("gru_tagger", gru_tagger, SERIES),
    own("lstm_last_state", lstm_last_state, SERIES),
    own("rnn_elman", elman, SERIES),
    own("seq2seq", seq2seq, {**IDS, "target": Input(("batch", "sequence"), VOCABULARY)}),
    own("crnn", crnn, {"picture": Input(("batch", 1, 32, 96))}),
    own("weight_norm", weight_normed, {"series": Input(("batch", 12, 40))}),
    own("wavenet", wavenet, SERIES),
    own("temporal_glu", temporal_glu, SERIES),
]
