"""The step curves of a device: how long each kind of layer takes at neighbouring widths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from graphprune.device.pieces import Operand, Piece, time_pieces
from graphprune.device.protocol import Device
from graphprune.device.steps import Steps, find_steps

#: Element types that curves are measured for.
DTYPES: Mapping[str, int] = {"float32": onnx.TensorProto.FLOAT, "float16": onnx.TensorProto.FLOAT16}
#: Of layers, and of one attention head: three multiples of 32 are among them.
WIDTHS, HEAD_WIDTHS = tuple(range(96, 161)), tuple(range(32, 97))
#: Side, tokens, heads and the other width of what is measured.
_SIDE, _TOKENS, _HEADS, _OTHER = 14, 128, 8, 128
_PASSES = 3


@dataclass(frozen=True)
class Kind:
    """A kind of layer, and which of its widths changes.

    Attributes:
        op: what alignment is asked by: ``conv``, ``depthwise``, ``matmul``, ``attention``.
        what: for people.
        pieces: the layer at a width, for an element type.
        quick: is it measured when there is little time?
        widths: that are measured.
    """

    op: str
    what: str
    pieces: Callable[[int, int], Sequence[Piece]]
    quick: bool = True
    widths: tuple[int, ...] = WIDTHS


def _conv(inner: int, outer: int, kernel: int, dtype: int, groups: int = 1) -> Piece:
    operands = (
        Operand((1, inner, _SIDE, _SIDE), False, dtype),
        Operand((outer, inner // groups, kernel, kernel), True, dtype),
    )
    return Piece("Conv", operands, (("group", groups), ("pads", (kernel // 2,) * 4)))


def _matmul(rows: int, inner: int, outer: int, dtype: int) -> Piece:
    shapes = ((1, rows, inner), (inner, outer), (outer,))
    operands = tuple(Operand(shape, i > 0, dtype) for i, shape in enumerate(shapes))
    return Piece("MatMul", operands, (), ("Add",), 3)


def _attention(dims: int, dtype: int) -> list[Piece]:
    """Queries times keys, and the result times values."""
    sizes = ((_TOKENS, dims, _TOKENS), (_TOKENS, _TOKENS, dims))
    pairs = [(Operand((1, _HEADS, a, b), False, dtype), Operand((1, _HEADS, b, c), False, dtype))
             for a, b, c in sizes]  # fmt: skip
    return [Piece("MatMul", pair) for pair in pairs]


#: What is measured, by name.
KINDS: Mapping[str, Kind] = {
    "conv3x3.out": Kind("conv", "Conv 3x3, output channels", lambda w, d: [_conv(_OTHER, w, 3, d)]),
    "conv3x3.in": Kind("conv", "Conv 3x3, input channels", lambda w, d: [_conv(w, _OTHER, 3, d)]),
    "conv1x1.out": Kind("conv", "Conv 1x1, output channels", lambda w, d: [_conv(_OTHER, w, 1, d)], False),
    "conv1x1.in": Kind("conv", "Conv 1x1, input channels", lambda w, d: [_conv(w, _OTHER, 1, d)], False),
    "depthwise": Kind("depthwise", "depthwise Conv 3x3, channels", lambda w, d: [_conv(w, w, 3, d, w)]),
    "matmul.out": Kind(
        "matmul", f"MatMul of {_TOKENS} rows, columns of the weight",
        lambda w, d: [_matmul(_TOKENS, _OTHER, w, d)],
    ),
    "matmul.in": Kind(
        "matmul", f"MatMul of {_TOKENS} rows, rows of the weight",
        lambda w, d: [_matmul(_TOKENS, w, _OTHER, d)],
    ),
    "vector.out": Kind(
        "matmul", "MatMul of one row, columns of the weight", lambda w, d: [_matmul(1, 512, w, d)], False
    ),
    "attention.dim": Kind(
        "attention", f"attention of {_HEADS} heads, dims of a head", _attention, True, HEAD_WIDTHS
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """One measured curve.

    Attributes:
        kind: name of :data:`KINDS`.
        dtype: element type.
        widths: measured.
        milliseconds: for each.
        steps: what explains it.
    """

    kind: str
    dtype: str
    widths: tuple[int, ...]
    milliseconds: tuple[float, ...]
    steps: Steps

    @property
    def what(self) -> str:
        """The layer and its width, for people."""
        return KINDS[self.kind].what

    @property
    def op(self) -> str:
        """The kind of layer that alignment is asked by."""
        return KINDS[self.kind].op

    def to_json(self) -> dict[str, Any]:
        """For the profile."""
        return {
            "kind": self.kind, "what": self.what, "op": self.op,
            "dtype": self.dtype, "widths": list(self.widths),
            "milliseconds": [round(ms, 5) for ms in self.milliseconds], "steps": vars(self.steps),
        }  # fmt: skip

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Curve:
        """The inverse of :meth:`to_json`.

        Raises:
            KeyError: an entry is missing, or the kind is not known.
            TypeError: an entry is not what it must be.
            ValueError: a number is not.
        """
        steps = Steps(**document["steps"])
        if any(type(n) is not int or n < 1 for n in (steps.multiple, steps.step, *document["widths"])):
            message = "widths and their multiples are positive integers"
            raise ValueError(message)
        if document["kind"] not in KINDS:
            raise KeyError(document["kind"])
        return cls(
            document["kind"], str(document["dtype"]), tuple(document["widths"]),
            tuple(map(float, document["milliseconds"])), steps,
        )  # fmt: skip


def measure_curves(
    device: Device,
    dtypes: Sequence[str] = ("float32",),
    *,
    quick: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Curve]:
    """Measures all kinds of layers.

    Args:
        device: where.
        dtypes: names of :data:`DTYPES`.
        quick: once, and the kinds that matter most, instead of three times.
        progress: is told how far it is.

    Raises:
        ModelError: the device does not run such layers.
    """
    asked = [(name, dtype) for dtype in dtypes for name, kind in KINDS.items() if kind.quick or not quick]
    found = []
    for number, (name, dtype) in enumerate(asked):
        if progress is not None:
            progress("measuring step curves", number, len(asked))
        widths = KINDS[name].widths
        rows = [KINDS[name].pieces(width, DTYPES[dtype]) for width in widths]
        every = [piece for row in rows for piece in row]
        passes = []
        for _ in range(1 if quick else _PASSES):
            times = time_pieces(device, every)
            passes.append([sum(times[piece] for piece in row) for row in rows])
        # What another process took away was only ever added: the least of some medians is nearest the truth.
        times_of = np.min(passes, axis=0)
        curve = tuple(float(ms) for ms in times_of)
        found.append(Curve(name, dtype, widths, curve, find_steps(widths, curve)))
    return found
