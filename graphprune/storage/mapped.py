"""Hints to the kernel about mapped weights: what will be read soon, and what will not be needed again.

Without the first, a cold file is read in small steps, each waited for.  Without the second, pages that were
read count as the process's own until the kernel needs the room, though they cost nothing.
"""

from __future__ import annotations

import mmap

import onnx_ir as ir


def will_read(tensor: ir.TensorProtocol) -> None:
    """The bytes of this tensor come next, if they stand in a file."""
    _advise(tensor, getattr(mmap, "MADV_WILLNEED", None))


def let_go(tensor: ir.TensorProtocol) -> None:
    """They have been read; whoever asks for them again gets them again."""
    _advise(tensor, getattr(mmap, "MADV_DONTNEED", None))


def _advise(tensor: ir.TensorProtocol, advice: int | None) -> None:
    if advice is None or not isinstance(tensor, ir.ExternalTensor) or not tensor.size:
        return
    tensor.numpy()  # maps the file
    if not isinstance(tensor.raw, mmap.mmap):
        return
    offset = tensor.offset or 0
    start = offset // mmap.PAGESIZE * mmap.PAGESIZE
    tensor.raw.madvise(advice, start, offset + tensor.nbytes - start)
