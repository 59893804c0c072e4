"""Weights of MatMulNBits: ``[N, blocks, bytes]``, several numbers in a byte, a scale for each block.

https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulNBits
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.realnumbers.scales import best_factors
from graphprune.storage.constants import is_constant

Numbers = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Packed:
    """The constants of one node.

    Attributes:
        codes: ``[N, blocks, block_size]``.
        scales: ``[N, blocks]``.
        points: zero points ``[N, blocks]``.
        columns: K; the last block may be longer.
        bits: of a number.
    """

    codes: npt.NDArray[np.uint8]
    scales: Numbers
    points: Numbers
    columns: int
    bits: int

    @classmethod
    def of(cls, node: ir.Node) -> Packed | None:
        """Of a node; None for a form that is not read here."""
        bits, size = node.attributes.get_int("bits", 4), node.attributes.get_int("block_size", 0)
        k, n = node.attributes.get_int("K", 0), node.attributes.get_int("N", 0)
        tensors = [_tensor(node, i) for i in range(4)]
        has_points = len(node.inputs) > 3 and node.inputs[3] is not None
        regrouped = len(node.inputs) > 4 and node.inputs[4] is not None
        if bits not in (4, 8) or not size or regrouped or tensors[1] is None or tensors[2] is None:
            return None
        if has_points and tensors[3] is None:
            return None
        blocks = -(-k // size)
        codes = _open(tensors[1].reshape(n, -1), bits)[:, : blocks * size].reshape(n, blocks, size)
        scales = tensors[2].astype(np.float32).reshape(n, blocks)
        points = np.full((n, blocks), 1 << (bits - 1), np.float32)
        if has_points and tensors[3] is not None:
            given = tensors[3].reshape(n, -1)
            opened = _open(given, bits) if given.dtype == np.uint8 else given
            points = opened[:, :blocks].astype(np.float32)
        return cls(codes, scales, points, k, bits)

    @property
    def numbers(self) -> Numbers:
        """``[K, N]``."""
        real = (self.codes.astype(np.float32) - self.points[..., None]) * self.scales[..., None]
        return np.ascontiguousarray(real.reshape(len(real), -1)[:, : self.columns].T)

    def _rows(self, numbers: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """``[K, N]`` as the codes lie, ``[N, blocks, block_size]``."""
        n, blocks, size = self.codes.shape
        rows = np.zeros((n, blocks * size))
        rows[:, : self.columns] = np.asarray(numbers, np.float64).T
        return rows.reshape(n, blocks, size)

    def rescaled(self, numbers: npt.NDArray[np.floating], rounded: Callable[[Doubles], Doubles]) -> Packed:
        """The same with scales that fit other numbers ``[K, N]``.

        Args:
            numbers: to be written.
            rounded: numbers in the type of the scales.
        """
        rows, scales = self._rows(numbers), self.scales.astype(np.float64)
        which = np.broadcast_to(np.arange(scales.size).reshape(*scales.shape, 1), rows.shape)
        points = np.broadcast_to(self.points[..., None], rows.shape).astype(np.float64)
        limits = (0, (1 << self.bits) - 1)
        factors = best_factors(rows, scales.ravel(), points, which, limits, rounded)
        return replace(self, scales=(scales * factors.reshape(scales.shape)).astype(np.float32))

    def coded(self, numbers: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
        """Other numbers ``[K, N]`` under the same scales and zero points, as the node stores them."""
        rows = self._rows(numbers)
        n, blocks, _ = rows.shape
        scales = self.scales[..., None].astype(np.float64)
        steps = np.divide(rows, scales, out=np.zeros_like(rows), where=scales != 0)
        codes = np.clip(np.rint(steps + self.points[..., None]), 0, (1 << self.bits) - 1)
        codes = np.where(scales == 0, self.codes, codes).reshape(n, -1).astype(np.uint8)
        # What fills up the last block keeps its code.
        codes[:, self.columns :] = self.codes.reshape(n, -1)[:, self.columns :]
        if self.bits == 4:
            codes = codes[:, ::2] | (codes[:, 1::2] << 4)
        return np.ascontiguousarray(codes.reshape(n, blocks, -1).astype(np.uint8))


def unpacked(node: ir.Node) -> tuple[tuple[int, int], int, Callable[[], Numbers]] | None:
    """Shape of a node's weight ``[K, N]``, its block size, and what reads it; None for other forms."""
    found = Packed.of(node)
    if found is None:
        return None
    return (found.columns, len(found.codes)), found.codes.shape[2], partial(_read, node)


def _read(node: ir.Node) -> Numbers:
    found = Packed.of(node)
    assert found is not None
    return found.numbers


def _open(rows: npt.NDArray[np.generic], bits: int) -> npt.NDArray[np.uint8]:
    """Bytes ``[n, m]`` as codes; the lower half of a byte comes first."""
    raw = rows.astype(np.uint8)
    if bits == 8:
        return raw
    return np.stack([raw & 15, raw >> 4], axis=-1).reshape(len(raw), -1)


def _tensor(node: ir.Node, i: int) -> npt.NDArray[np.generic] | None:
    value = node.inputs[i] if i < len(node.inputs) else None
    if value is None or not is_constant(value) or value.const_value is None:
        return None
    return value.const_value.numpy()
