"""Write a model so that a crash, a full disk or a bad path leaves what was there before.

Everything is written into a folder beside the target (`workspace.py`) and renamed when it is complete and on
the disk (`publish.py`).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path

import onnx_ir as ir

from graphprune.errors import ModelError, UsageError
from graphprune.progress import Progress, silent
from graphprune.storage.external import shards_of, write_external
from graphprune.storage.publish import publish
from graphprune.storage.stamps import NOTHING, Stamps
from graphprune.storage.stored_tensors import tensors
from graphprune.storage.streaming import Stream
from graphprune.storage.workspace import reserved

# protobuf refuses messages of 2 GiB and more; the nodes need some room as well.
EMBED_LIMIT = 2**31 - 2**26


def require_writable(path: Path) -> None:
    """Say at once, rather than after the work, that a file can't be written there.

    Raises:
        ModelError: it is a folder, or its folder is missing or may not be written.
    """
    msg = f"cannot write '{path}'"
    if path.is_dir():
        raise ModelError(msg, because="it is a folder", hint="give a file name")
    if not path.parent.is_dir():
        because = "that is no folder" if path.parent.exists() else "there is no such folder"
        raise ModelError(
            msg, where=str(path.parent), because=because, hint="give a path in a folder that is there"
        )
    if not os.access(path.parent, os.W_OK):
        raise ModelError(
            msg, where=str(path.parent), because="the folder may not be written", hint="another folder"
        )


def require_apart(written: Iterable[Path], read: Iterable[Path]) -> None:
    """No file that is written is one that is read, nor another that is written.

    Args:
        written: the files to write; two that are the same are refused as well.
        read: the files that the work reads.

    Raises:
        UsageError: two are the same file.
    """
    others = list(read)
    for path in written:
        for other in others:
            if path.resolve() == other.resolve() or _same_file(path, other):
                message = f"two of the files are the same: {path}, {other}"
                because = "a file that is read is never changed"
                raise UsageError(message, because=because, hint="another name for the output")
        others.append(path)


def require_free_of_data(output: Path, others: Iterable[Path]) -> None:
    """No other file that is written may have a name that the data files of a model may get.

    Args:
        output: the model to write.
        others: what is written beside it.

    Raises:
        UsageError: one has such a name.
    """
    for path in others:
        if path.name.startswith(data_file(output).name) and path.parent.resolve() == output.parent.resolve():
            message = f"'{path}' is a name for the weights of '{output}'"
            raise UsageError(message, because="they may go into files beside it", hint="another name for it")


def data_file(path: Path) -> Path:
    """Where the weights of a model stand that do not fit into its file."""
    return path.with_name(path.name + ".data")


def write(
    model: ir.Model,
    path: Path,
    *,
    external: bool,
    protected: Collection[Path] = (),
    stream: Stream | None = None,
    read: Stamps = NOTHING,
    durable: bool = True,
    shard_bytes: int | None = None,
    progress: Progress = silent,
) -> None:
    """Write ``model`` to ``path``, its weights to ``<name>.data`` beside it if need be.

    Args:
        model: what to write; unchanged.
        path: the target, replaced if it exists.
        external: store the weights beside the file even when they would fit into it.
        protected: data files that must not be replaced, since tensors are still read from them.
        stream: of the model as it is now, if there is one already.
        read: of the files that the model was made of: they must be what they were.
        durable: wait until all of it is on the disk.
        shard_bytes: store the weights beside the file, in files of at most so many bytes (a larger tensor
            has one of its own).
        progress: is told how many megabytes are written.

    Raises:
        ModelError: the target can't be written, its data file is one of ``protected``, or a file that was
            read has changed; what was there is there still.
    """
    stored = list(tensors(model))
    # A tensor that is left in the source's data file would be looked for beside the new file.
    external = external or any(isinstance(tensor, ir.ExternalTensor) for tensor in stored)
    external = external or sum(tensor.nbytes for tensor in stored) > EMBED_LIMIT or shard_bytes is not None
    stream = stream or Stream(model)
    shards = shards_of(stream, path.name, shard_bytes) if external else {}
    if path.is_dir():
        msg = f"cannot write '{path}'"
        raise ModelError(msg, because="it is a folder", hint="give a file name")
    for data in (path, *(path.with_name(name) for name in shards)):
        if not any(_same_file(data, file) for file in protected):
            continue
        msg = f"cannot write '{path}': {'it' if data == path else 'its data file'} is still in use"
        because = f"the source model reads its weights from '{data}'"
        raise ModelError(msg, where=str(data), because=because, hint="write to another name")
    try:
        with reserved(path) as folder:
            if external:
                write_external(stream, folder, path.name, shards, progress, read.require_same)
            else:
                with (folder / path.name).open("wb") as file:
                    file.writelines(stream.chunks())
            read.require_same()
            publish(folder, path, list(shards), kept=protected, durable=durable)
    except OSError as error:
        msg = f"cannot write '{path}'"
        because = error.strerror or str(error)
        hint = "check that the folder exists, may be written and has room"
        raise ModelError(msg, where=str(path.parent), because=because, hint=hint) from error


def _same_file(first: Path, second: Path) -> bool:
    return first.exists() and second.exists() and first.samefile(second)
