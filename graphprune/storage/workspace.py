"""The folder beside an output in which it is made: its lock, and what a killed run left in it.

``out.onnx`` is made in ``.out.onnx.graphprune``.  The folder holds a file that the run keeps locked, so a
folder whose file nobody has locked was left by a run that was killed.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from graphprune.errors import ModelError
from graphprune.storage.durable import ENDING, require_plain
from graphprune.storage.locks import is_at, is_own, lock, open_own
from graphprune.storage.publish import finish, is_needed

_LOCK = "lock"
#: Folder of what a run has found out so far.
JOURNAL = "journal"
_MARK = b"graphprune, process "
_log = logging.getLogger("graphprune")


@dataclass(frozen=True)
class _Held:
    """A folder that this process has, and the thread it is for."""

    folder: Path
    thread: int


_held: dict[Path, _Held] = {}
_guard = threading.Lock()


@contextmanager
def reserved(target: Path, *, keep: bool = False) -> Iterator[Path]:
    """A folder beside ``target`` for what becomes of it; nobody else writes this output meanwhile.

    Within the block the same thread may ask again, and gets the same folder.

    Args:
        target: the file that will be written.
        keep: what a killed run left stays in the folder, to go on from.

    Raises:
        ModelError: another run is writing this output, or the folder can't be made.
    """
    target = target.parent.resolve() / target.name
    with _guard:
        held = _held.get(target)
    if held is not None and held.thread == threading.get_ident():
        yield held.folder
        return
    folder = target.with_name(f".{target.name}{ENDING}")
    try:
        require_plain(target)
        file = _locked(folder, target)
    except OSError as error:
        with suppress(OSError):  # it is empty if it is ours
            folder.rmdir()
        message = f"cannot write '{target}'"
        because = error.strerror or str(error)
        hint = "check that the folder exists, may be written and has room"
        raise ModelError(message, where=str(folder), because=because, hint=hint) from error
    with _guard:
        _held[target] = _Held(folder, threading.get_ident())
    stays = False
    try:
        _clear(folder, target, keep=keep)
        yield folder
    except BaseException as error:
        # Stopped by somebody: a later run may go on from what this one has found out.
        stays = not isinstance(error, Exception) and (folder / JOURNAL).is_dir()
        raise
    finally:
        with _guard:
            del _held[target]
        if stays:
            file.close()
        else:
            _release(folder, target, file)


def reserved_if_any(target: str | Path | None, *, keep: bool = False) -> AbstractContextManager[Path | None]:
    """The same, where something is to be written."""
    return nullcontext() if target is None else reserved(Path(target), keep=keep)


def _locked(folder: Path, target: Path) -> IO[bytes]:
    """The open lock file of the folder, which is made if it is not there."""
    path = folder / _LOCK
    while True:
        with suppress(FileExistsError):
            folder.mkdir()
        if folder.is_symlink():
            raise _foreign(folder, target)
        try:
            if not path.exists() and any(other.name != _LOCK for other in folder.iterdir()):
                raise _foreign(folder, target)
            file, is_new = open_own(path)
        except FileNotFoundError:  # its last holder has just removed it
            continue
        with ExitStack() as stack:
            stack.enter_context(file)
            if not lock(file):
                raise _busy(file, target)
            if is_at(file, path):
                if not is_new:
                    _require_own(file, folder, target)
                _sign(file, folder, target)
                stack.pop_all()
                return file


def _require_own(file: IO[bytes], folder: Path, target: Path) -> None:
    """Refuses a lock file that this user's runs have not made."""
    content = file.read()
    if not is_own(file) or not (content.startswith(_MARK) or _MARK.startswith(content)):
        raise _foreign(folder, target)


def _sign(file: IO[bytes], folder: Path, target: Path) -> None:
    """Writes into the lock file whose it is."""
    try:
        file.seek(0)
        file.truncate()
        file.write(_MARK + str(os.getpid()).encode())
        file.flush()
    except OSError:
        _release(folder, target, file)
        raise


def _busy(file: IO[bytes], target: Path) -> ModelError:
    process = file.read().removeprefix(_MARK).decode(errors="replace") or "unknown"
    message = f"another run is writing '{target}'"
    hint = "wait until it is done, or another name for the output"
    return ModelError(message, because=f"process {process} holds its lock", hint=hint)


def _foreign(folder: Path, target: Path) -> ModelError:
    message = f"cannot write '{target}'"
    because = "the place for its temporary files is taken by something that is not ours"
    return ModelError(message, where=str(folder), because=because, hint="look what it is, and remove it")


def _clear(folder: Path, target: Path, *, keep: bool) -> None:
    """Deals with what a killed run left."""
    left = sorted(path.name for path in folder.iterdir() if path.name != _LOCK)
    if not left:
        return
    if finish(folder, target):
        _log.warning("a run that was killed had all but written '%s': it is complete now", target)
    elif keep:
        return
    else:
        _log.warning("a run that was killed had left '%s' (%s), which is gone now", folder, ", ".join(left))
    _empty(folder)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name == _LOCK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def _release(folder: Path, target: Path, file: IO[bytes]) -> None:
    """Removes the folder, unless the output reads from it."""
    with file, suppress(OSError):
        if is_needed(folder, target):
            return
        _empty(folder)
        if sys.platform == "win32":  # where open files can't be removed
            file.close()
        (folder / _LOCK).unlink()
        folder.rmdir()
