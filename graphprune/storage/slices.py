"""The kept positions of a tensor, taken from it when they are read or written: a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Mask = npt.NDArray[np.bool_]
Array = npt.NDArray[np.generic]
#: Bytes of a tensor that are read at a time; they stay in the processor's cache.
PIECE_BYTES = 1 << 20


class Sliced(ir.LazyTensor):
    """Some positions of some axes of a tensor.

    Args:
        tensor: the whole.
        keep: axis -> mask of the positions that stay.
        name: of the new tensor.
        cache: keep the slice in memory once it was asked for.
    """

    def __init__(
        self, tensor: ir.TensorProtocol, keep: Mapping[int, Mask], name: str, *, cache: bool
    ) -> None:
        sizes = tensor.shape.numpy()
        shape = ir.Shape([np.count_nonzero(keep[d]) if d in keep else n for d, n in enumerate(sizes)])
        # LazyTensor has a `_tensor` of its own: what it has cached.
        super().__init__(self._whole, dtype=tensor.dtype, shape=shape, cache=cache, name=name)
        self._source, self._keep = tensor, dict(keep)

    @property
    def source(self) -> ir.TensorProtocol:
        """The whole."""
        return self._source

    def _whole(self) -> ir.TensorProtocol:
        array = self._source.numpy()
        for d, mask in self._keep.items():  # one axis at a time: whole blocks are copied
            array = np.compress(mask, array, axis=d)
        return ir.Tensor(np.ascontiguousarray(array), dtype=self.dtype, name=self.name)

    def pieces(self) -> Iterator[Callable[[], Array]]:
        """What reads the slice, in order: so many rows each as make up :data:`PIECE_BYTES` of the whole."""
        array = self._source.numpy()
        if not array.ndim:
            yield lambda: array
            return
        rows = np.flatnonzero(self._keep[0]) if 0 in self._keep else np.arange(len(array))
        inner = {d: np.flatnonzero(mask) for d, mask in self._keep.items() if d}
        for block in blocks_of_rows(array, rows):
            yield _reader(array, block, inner)


def blocks_of_rows(
    array: Array, rows: npt.NDArray[np.int64] | None = None
) -> Iterator[npt.NDArray[np.int64]]:
    """Rows of an array, in order, so many at a time as make up :data:`PIECE_BYTES`."""
    rows = np.arange(len(array)) if rows is None else rows
    step = max(PIECE_BYTES // max(array[:1].nbytes, 1), 1)
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def _reader(
    array: Array, rows: npt.NDArray[np.int64], inner: Mapping[int, npt.NDArray[np.int64]]
) -> Callable[[], Array]:
    def read() -> Array:
        first, last = int(rows[0]), int(rows[-1])
        part = array[first : last + 1] if last - first + 1 == len(rows) else array[rows]
        for d, positions in inner.items():
            part = part.take(positions, d)
        return np.ascontiguousarray(part)

    return read
