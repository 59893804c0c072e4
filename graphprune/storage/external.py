"""A model's weights in files beside it: written tensor by tensor, a few rows at a time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir

from graphprune.ahead import ahead
from graphprune.progress import Progress, silent
from graphprune.storage.mapped import let_go, will_read
from graphprune.storage.slices import PIECE_BYTES, Sliced
from graphprune.storage.streaming import Place, Stream, data_of

#: Tensors start at multiples of a page, so that they can be mapped.
PAGE = 4096
Read = Callable[[], "bytes | memoryview"]


def shards_of(stream: Stream, name: str, limit: int | None = None) -> dict[str, list[str]]:
    """Which weights stand in which file, by its name; no file where there are none.

    Args:
        stream: of the model.
        name: of the model's file.
        limit: a data file holds no more bytes, unless one tensor is larger; None: one file holds all.
    """
    shards: list[list[str]] = []
    filled = 0
    for weight, tensor in stream.weights.items():
        if not tensor.nbytes:
            continue
        if not shards or (limit is not None and filled + tensor.nbytes > limit):
            shards.append([])
            filled = 0
        shards[-1].append(weight)
        filled += -(-tensor.nbytes // PAGE) * PAGE
    if len(shards) < 2:
        return {f"{name}.data": shard for shard in shards}
    return {f"{name}.data-{i + 1:05}-of-{len(shards):05}": shard for i, shard in enumerate(shards)}


def write_external(
    stream: Stream,
    folder: Path,
    name: str,
    shards: Mapping[str, list[str]],
    progress: Progress = silent,
    check: Callable[[], object] = lambda: None,
) -> None:
    """Writes a model and, in files beside it, its large weights.

    Args:
        stream: of the model.
        folder: where the files go.
        name: of the model's file.
        shards: of :func:`shards_of`.
        progress: is told how many megabytes are written.
        check: called before each read: a mapped file that was cut off since would end the process.

    Raises:
        OSError: a file can't be written.
    """
    places: dict[str, Place] = {}
    total = sum(tensor.nbytes for tensor in stream.weights.values()) >> 20
    done = 0
    for file_name, shard in shards.items():
        with (folder / file_name).open("wb") as file:
            for weight in shard:
                start = -(-file.tell() // PAGE) * PAGE
                file.seek(start)
                tensor = stream.weights[weight]
                source = tensor.source if isinstance(tensor, Sliced) else tensor
                will_read(source)
                for piece in ahead(_checked(_pieces(tensor), check)):
                    progress("writing (MB)", done >> 20, total)
                    done += file.write(piece)
                let_go(source)
                places[weight] = Place(file_name, start, file.tell() - start)
    progress("writing (MB)", total, total)
    (folder / name).write_bytes(stream.referring(places))


def _checked(reads: Iterator[Read], check: Callable[[], object]) -> Iterator[Read]:
    def checked(read: Read) -> bytes | memoryview:
        check()
        return read()

    return (partial(checked, read) for read in reads)


def _pieces(tensor: ir.TensorProtocol) -> Iterator[Read]:
    """What reads a tensor's bytes, in order."""
    if sys.byteorder == "little" and tensor.dtype.bitwidth >= 8:
        if isinstance(tensor, Sliced):
            yield from (_flat(read) for read in tensor.pieces())
            return
        if isinstance(tensor, ir.ExternalTensor) and tensor.size:
            raw = np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8)
            for start in range(0, len(raw), PIECE_BYTES):
                yield _stretch(raw[start : start + PIECE_BYTES])
            return
    yield lambda: data_of(tensor)


def _flat(read: Callable[[], np.ndarray]) -> Read:
    return lambda: read().reshape(-1).view(np.uint8).data


def _stretch(raw: np.ndarray) -> Read:
    def read() -> memoryview:
        raw[::PAGE].max(initial=0)  # here the disk is waited for, and not where others are written
        return raw.data

    return read
