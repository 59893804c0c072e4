"""Single layers at given sizes, as graphs that a device can time.

Many layers go into one graph, side by side: one session, one warm-up, and every run times all of them, so
that a machine that grows slower slows all alike. The runtime's profiler tells them apart by name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import helper, numpy_helper

from graphprune.device.protocol import Device, Job
from graphprune.errors import ModelError

#: Attributes as they can be compared and written down.
Attributes: TypeAlias = tuple[tuple[str, int | float | str | tuple[int, ...]], ...]

#: Weights in one graph, in bytes, about: more would not stay in memory on a small board.
_GRAPH_BYTES = 96 << 20
_GRAPH_PIECES = 72
#: Pieces that are timed in alternation as graphs of their own: each session takes memory on a card.
_AT_ONCE = 8
_IR_VERSION, _OPSET = 8, 17
_PERIOD = 4099


@dataclass(frozen=True)
class Operand:
    """What a layer reads.

    Attributes:
        shape: its sizes.
        is_constant: a weight, or data.
        dtype: number of the element type in onnx.
    """

    shape: tuple[int, ...]
    is_constant: bool
    dtype: int = onnx.TensorProto.FLOAT


@dataclass(frozen=True)
class Piece:
    """A layer at given sizes: an operator, and what follows it in place.

    Attributes:
        op: operator of the default domain.
        operands: its inputs.
        attributes: sorted by name.
        tail: elementwise operators on its result: a bias (``Add``), an activation.
        rank: axes of its result.
    """

    op: str
    operands: tuple[Operand, ...]
    attributes: Attributes = ()
    tail: tuple[str, ...] = ()
    rank: int = 4

    @property
    def key(self) -> str:
        """The piece in words, for files."""
        operands = [[list(o.shape), int(o.is_constant), o.dtype] for o in self.operands]
        return json.dumps([self.op, operands, self.attributes, self.tail], separators=(",", ":"))

    @property
    def weight_bytes(self) -> int:
        """Of its constants, at four bytes a number."""
        return sum(4 * prod(o.shape) for o in self.operands if o.is_constant)


def time_pieces(device: Device, pieces: Sequence[Piece], *, seconds: float = 0.02) -> dict[Piece, float]:
    """Milliseconds of each piece.

    Args:
        device: where.
        pieces: what.
        seconds: about so long for each.

    Raises:
        ModelError: the device does not run them.
    """
    found: dict[Piece, float] = {}
    for batch in _batches(list(dict.fromkeys(pieces))):
        found |= _time(device, batch, seconds * len(batch))
    return found


def _batches(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Graphs of about the same size, dealt out in turn: caches are as warm in one as in the other."""
    total = sum(piece.weight_bytes for piece in pieces)
    count = max(-(-len(pieces) // _GRAPH_PIECES), -(-total // _GRAPH_BYTES), 1)
    return [batch for batch in (list(pieces[i::count]) for i in range(count)) if batch]


def _time(device: Device, pieces: Sequence[Piece], seconds: float) -> dict[Piece, float]:
    times = device.node_times(Job(graph_of(pieces)), seconds=seconds)
    if times is None:
        return _time_whole(device, pieces, seconds)
    found = {}
    for i, piece in enumerate(pieces):
        own = [ms for name, ms in times.items() if name.startswith(f"{_tag(i)}/")]
        if not own:
            what = f"the runtime's profiler does not show a layer of type {piece.op}"
            raise ModelError(what, where=str(device.identity.device))
        found[piece] = sum(own)
    return found


def _time_whole(device: Device, pieces: Sequence[Piece], seconds: float) -> dict[Piece, float]:
    """By the latency of a graph for each piece, less that of a graph which only reads the same inputs."""
    times: list[float] = []
    for start in range(0, len(pieces), _AT_ONCE):
        few = pieces[start : start + _AT_ONCE]
        jobs = [Job(graph_of([piece], is_empty=empty)) for piece in few for empty in (False, True)]
        found = device.measure(jobs, seconds=seconds / len(pieces))
        times += [float(np.median(t.milliseconds)) for t in found]
    pairs = zip(pieces, times[::2], times[1::2], strict=True)
    return {piece: max(whole - empty, 1e-4) for piece, whole, empty in pairs}


def _tag(i: int) -> str:
    return f"piece{i}"


def graph_of(pieces: Sequence[Piece], *, is_empty: bool = False) -> bytes:
    """A model with these pieces side by side.

    Args:
        pieces: what to time.
        is_empty: leave the layers themselves out.
    """
    graph = onnx.GraphProto(name="pieces")
    inputs: dict[tuple[int, tuple[int, ...]], str] = {}
    for rank in {piece.rank for piece in pieces} | {len(o.shape) for p in pieces for o in p.operands}:
        for name, value in (("starts", 0), ("ends", 1)):
            graph.initializer.append(
                numpy_helper.from_array(np.full(rank, value, np.int64), f"slice/{name}{rank}")
            )
    for i, piece in enumerate(pieces):
        tag, names = _tag(i), []
        for j, operand in enumerate(piece.operands):
            if operand.is_constant:
                names.append(f"{tag}/w{j}")
                if not is_empty:
                    graph.initializer.append(_weights(operand, names[-1]))
                continue
            known = (operand.dtype, operand.shape)
            if known not in inputs:
                inputs[known] = f"x{len(inputs)}"
                info = helper.make_tensor_value_info(inputs[known], operand.dtype, operand.shape)
                graph.input.append(info)
            names.append(inputs[known])
        if is_empty:
            read_there = next(j for j, operand in enumerate(piece.operands) if not operand.is_constant)
            last, rank = names[read_there], len(piece.operands[read_there].shape)
        else:
            last, rank = _nodes(graph, piece, tag, names), piece.rank
        # One number leaves the graph: results need no memory of their own.
        read = [last, f"slice/starts{rank}", f"slice/ends{rank}"]
        graph.node.append(helper.make_node("Slice", read, [f"out{i}"], name=f"end{i}"))
        graph.output.append(helper.make_tensor_value_info(f"out{i}", piece.operands[0].dtype, [1] * rank))
    opsets = [helper.make_opsetid("", _OPSET)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION).SerializeToString())


def _nodes(graph: onnx.GraphProto, piece: Piece, tag: str, names: Sequence[str]) -> str:
    """Adds the piece's nodes; name of the last one's result."""
    own, biases = list(names), []
    if piece.tail[:1] == ("Add",):
        biases = [own.pop()]
    last = f"{tag}/y"
    attributes: dict[str, Any] = {
        name: list(value) if isinstance(value, tuple) else value for name, value in piece.attributes
    }
    graph.node.append(helper.make_node(piece.op, own, [last], name=f"{tag}/{piece.op}", **attributes))
    for k, op in enumerate(piece.tail):
        read = [last, *biases] if op == "Add" else [last]
        last = f"{tag}/y{k}"
        graph.node.append(helper.make_node(op, read, [last], name=f"{tag}/{op}{k}"))
    return last


def _weights(operand: Operand, name: str) -> onnx.TensorProto:
    """Small numbers that repeat: kernels take as long for any, and these are quickly made."""
    block = np.random.default_rng(0).standard_normal(_PERIOD).astype(np.float32) * 0.05
    array = np.resize(block, operand.shape)
    return numpy_helper.from_array(array.astype(helper.tensor_dtype_to_np_dtype(operand.dtype)), name)
