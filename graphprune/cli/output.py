"""Printing: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from graphprune.errors import GraphPruneError, ModelError
from graphprune.printable import printable


class _Console(Console):
    """Prints names as they are, but for what a terminal would obey."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Segments of text, which hold no control characters of their own."""
        for segment in super().render(renderable, options):
            harmless = segment.control or segment.text.isprintable()
            yield segment if harmless else Segment(printable(segment.text), segment.style)


_log = _Console(stderr=True, highlight=False, emoji=False)


def show(*parts: RenderableType) -> None:
    """Tables and text for people, on stdout."""
    # Wide enough for names when the output is no terminal; a table is never cut off then.
    # No markup: names of tensors may hold square brackets.
    console = _Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 160)
    with _printing():
        with console.capture() as captured:
            for part in parts:
                console.print(part, soft_wrap=isinstance(part, str))
        _write(captured.get())


def show_json(document: dict[str, Any]) -> None:
    """One JSON document on stdout; JSON has no infinities and no NaN, so these are null."""
    with _printing():
        _write(json.dumps(_finite(document), indent=1, allow_nan=False) + "\n")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


@contextmanager
def _printing() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        # The reader went away (`graphprune inspect … | head`): nothing left to say, or to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        message = "cannot print the result"
        because = error.strerror or str(error)
        raise ModelError(message, where="standard output", because=because) from error


def _finite(item: Any) -> Any:
    if isinstance(item, dict):
        return {key: _finite(value) for key, value in item.items()}
    if isinstance(item, (list, tuple)):
        return [_finite(value) for value in item]
    return None if isinstance(item, float) and not math.isfinite(item) else item


def log(text: str) -> None:
    """A line on stderr."""
    _log.print(text, markup=False, soft_wrap=True)


def console_for_logs() -> Console:
    """Where progress is drawn: stderr."""
    return _log


class _Notes(logging.Handler):
    """What is worth a line, but is no error: what a killed run had left."""

    def emit(self, record: logging.LogRecord) -> None:
        log(f"note: {record.getMessage()}")


_notes = _Notes()


def show_notes() -> None:
    """From now on, what graphprune logs is printed as well."""
    logging.getLogger("graphprune").addHandler(_notes)
    logging.getLogger("graphprune").setLevel(logging.INFO)


def fail(error: GraphPruneError) -> int:
    """Prints an error, returns its exit code."""
    sys.stderr.write(f"graphprune: {error}\n")
    return error.exit_code


@contextmanager
def working(text: str) -> Iterator[None]:
    """A spinner while something runs, on a terminal only."""
    if _log.is_terminal:
        with _log.status(text):
            yield
    else:
        yield
