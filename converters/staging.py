"""Write beside, then rename: a failed conversion leaves nothing behind and harms no old file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from graphprune.errors import ModelError
from graphprune.storage.publish import publish
from graphprune.storage.workspace import reserved


@contextlib.contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A path of the same name in a folder of its own; its files are moved to ``out`` at the end.

    External data and further files of weights go along.

    Raises:
        ModelError: the folder of ``out`` can't be written.
    """
    if out.is_dir():
        message = f"cannot write '{out}'"
        raise ModelError(message, because="it is a folder", hint="give a file name")
    with reserved(out) as folder:
        before = {file.name for file in folder.iterdir()}
        yield folder / out.name
        beside = sorted({file.name for file in folder.iterdir() if file.is_file()} - before - {out.name})
        try:
            publish(folder, out, beside)
        except OSError as error:
            message, because = f"cannot write '{out}'", error.strerror or str(error)
            raise ModelError(message, because=because, hint="a folder you can write to, with room") from error
