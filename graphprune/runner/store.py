"""The runner's folder: sent files by the hash of what is in them, and its own removal."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
import time
import zlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from graphprune.runner.sessions import Refused

PREFIX = "graphprune-runner-"
CHUNK = 1 << 20


class Source(ABC):
    """What a file is read from."""

    @abstractmethod
    def read(self, size: int) -> bytes:
        """The next bytes; empty at the end."""


class Store:
    """A folder of this process; folders of runners that died are removed with it.

    Args:
        parent: where to make it; by default the system's folder for temporary files.
        script: the runner itself, kept as a file for processes of its own.
    """

    def __init__(self, parent: str | None, script: str) -> None:
        above = Path(parent or tempfile.gettempdir())
        _remove_abandoned(above)
        try:
            self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=str(above)))
        except OSError as error:
            raise _refusal(error, above) from error
        try:
            self._lock = (self.folder / "lock").open("w")
            _lock(self._lock)
            self.script = str(self.folder / "runner.py")
            Path(self.script).write_text(script, encoding="utf-8")
        except OSError as error:
            self.remove()
            raise _refusal(error, above) from error
        self._views = 0

    def remove(self) -> None:
        """The folder and all that is in it."""
        for _ in range(20):  # a run in another thread may be writing meanwhile
            shutil.rmtree(str(self.folder), ignore_errors=True)
            if not self.folder.exists():
                break
            time.sleep(0.05)

    def receive(self, source: Source, size: int, digest: str, packed: bool) -> None:
        """Reads ``size`` bytes from the link, whatever happens; keeps the file that was promised."""
        found, unpack = hashlib.sha256(), zlib.decompressobj() if packed else None
        path = self.folder / (digest + ".part")
        failure: Exception | None = None
        left = size
        try:
            file: Any = path.open("wb")
        except OSError as error:
            file, failure = None, error
        while left:
            chunk = source.read(min(CHUNK, left))
            if not chunk:
                raise EOFError
            left -= len(chunk)
            if failure is None:
                try:
                    data = unpack.decompress(chunk) if unpack else chunk
                    found.update(data)
                    file.write(data)
                except (OSError, zlib.error) as error:
                    failure = error
        try:
            if file is not None:
                file.close()
        except OSError as error:
            failure = failure or error
        if failure is None and found.hexdigest() == digest:
            path.rename(self.folder / digest)
            return
        with contextlib.suppress(OSError):
            path.unlink()
        if isinstance(failure, OSError):
            raise _refusal(failure, self.folder)
        text = f"the file that arrived is not the one that was sent, {digest}"
        raise Refused(text, "transfer")

    def path(self, digest: str) -> Path:
        """A file that has arrived."""
        found = self.folder / Path(digest).name
        if not found.is_file():
            text = f"no file {digest} was sent"
            raise Refused(text, "no-file")
        return found

    def view(self, files: dict[str, str]) -> Path:
        """A folder in which files that were sent have their own names, as a model's external data must."""
        self._views += 1
        folder = self.folder / f"view{self._views}"
        folder.mkdir()
        for name, digest in files.items():
            place = folder / name
            if folder.resolve() not in place.resolve().parents:
                text = f"'{name}' leads out of the folder"
                raise Refused(text, "request")
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(str(self.path(digest)), str(place))
            except OSError:  # a file system without links
                try:
                    shutil.copyfile(str(self.path(digest)), str(place))
                except OSError as error:
                    raise _refusal(error, folder) from error
        return folder

    def drop(self, digests: list[str]) -> None:
        """Forgets files."""
        for digest in digests:
            self.path(digest).unlink()

    def clear_views(self) -> None:
        """Between two requests nobody needs them."""
        for folder in self.folder.glob("view*"):
            shutil.rmtree(str(folder), ignore_errors=True)


def _refusal(error: OSError, where: Path) -> Refused:
    text = f"{where}: {error.strerror or error}"
    return Refused(text, "disk-full" if is_full(error) else "no-folder")


def is_full(error: OSError) -> bool:
    """Is there no room on the disk, or none for this user?"""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _lock(file: Any) -> bool:
    """Is the file now locked by this process?  Its lock ends with the process that holds it."""
    try:
        import fcntl

        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # no such locks: nothing is abandoned as far as is known
        return False
    except OSError:
        return False
    return True


def _remove_abandoned(above: Path) -> None:
    for folder in above.glob(PREFIX + "*"):
        try:
            with (folder / "lock").open("r+") as file:
                if _lock(file):
                    shutil.rmtree(str(folder), ignore_errors=True)
        except OSError:  # another user's, or just being made
            continue
