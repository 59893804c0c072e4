"""A lock that ends with the process that holds it, however it ends."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import IO, Any

_TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


def lock(file: IO[Any]) -> bool:
    """Locks an open file for its process; False if somebody else holds it.

    Where the file system knows no locks nobody is kept out.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _TAKEN
    return True


def open_own(path: Path) -> tuple[IO[bytes], bool]:
    """Opens a file to write to, made if it is not there, without changing what is in it; and was it made?

    Raises:
        OSError: it can't be opened; it is a link.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
    try:
        return os.fdopen(os.open(path, flags | os.O_EXCL, 0o666), "r+b"), True
    except FileExistsError:
        return os.fdopen(os.open(path, flags, 0o666), "r+b"), False


def is_at(file: IO[Any], path: Path) -> bool:
    """Does the path still name this open file?  Its last holder may have renamed or removed it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except OSError:
        return False


def is_own(file: IO[Any]) -> bool:
    """Is it this user's, and in this place alone?  In a shared folder somebody may have put it there.

    Not to be asked of a file that was made just now: network and FAT file systems give it to whom they like.
    """
    status = os.fstat(file.fileno())
    return status.st_nlink == 1 and (sys.platform == "win32" or status.st_uid == os.geteuid())
