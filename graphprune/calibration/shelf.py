"""Tensors by name: in memory as long as there is room, in temporary files beyond it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from weakref import finalize

import numpy as np
import numpy.typing as npt

Tensor = npt.NDArray[np.generic]
#: Bytes that all shelves of one run may hold in memory.
ROOM = 1 << 29


class Room:
    """What several shelves share: a number of bytes, and a folder for what is beyond.

    Args:
        size: bytes in memory.
    """

    def __init__(self, size: int = ROOM) -> None:
        self.left = size
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._count = 0

    def path(self) -> Path:
        """A new file's place; the folder goes with this object."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="graphprune-")
            finalize(self, self._folder.cleanup)
        self._count += 1
        return Path(self._folder.name) / f"{self._count}.npy"


class Shelf(dict[str, Tensor]):
    """Tensors of one batch.

    Args:
        room: shared with the other batches' shelves.
    """

    def __init__(self, room: Room) -> None:
        super().__init__()
        self._room = room
        self._files: dict[str, Path] = {}

    def __setitem__(self, name: str, array: Tensor) -> None:
        if name in self:
            del self[name]
        if array.nbytes > self._room.left and array.dtype.isbuiltin == 1:
            path = self._room.path()
            np.save(path, array)
            self._files[name] = path
            array = np.load(path, mmap_mode="r")
        else:
            self._room.left -= array.nbytes
        super().__setitem__(name, array)

    def __delitem__(self, name: str) -> None:
        array = self[name]
        super().__delitem__(name)
        path = self._files.pop(name, None)
        if path is None:
            self._room.left += array.nbytes
        else:
            path.unlink(missing_ok=True)
