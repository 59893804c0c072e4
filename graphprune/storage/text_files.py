"""Write a text so that a crash or a full disk leaves what was there before."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from graphprune.errors import ModelError


def write_text(path: Path, text: str, what: str) -> None:
    """Writes a file; it appears whole or not at all.

    Args:
        path: the file, replaced if it exists.
        text: all of it, written as UTF-8 with the line ends that it has.
        what: it is, for the error: "the plan".

    Raises:
        ModelError: the path can't be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(text.encode())
        part.replace(path)
    except OSError as error:
        with suppress(OSError):  # below a file there is nothing to remove either
            part.unlink(missing_ok=True)
        message = f"cannot write {what} to '{path}'"
        raise ModelError(message, because=str(error.strerror), hint="a folder you can write to") from error
