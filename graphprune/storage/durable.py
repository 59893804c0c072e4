"""Files that appear whole or not at all, and are on the disk before their name is."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from graphprune.storage.locks import is_at, is_own, lock, open_own

#: Of all temporary files and folders: a leading dot, the target's name, this.
ENDING = ".graphprune"
_log = logging.getLogger("graphprune")


@contextmanager
def file_ready_at(path: Path) -> Iterator[IO[bytes]]:
    """A binary file to write to; it takes its place when the block ends without an error.

    It stands beside its place, and is locked.  One that nobody has locked was left by a run that was killed;
    it is named, and used again.

    Args:
        path: the file, replaced if it exists.

    Raises:
        OSError: it can't be written; what was there is there still, and nothing else.
    """
    require_plain(path)
    part, file = _part(path)
    try:
        with file:
            if file.seek(0, os.SEEK_END):
                _log.warning("a run that was killed had left '%s', which is gone now", part)
            file.seek(0)
            file.truncate()
            yield file
            file.flush()
            os.fsync(file.fileno())
            if sys.platform != "win32":  # still locked: nobody else takes it for a leftover
                part.replace(path)
        if sys.platform == "win32":  # where open files can't be renamed
            part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def require_plain(path: Path, *, folder: bool = True) -> None:
    """A file that is replaced is a file.

    Args:
        path: the file.
        folder: leave it to others to refuse a folder.

    Raises:
        OSError: it is a device or a pipe, in whose place there would be a file then; or a folder.
    """
    if path.is_dir() and not folder:
        raise OSError(errno.EISDIR, f"'{path.name}' is a folder", str(path))
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, f"'{path.name}' is a device or a pipe, no file", str(path))


def _part(path: Path) -> tuple[Path, IO[bytes]]:
    """A temporary file that is ours alone, open, with what was in it."""
    number = 0
    while True:
        part = path.with_name(f".{path.name}.{number}{ENDING}")
        file, is_new = open_own(part)
        if lock(file) and (is_new or is_own(file)):
            if is_at(file, part):
                return part, file
        else:
            number += 1  # somebody is writing the same file just now: the last to finish wins
        file.close()


def sync_file(path: Path) -> None:
    """Waits until a file's content is on the disk.

    Raises:
        OSError: it could not be written.
    """
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Waits until the names in a folder are on the disk, where a folder can be asked for that."""
    if sys.platform == "win32":
        return
    with suppress(OSError):  # network file systems that refuse it keep their own promises
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
