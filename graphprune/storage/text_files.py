"""Write a text so that a crash or a full disk leaves what was there before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from graphprune.errors import ModelError
from graphprune.storage.durable import file_ready_at


def write_text(path: Path, text: str, what: str) -> None:
    """Writes a file; it appears whole or not at all.

    Args:
        path: the file, replaced if it exists.
        text: all of it, written as UTF-8 with the line ends that it has.
        what: it is, for the error: "the plan".

    Raises:
        ModelError: the path can't be written.
    """
    with text_ready_at(path, text, what):
        pass


@contextmanager
def text_ready_at(path: Path, text: str, what: str) -> Iterator[None]:
    """Writes beside a file, which is replaced when the block ends without an error.

    Args:
        path: see :func:`write_text`, as what follows.
        text: see there.
        what: see there.

    Raises:
        ModelError: the path can't be written.
    """
    data = text.encode()
    with ExitStack() as stack:
        with _explained(path, what):
            ready = stack.enter_context(file_ready_at(path))
            ready.write(data)
            ready.flush()
        yield
        with _explained(path, what):
            stack.pop_all().close()


@contextmanager
def _explained(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"cannot write {what} to '{path}'"
        because = error.strerror or str(error)
        raise ModelError(message, because=because, hint="a folder you can write to, with room") from error
