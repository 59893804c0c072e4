"""Branches and loops."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from graphprune.converters.torch_graph.call import Call
from graphprune.converters.torch_graph.program import Body
from graphprune.converters.torch_graph.registry import op
from torch import Tensor

#: Rounds after which a loop without a trip count is taken to be endless.
ENDLESS = 1 << 20


@op("If")
def branch(call: Call, bodies: Mapping[str, Body], condition: Tensor) -> list[Tensor]:
    """One of two bodies."""
    return bodies["then_branch" if bool(condition) else "else_branch"]([])


@op("Loop")
def loop(
    call: Call, bodies: Mapping[str, Body], trips: Tensor | None, condition: Tensor | None, *state: Tensor
) -> list[Tensor]:
    """A body again and again; what it returns besides its state is stacked."""
    most = ENDLESS if trips is None else int(trips)
    goes_on = condition is None or bool(condition)
    carried = list(state)
    rows: list[list[Tensor]] = []
    done = 0
    while goes_on and done < most:
        again = torch.tensor(True)
        made = bodies["body"]([torch.tensor(done, dtype=torch.int64), again, *carried])
        goes_on = bool(made[0])
        carried = made[1 : 1 + len(carried)]
        rows.append(made[1 + len(carried) :])
        done += 1
    if trips is None and done == ENDLESS:
        call.refuse(f"it does not end within {ENDLESS} rounds")
    stacked = [torch.stack(column) for column in zip(*rows, strict=True)]
    if not rows and any(call.wants(i) for i in range(len(carried), len(call.outputs))):
        call.refuse("it runs no round, and what it would stack has no known shape")
    return [*carried, *stacked]


@op("Scan", since=9)
def scan(call: Call, bodies: Mapping[str, Body], *inputs: Tensor) -> list[Tensor]:
    """A body for each slice of some inputs, in either direction."""
    count = call.get("num_scan_inputs")
    carried, scanned = list(inputs[:-count]), inputs[-count:]
    axes = call.get("scan_input_axes") or [0] * count
    backwards = call.get("scan_input_directions") or [0] * count
    rows: list[list[Tensor]] = []
    length = scanned[0].shape[axes[0]]
    for t in range(length):
        slices = [
            x.select(a, length - 1 - t if back else t)
            for x, a, back in zip(scanned, axes, backwards, strict=True)
        ]
        made = bodies["body"]([*carried, *slices])
        carried = made[: len(carried)]
        rows.append(made[len(carried) :])
    if not rows:
        call.refuse("it runs over an axis of length 0")
    columns = list(zip(*rows, strict=True))
    out_axes = call.get("scan_output_axes") or [0] * len(columns)
    out_back = call.get("scan_output_directions") or [0] * len(columns)
    stacked = [
        torch.stack(column[::-1] if back else column, axis)
        for column, axis, back in zip(columns, out_axes, out_back, strict=True)
    ]
    return [*carried, *stacked]
