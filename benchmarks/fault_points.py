"""Something happens at one of a run's file operations: it fails, or a file is changed.  Used by faults.py."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: What Python tells before it does it.
_OPERATIONS = ("open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Points:
    """Counts the operations that change something below a folder, and acts at one of them.

    A hook stays for the life of the process: make one, and set it up again for each run.
    """

    def __init__(self) -> None:
        self._folder = ""
        self._act: Callable[[int], None] | None = None
        self.count = 0
        sys.addaudithook(self._hook)

    def watch(self, folder: Path, act: Callable[[int], None]) -> None:
        """From now on ``act`` is called with the number of each operation, from 0, before it is done."""
        self._folder, self._act, self.count = str(folder), act, 0

    def rest(self) -> None:
        """No more."""
        self._act = None

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._act is None or event not in _OPERATIONS or not self._is_below(arguments[0]):
            return
        if event == "open" and not arguments[2] & _WRITES:
            return
        number, self.count = self.count, self.count + 1
        self._act(number)

    def _is_below(self, path: object) -> bool:
        return isinstance(path, (str, os.PathLike)) and os.path.abspath(path).startswith(self._folder)  # noqa: PTH100


def failing(at: int, error: int, *, forever: bool) -> Callable[[int], None]:
    """Makes one operation fail, or it and all after it."""

    def act(number: int) -> None:
        if number == at or (forever and number > at):
            raise OSError(error, os.strerror(error))

    return act


def once(at: int, change: Callable[[], None]) -> Callable[[int], None]:
    """Does something at one operation."""

    def act(number: int) -> None:
        if number == at:
            change()

    return act
