"""LSTM, GRU and RNN, step by step; gates in ONNX's order."""

from __future__ import annotations

from collections.abc import Callable

import torch
from graphprune.converters.torch_graph.call import Call
from graphprune.converters.torch_graph.registry import op
from torch import Tensor
from torch.nn import functional as F

#: State after one step, from what the input contributes and the state before.
Cell = Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Tanh": torch.tanh,
}


def _activations(call: Call, direction: int, default: tuple[str, ...]) -> list[Callable[[Tensor], Tensor]]:
    each = len(default)
    given = call.get("activations") or []
    names = given[direction * each : (direction + 1) * each] or list(default)
    for name in names:
        if name not in _ACTIVATIONS:
            call.refuse(f"its activation is '{name}'")
    return [_ACTIVATIONS[name] for name in names]


def _require_plain(call: Call, lengths: Tensor | None, time: int) -> None:
    if call.get("clip") is not None:
        call.refuse("clip is set")
    if call.get("layout", 0):
        call.refuse("its layout is 1: batch before time")
    if lengths is not None and bool((lengths != time).any()):
        call.refuse("its sequences have different lengths")


def _directions(call: Call) -> list[bool]:
    """Which directions run backwards in time."""
    return {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[
        call.get("direction", "forward")
    ]


def _initial(given: Tensor | None, direction: int, like: Tensor, hidden: int) -> Tensor:
    return like.new_zeros(like.shape[0], hidden) if given is None else given[direction]


def _scan(
    cell: Cell, made: Tensor, state: tuple[Tensor, ...], backwards: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Runs a cell over ``made [time, batch, gates]``; hidden states ``[time, batch, hidden]``."""
    order = range(made.shape[0])[::-1] if backwards else range(made.shape[0])
    seen = []
    for t in order:
        state = cell(made[t], state)
        seen.append(state[0])
    return torch.stack(seen[::-1] if backwards else seen), state


def _run(call: Call, x: Tensor, cells: list[tuple[Cell, Tensor, tuple[Tensor, ...]]]) -> tuple[Tensor, ...]:
    """All directions: outputs ``[time, directions, batch, hidden]`` and last states."""
    outputs, last = [], []
    for backwards, (cell, made, state) in zip(_directions(call), cells, strict=True):
        seen, state = _scan(cell, made, state, backwards)
        outputs.append(seen)
        last.append(state)
    return (torch.stack(outputs, 1), *(torch.stack(states) for states in zip(*last, strict=True)))


@op("LSTM", since=7)
def lstm(
    call: Call,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    h0: Tensor | None = None,
    c0: Tensor | None = None,
    peephole: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Long short-term memory (gates input, output, forget, cell)."""
    _require_plain(call, lengths, x.shape[0])
    if call.get("input_forget", 0):
        call.refuse("input_forget is set")
    hidden = r.shape[2]
    cells = []
    for d in range(len(_directions(call))):
        bias = None if b is None else b[d].reshape(2, -1).sum(0)
        made = F.linear(x, w[d], bias)
        cell = _lstm_cell(call, d, r[d], None if peephole is None else peephole[d])
        cells.append((cell, made, (_initial(h0, d, x[0], hidden), _initial(c0, d, x[0], hidden))))
    return _run(call, x, cells)


def _lstm_cell(call: Call, direction: int, r: Tensor, peephole: Tensor | None) -> Cell:
    f, g, h = _activations(call, direction, ("Sigmoid", "Tanh", "Tanh"))
    look = [0.0] * 3 if peephole is None else list(peephole.chunk(3))

    def cell(made: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        before, memory = state
        i, o, forget, c = (made + F.linear(before, r)).chunk(4, -1)
        memory_now = f(forget + look[2] * memory) * memory + f(i + look[0] * memory) * g(c)
        return f(o + look[1] * memory_now) * h(memory_now), memory_now

    return cell


@op("GRU", since=7)
def gru(
    call: Call,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    h0: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Gated recurrent unit (gates update, reset, hidden)."""
    _require_plain(call, lengths, x.shape[0])
    hidden = r.shape[2]
    cells = []
    for d in range(len(_directions(call))):
        of_input, of_state = (None, None) if b is None else b[d].chunk(2)
        made = F.linear(x, w[d], of_input)
        cell = _gru_cell(call, d, r[d], of_state)
        cells.append((cell, made, (_initial(h0, d, x[0], hidden),)))
    return _run(call, x, cells)


def _gru_cell(call: Call, direction: int, r: Tensor, bias: Tensor | None) -> Cell:
    f, g = _activations(call, direction, ("Sigmoid", "Tanh"))
    size = r.shape[1]
    gates, rest = r[: 2 * size], r[2 * size :]
    of_gates, of_rest = (None, None) if bias is None else (bias[: 2 * size], bias[2 * size :])
    is_after = bool(call.get("linear_before_reset", 0))

    def cell(made: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (before,) = state
        update, reset = f(made[..., : 2 * size] + F.linear(before, gates, of_gates)).chunk(2, -1)
        if is_after:
            back = reset * F.linear(before, rest, of_rest)
        else:
            back = F.linear(reset * before, rest, of_rest)
        new = g(made[..., 2 * size :] + back)
        return ((1 - update) * new + update * before,)

    return cell


@op("RNN", since=7)
def rnn(
    call: Call,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    h0: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Elman network."""
    _require_plain(call, lengths, x.shape[0])
    hidden = r.shape[2]
    cells = []
    for d in range(len(_directions(call))):
        made = F.linear(x, w[d], None if b is None else b[d].reshape(2, -1).sum(0))
        cell = _rnn_cell(call, d, r[d])
        cells.append((cell, made, (_initial(h0, d, x[0], hidden),)))
    return _run(call, x, cells)


def _rnn_cell(call: Call, direction: int, r: Tensor) -> Cell:
    (f,) = _activations(call, direction, ("Tanh",))

    def cell(made: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (f(made + F.linear(state[0], r)),)

    return cell
