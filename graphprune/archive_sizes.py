"""What an ``.npz`` would be in memory, before it is unpacked: a small file may announce a great deal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np

from graphprune.limits import require_size


def require_archive_size(path: str | Path) -> None:
    """Refuses an archive whose arrays, unpacked, are larger than the user allows.

    Raises:
        OSError: the file can't be read, or is no file.
        BadZipFile: it is no archive.
        ModelError: it is too large.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        message = "it is no regular file"
        raise OSError(0, message, str(path))
    with ZipFile(path) as archive:
        require_size(sum(entry.file_size for entry in archive.infolist()), f"the unpacked '{path}'")


def require_arrays(members: Mapping[str, Any]) -> dict[str, Any]:
    """The same; numpy gives bytes for a member that is no array.

    Raises:
        ValueError: there is one.
    """
    for name, member in members.items():
        if not isinstance(member, np.ndarray):
            message = f"its member '{name}' is no array"
            raise ValueError(message)
    return dict(members)
