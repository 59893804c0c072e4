"""Write beside, then rename: a failed conversion leaves nothing behind and harms no old file."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from graphprune.errors import ModelError


@contextlib.contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A path of the same name in a folder of its own; its files are moved to ``out`` at the end.

    External data goes along (and first, so that the model file never points at nothing).

    Raises:
        ModelError: the folder of ``out`` can't be written.
    """
    try:
        if out.is_dir():
            message = "it is a folder"
            raise IsADirectoryError(message)
        folder = tempfile.TemporaryDirectory(dir=out.parent, prefix=".graphprune-")
    except OSError as error:
        what, because = f"cannot write '{out}'", error.strerror or str(error)
        raise ModelError(what, because=because, hint="an existing, writable folder") from error
    with folder as name:
        yield Path(name) / out.name
        for file in sorted(Path(name).iterdir(), key=lambda path: path.name == out.name):
            file.replace(out.parent / file.name)
